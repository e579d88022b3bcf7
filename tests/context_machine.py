"""A lab against a plain Python model of what a context is, driven at random by Hypothesis through two open handles."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from backends import server, used_database
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import autom8_lab as al
from autom8_lab.embedding import HashEncoder
from autom8_lab.lab import Lab

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODEL = "hash-64"
MANY = 1_000
IDS = ["ant", "bee", "cat", "dog", "eel", "fox"]
TOPICS = ["north", "south"]
WORDS = ["harbour", "lamp", "copper", "violet", "river", "window"]
TEXTS = [f"{one} {two}" for one in WORDS for two in ("stone", "paper")] + ["lamp", "harbour lamp river copper " * 40]
ABOUT = ("topic", "summary")
RETENTION = {"pinned", "priority", "expires_at"}

names = st.sampled_from(IDS)
texts = st.sampled_from(TEXTS)
# What is not given is not there: None would empty a field.
changes = st.fixed_dictionaries(
    {},
    optional={
        "topic": st.sampled_from(TOPICS),
        "summary": st.sampled_from(WORDS),
        "priority": st.integers(-3, 9),
        "pinned": st.booleans(),
        "hours": st.integers(1, 30),
    },
)


@dataclass(eq=False)
class Entry:
    """What a context is: one text under one id or several."""

    id: str
    content: str
    created_at: datetime
    topic: str | None = None
    summary: str | None = None
    priority: int = 0
    pinned: bool = False
    expires_at: datetime | None = None
    successor: Entry | None = None
    aliases: set[str] = field(default_factory=set)

    def shown(self) -> dict[str, Any]:
        return {
            **{
                item.name: getattr(self, item.name)
                for item in fields(self)
                if item.name not in ("successor", "aliases")
            },
            "superseded_by": self.successor.id if self.successor else None,
            "aliases": tuple(sorted(self.aliases)),
        }

    def words(self) -> set[str]:
        return set(" ".join(filter(None, [self.content, self.topic, self.summary])).split())


class Model:
    """The same verbs over a list."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def find(self, name: str) -> Entry:
        for entry in self.entries:
            if name == entry.id or name in entry.aliases:
                return entry
        raise al.ContextNotFound

    def alive(self, now: datetime) -> list[Entry]:
        return [
            item for item in self.entries if not item.successor and (item.expires_at is None or item.expires_at > now)
        ]

    def store(
        self, content: str, name: str, given: dict[str, Any], replaces: list[str], if_exists: str, now: datetime
    ) -> None:
        if name in replaces:
            raise al.InvalidValue
        old = [self.find(item) for item in replaces]
        existing = next((item for item in self.entries if name == item.id or name in item.aliases), None)
        if existing:
            self._again(existing, content, name, given, if_exists, now)
        elif twin := self._twin(content, given, old, now):
            twin.aliases.add(name)
            self._stronger(twin, given)
        else:
            self.entries.append(Entry(name, content, now, **given))
        for item in old:
            self.supersede(item, self.find(name))

    def _twin(self, content: str, given: dict[str, Any], old: list[Entry], now: datetime) -> Entry | None:
        same = [item for item in self.alive(now) if item.content == content and item not in old]
        fitting = [item for item in same if all(getattr(item, key) == given[key] for key in ABOUT if key in given)]
        return min(fitting, key=lambda item: (item.created_at, item.id), default=None)

    def _again(
        self, existing: Entry, content: str, name: str, given: dict[str, Any], if_exists: str, now: datetime
    ) -> None:
        changed = {key: value for key, value in given.items() if getattr(existing, key) != value}
        if if_exists == "fail":
            if changed.keys() - RETENTION or content != existing.content:
                raise al.ContextExists
            self._stronger(existing, given)
        elif if_exists == "update":
            if existing.expires_at is not None and existing.expires_at <= now:
                changed.setdefault("expires_at", None)
            self.update(name, {**changed, "content": content})

    @staticmethod
    def _stronger(entry: Entry, given: dict[str, Any]) -> None:
        entry.pinned = entry.pinned or given.get("pinned", False)
        entry.priority = max(entry.priority, given.get("priority", entry.priority))
        ends = [entry.expires_at, given.get("expires_at")]
        entry.expires_at = None if None in ends else max(ends)  # type: ignore[type-var]

    def update(self, name: str, given: dict[str, Any]) -> None:
        entry = self.find(name)
        if given.get("content", entry.content) != entry.content and entry.aliases:
            own = replace(entry, id=name, aliases=set())
            self.delete(name)
            self.entries.append(own)
            entry = own
        for key, value in given.items():
            setattr(entry, key, value)

    @staticmethod
    def supersede(entry: Entry, successor: Entry) -> None:
        following: Entry | None = successor
        while following:
            if following is entry:
                raise al.InvalidValue
            following = following.successor
        entry.successor = successor

    def delete(self, name: str) -> None:
        entry = self.find(name)
        if not entry.aliases:
            self.remove([entry])
            return
        if name == entry.id:
            entry.id = min(entry.aliases)
        entry.aliases.discard(name if name in entry.aliases else entry.id)

    def remove(self, gone: list[Entry]) -> None:
        self.entries = [item for item in self.entries if item not in gone]
        for item in self.entries:
            while item.successor in gone:
                item.successor = item.successor.successor if item.successor else None


class ContextMachine(RuleBasedStateMachine):
    """Every rule does one thing to the lab and to the model, and both agree on the outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="autom8-machine-"))
        self.path = self.made()
        self.model = Model()
        self.now = NOON
        self.labs: list[Lab] = []
        self.backups = 0

    def teardown(self) -> None:
        for lab in self.labs:
            lab.close()
        findings = self.checked()
        shutil.rmtree(self.folder)
        assert findings.empty, findings.to_string()

    def made(self) -> str:
        """Make an empty lab and return where it is."""
        return str(shutil.copy(empty_lab(), self.folder / "lab.db"))

    def checked(self) -> Any:
        """Return what is wrong with the closed lab."""
        return al.check_file(self.path)

    def copied(self, lab: Lab, path: Path) -> None:
        """Copy the open lab into a file."""
        assert lab.backup(path)["verified"]

    def open(self, engine: str) -> Lab:
        return al.open(
            self.path, embedding_model=MODEL, vector_engine=engine, synchronous="OFF", clock=lambda: self.now
        )

    def both(self, of_lab: Any, of_model: Any) -> None:
        """Do the same to both: either both do it, or both refuse, and with the same error."""
        self.now += timedelta(seconds=1)
        before = copy_of(self.model)
        try:
            of_model()
        except al.LabError as expected:
            self.model = before
            try:
                of_lab()
            except type(expected):
                return
            raise AssertionError(f"the lab did what the model refuses: {type(expected).__name__}") from None
        of_lab()

    def lab(self, which: bool) -> Lab:
        return self.labs[which]

    def given(self, options: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in options.items() if key != "hours"}
        hours = {"expires_at": self.now + timedelta(hours=options["hours"])} if "hours" in options else {}
        return {**rest, **hours}

    @initialize(engine=st.sampled_from(["exact", "sqlite-vec"]), first=st.lists(texts, max_size=len(IDS)))
    def start(self, engine: str, first: list[str]) -> None:
        self.labs = [self.open(engine), self.open("exact")]
        for name, text in zip(IDS, first, strict=False):
            self.store(False, text, name, {}, [], "fail")

    @rule(
        which=st.booleans(),
        text=texts,
        name=names,
        options=changes,
        replaces=st.lists(names, max_size=2, unique=True),
        if_exists=st.sampled_from(["fail", "update", "skip"]),
    )
    def store(
        self, which: bool, text: str, name: str, options: dict[str, Any], replaces: list[str], if_exists: Any
    ) -> None:
        given = self.given(options)
        self.both(
            lambda: self.lab(which).store_context(
                text, context_id=name, supersedes=replaces, if_exists=if_exists, **given
            ),
            lambda: self.model.store(text, name, given, replaces, if_exists, self.now),
        )

    @rule(which=st.booleans(), name=names, options=changes, text=st.none() | texts)
    def update(self, which: bool, name: str, options: dict[str, Any], text: str | None) -> None:
        given = self.given(options) | ({} if text is None else {"content": text})
        self.both(
            lambda: self.lab(which).update_context(name, **given),
            lambda: self.model.update(name, given),
        )

    @rule(which=st.booleans(), name=names, successor=names)
    def supersede(self, which: bool, name: str, successor: str) -> None:
        self.both(
            lambda: self.lab(which).update_context(name, superseded_by=successor),
            lambda: self.model.supersede(self.model.find(name), self.model.find(successor)),
        )

    @rule(which=st.booleans(), name=names, pinned=st.booleans())
    def pin(self, which: bool, name: str, pinned: bool) -> None:
        lab = self.lab(which)
        self.both(
            lambda: (lab.pin_context if pinned else lab.unpin_context)(name),
            lambda: self.model.update(name, {"pinned": pinned}),
        )

    @rule(which=st.booleans(), name=names)
    def delete(self, which: bool, name: str) -> None:
        self.both(lambda: self.lab(which).delete_context(name), lambda: self.model.delete(name))

    @rule(which=st.booleans(), hours=st.integers(1, 20), clean=st.booleans())
    def expire(self, which: bool, hours: int, clean: bool) -> None:
        self.now += timedelta(hours=hours)
        if clean:
            gone = [
                item
                for item in self.model.entries
                if not item.pinned and item.expires_at is not None and item.expires_at <= self.now
            ]
            found = self.lab(which).cleanup(dry_run=False)
            assert set(found["context_id"]) == {item.id for item in gone}
            self.model.remove(gone)

    @rule(which=st.booleans(), name=names, text=texts)
    def undo(self, which: bool, name: str, text: str) -> None:
        class Undone(Exception):
            pass

        lab = self.lab(which)
        try:
            with lab.transaction():
                lab.store_context(text, context_id=name, if_exists="update")
                lab.delete_context(name)
                lab.store_context(text, context_id="never", topic="never")
                raise Undone
        except Undone:
            pass

    @rule(
        which=st.booleans(),
        words=st.lists(st.sampled_from([*WORDS, *TOPICS, "stone"]), min_size=1, max_size=3, unique=True),
        method=st.sampled_from(["text", "semantic", "hybrid"]),
        topic=st.none() | st.sampled_from(TOPICS),
    )
    def search(self, which: bool, words: list[str], method: Any, topic: str | None) -> None:
        candidates = [item for item in self.model.alive(self.now) if topic in (None, item.topic)]
        expected = {item.id for item in candidates if method != "text" or item.words() & set(words)}
        query = " ".join(words)
        hits = self.lab(which).search(query, k=MANY, method=method, topic=topic, min_similarity=None)
        found = [hit.context.id for hit in hits]
        assert sorted(found) == sorted(expected), (method, query, topic)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        if method == "semantic":
            for hit in hits:
                if len(hit.context.content) < 100:  # one chunk
                    assert hit.similarity is not None
                    assert abs(hit.similarity - similarity(query, hit.context.content)) < 1e-5

    @rule(which=st.booleans())
    def backup(self, which: bool) -> None:
        self.backups += 1
        copy = self.folder / f"copy{self.backups}.db"
        self.copied(self.lab(which), copy)
        with al.open(copy, embedding_model=MODEL, read_only=True, clock=lambda: self.now) as lab:
            self.compare(lab)

    @rule(which=st.booleans(), engine=st.sampled_from(["exact", "sqlite-vec"]))
    def reopen(self, which: bool, engine: str) -> None:
        self.labs[which].close()
        self.labs[which] = self.open(engine)

    @precondition(lambda self: self.labs)
    @invariant()
    def both_handles_show_what_the_model_holds(self) -> None:
        for lab in self.labs:
            self.compare(lab)

    def compare(self, lab: Lab) -> None:
        found = lab.list_contexts(include_expired=True, include_superseded=True)
        shown = sorted((item.shown() for item in self.model.entries), key=lambda row: (row["created_at"], row["id"]))
        assert [{key: getattr(item, key) for key in row} for item, row in zip(found, shown, strict=False)] == shown
        assert len(found) == len(shown)
        assert [item.id for item in lab.list_contexts()] == [
            row["id"] for row in shown if any(item.id == row["id"] for item in self.model.alive(self.now))
        ]


class ServerMachine(ContextMachine):
    """The same on a server."""

    def made(self) -> str:
        """See `ContextMachine.made`."""
        self.database = ExitStack()
        return server().address(self.database.enter_context(used_database()))

    def checked(self) -> Any:
        """See `ContextMachine.checked`."""
        with self.open("exact") as lab:
            findings = lab.check()
        self.database.close()
        return findings

    def copied(self, lab: Lab, path: Path) -> None:
        """See `ContextMachine.copied`."""
        al.copy_lab(self.path, path, progress=False)

    def open(self, engine: str) -> Lab:
        """See `ContextMachine.open`; the file's own engine is the server's index there."""
        return super().open("hnsw" if engine == "sqlite-vec" else engine)


def copy_of(model: Model) -> Model:
    """Return a model of its own, with entries of its own."""
    twins = {id(item): replace(item, aliases=set(item.aliases)) for item in model.entries}
    for item in twins.values():
        item.successor = twins[id(item.successor)] if item.successor else None
    found = Model()
    found.entries = list(twins.values())
    return found


@cache
def vector(text: str) -> Any:
    """Return a text's vector, of length one."""
    found = HashEncoder(dimensions=64).encode_query(text)
    return found / np.linalg.norm(found)


def similarity(one: str, other: str) -> float:
    """Return the cosine of two texts' vectors."""
    return float(vector(one) @ vector(other))


@cache
def empty_lab() -> Path:
    """Return a lab with nothing in it, to be copied."""
    folder = tempfile.TemporaryDirectory(prefix="autom8-empty-")
    _folders.append(folder)
    path = Path(folder.name) / "empty.db"
    with al.open(path, embedding_model=MODEL, synchronous="OFF"):
        pass
    return path


_folders: list[tempfile.TemporaryDirectory[str]] = []
