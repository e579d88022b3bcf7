"""What the lab keeps, whom it showed it to, and contexts that several agents share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import autom8_lab as al

BOTH_BACKENDS = True
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Clock:
    """Goes on by a minute at each look."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared(place: Callable[[str], str], clock: Clock) -> Iterator[al.Lab]:
    """A lab with contexts of two topics and sources."""
    with al.open(place("lab.db"), embedding_model="hash-16", synchronous="OFF", clock=clock) as lab:
        lab.store_context(
            "Refunds need an approval.", context_id="refunds", topic="rules", source="handbook", pinned=True
        )
        lab.store_context("Backups run at two.", context_id="backups", topic="operations", source="wiki")
        lab.store_context("Größe zählt in Bytes.", context_id="bytes", topic="operations", source="handbook", ttl="30d")
        lab.store_context("Without a topic.", context_id="bare")
        yield lab


def rows(frame: Any, *columns: str) -> list[tuple[Any, ...]]:
    import pandas as pd

    return [
        tuple(None if pd.isna(cell) else cell for cell in row)
        for row in frame[list(columns)].itertuples(index=False, name=None)
    ]


# What is kept


def test_storage_is_told_by_topic_and_source(shared: al.Lab, clock: Clock) -> None:
    shared.get_context("backups")
    shared.get_context("backups")
    shared.store_context(
        "Backups run at three.", context_id="backups-2", topic="operations", source="wiki", supersedes="backups"
    )
    frame = shared.storage_df()
    assert rows(frame, "topic", "contexts", "pinned", "expired", "superseded", "times_shown") == [
        ("operations", 3, 0, 0, 1, 2),
        ("rules", 1, 1, 0, 0, 0),
        (None, 1, 0, 0, 0, 0),
    ]
    texts = ["Backups run at two.", "Backups run at three.", "Größe zählt in Bytes."]
    assert frame.loc[0, "content_bytes"] == sum(len(text.encode()) for text in texts)
    everything = shared.list_contexts(topic="operations", include_superseded=True)
    assert frame.loc[0, "tokens"] == sum(item.token_count or 0 for item in everything) > 0
    assert frame.loc[0, "first_created_at"] < frame.loc[0, "last_created_at"]
    clock.now += timedelta(days=31)
    assert rows(shared.storage_df(by=["topic", "source"]), "topic", "source", "contexts", "expired") == [
        ("operations", "wiki", 2, 0),
        ("operations", "handbook", 1, 1),
        ("rules", "handbook", 1, 0),
        (None, None, 1, 0),
    ]


def test_an_empty_lab_keeps_the_columns(lab: al.Lab) -> None:
    for frame in (lab.storage_df(by="source"), lab.shown_df(), lab.shown_df(by=["topic", "agent", "kind"])):
        assert len(frame) == 0
    assert lab.storage_df().dtypes.astype(str).to_dict() == {
        "topic": "str",
        **dict.fromkeys(["contexts", "pinned", "expired", "superseded"], "int64"),
        "tokens": "Int64",
        **dict.fromkeys(["content_bytes", "times_shown"], "int64"),
        **dict.fromkeys(["first_created_at", "last_created_at", "last_shown_at"], "datetime64[us, UTC]"),
    }
    assert lab.shown_df().dtypes.astype(str).to_dict() == {
        **dict.fromkeys(["context_id", "agent"], "str"),
        **dict.fromkeys(["times", "searches", "reads"], "int64"),
        **dict.fromkeys(["first_at", "last_at"], "datetime64[us, UTC]"),
    }


@pytest.mark.parametrize("by", ["topik", [], ["topic", "topic"], ["agent"]])
def test_storage_by_something_else_is_refused(lab: al.Lab, by: Any) -> None:
    with pytest.raises(al.InvalidValue, match="by="):
        lab.storage_df(by=by)


# Who saw what


def test_it_is_known_what_was_shown_to_whom_and_when(shared: al.Lab) -> None:
    with al.acting_as("planner"):
        shared.search("refunds", method="text")
        shared.get_context("refunds")
    with al.acting_as("writer"):
        shared.search("refunds backups", method="text")
    shared.get_context("refunds")
    assert rows(shared.shown_df(), "context_id", "agent", "times", "searches", "reads") == [
        ("refunds", "planner", 2, 1, 1),
        ("backups", "writer", 1, 1, 0),
        ("refunds", "writer", 1, 1, 0),
        ("refunds", None, 1, 0, 1),
    ]
    first = shared.shown_df("refunds", agent="planner").iloc[0]
    assert NOW < first["first_at"] < first["last_at"]
    accesses = shared.accesses_df("refunds")
    assert set(accesses["at"]) >= {first["first_at"], first["last_at"]}
    assert rows(shared.shown_df(by="topic"), "topic", "times") == [("rules", 4), ("operations", 1)]
    assert rows(shared.shown_df(by=["agent", "method"], agent=["planner", "writer"]), "agent", "method", "times") == [
        ("writer", "text", 2),
        ("planner", "text", 1),
        ("planner", None, 1),
    ]
    assert len(shared.shown_df(since="2027-01-01")) == 0
    assert len(shared.shown_df(until=NOW)) == 0


def test_a_deleted_context_stays_in_the_account_of_what_was_shown(shared: al.Lab) -> None:
    shared.get_context("backups")
    shared.delete_context("backups")
    assert rows(shared.shown_df("backups", by=["context_id", "topic"]), "context_id", "topic", "times") == [
        ("backups", None, 1)
    ]


def test_shown_by_something_else_is_refused(lab: al.Lab) -> None:
    with pytest.raises(al.InvalidValue, match="by='agnet'; did you mean 'agent'"):
        lab.shown_df(by="agnet")


def test_what_a_decision_saw_is_told_with_what_became_of_it(shared: al.Lab) -> None:
    decision = shared.record_decision("answer", context_ids=["refunds", "backups", "bytes", "bare"])
    shared.update_context("backups", content="Backups run at four.")
    shared.delete_context("bytes")
    shared.store_context("Newer.", context_id="newer", supersedes="bare")
    frame = shared.decision_contexts_df(decision)
    assert rows(frame, "position", "context_id", "content", "changed_since", "superseded_by", "deleted") == [
        (1, "refunds", "Refunds need an approval.", False, None, False),
        (2, "backups", "Backups run at four.", True, None, False),
        (3, "bytes", None, None, None, True),
        (4, "bare", "Without a topic.", False, "newer", False),
    ]
    assert (frame["decision_id"] == decision).all()
    nothing = shared.record_decision("answer")
    assert len(shared.decision_contexts_df(nothing)) == 0
    with pytest.raises(al.DecisionNotFound, match=r"no decision 'none': al.decisions_df\(\) lists the ids"):
        shared.decision_contexts_df("none")


# In whose name


def test_calls_decisions_and_reads_are_in_the_name_of_the_acting_agent(shared: al.Lab) -> None:
    with al.acting_as("planner"):
        shared.record_usage("m", input_tokens=1)
        shared.record_usages([{"model": "m"}, {"model": "m", "agent": "told"}])
        shared.record_decision("answer")
        with al.acting_as("inner"):
            shared.record_usage("m", agent="told")
            shared.search("x")
        shared.search("y")
    shared.record_usage("m")
    assert [row[0] for row in rows(shared.ledger_df(), "agent")] == ["planner", "planner", "told", "told", None]
    assert rows(shared.decisions_df(), "agent") == [("planner",)]
    assert rows(shared.searches_df(), "query", "agent") == [("y", "planner"), ("x", "inner")]


def test_the_configured_agent_acts_where_none_is_named(place: Callable[[str], str]) -> None:
    with al.open(place("x.db"), embedding_model="hash-16", agent="configured") as lab:
        lab.search("a")
        with al.acting_as("named"):
            lab.search("b")
        assert rows(lab.searches_df(), "query", "agent") == [("b", "named"), ("a", "configured")]


def test_agents_in_threads_and_tasks_are_told_apart(place: Callable[[str], str]) -> None:
    async def agent(lab: al.aio.AsyncLab, name: str) -> None:
        with al.acting_as(name):
            for _ in range(5):
                await lab.search(name)
                await asyncio.sleep(0)
            async with lab.transaction():
                await asyncio.gather(lab.record_usage(name), as_helper(lab, name))

    async def as_helper(lab: al.aio.AsyncLab, name: str) -> None:
        with al.acting_as(f"{name}'s helper"):
            await lab.record_usage(name)

    async def main() -> Any:
        async with al.aio.open(place("x.db"), embedding_model="hash-16") as lab:
            await asyncio.gather(*(agent(lab, f"agent {number}") for number in range(8)))
            return await lab.searches_df(), await lab.ledger_df()

    searches, ledger = asyncio.run(main())
    assert len(searches) == 40
    assert (searches["query"] == searches["agent"]).all()
    assert sorted(rows(ledger, "model", "agent")) == sorted(
        (f"agent {n}", f"agent {n}{end}") for n in range(8) for end in ("", "'s helper")
    )
    with al.open(place("x.db"), embedding_model="hash-16") as lab, al.acting_as("main"):
        thread = threading.Thread(target=lambda: lab.search("from a bare thread"))
        thread.start()
        thread.join()
        assert rows(lab.searches_df(limit=1), "query", "agent") == [("from a bare thread", None)]


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(al.InvalidValue, match="agent=' ' is empty"), al.acting_as(" "):
        pass


# Sharing without copies


def test_two_agents_share_one_text_under_ids_of_their_own(place: Callable[[str], str]) -> None:
    path = place("lab.db")
    with (
        al.open(path, embedding_model="hash-16", agent="planner") as planner,
        al.open(path, embedding_model="hash-16", agent="writer") as writer,
    ):
        planner.store_context("Refunds need an approval.", context_id="planner/refunds")
        writer.store_context("Refunds need an approval.", context_id="writer/refunds")
        assert writer.get_context("writer/refunds").id == planner.get_context("writer/refunds").id == "planner/refunds"
        assert (planner.stats()["contexts"], planner.stats()["embeddings"], planner.stats()["aliases"]) == (1, 1, 1)
        decision = writer.record_decision("answer", context_ids="writer/refunds")
        assert rows(planner.decision_contexts_df(decision), "context_id") == [("planner/refunds",)]
        writer.close()
        assert rows(planner.shown_df("writer/refunds"), "agent", "reads") == [("planner", 1), ("writer", 1)]
        planner.delete_context("planner/refunds")
        assert planner.get_context("writer/refunds").content == "Refunds need an approval."


def test_an_alias_is_another_id_of_the_same_context(shared: al.Lab) -> None:
    assert shared.alias_context("refunds", alias="support/refunds").aliases == ("support/refunds",)
    assert shared.alias_context("support/refunds", alias="billing/refunds").id == "refunds"
    assert shared.alias_context("refunds", alias="support/refunds").aliases == ("billing/refunds", "support/refunds")
    assert shared.alias_context("refunds", alias="refunds").id == "refunds"
    assert shared.get_context("billing/refunds").content == "Refunds need an approval."
    assert shared.stats()["contexts"] == 4
    with pytest.raises(al.ContextExists, match="alias='backups' is the id of another context"):
        shared.alias_context("refunds", alias="backups")
    with pytest.raises(al.ContextNotFound):
        shared.alias_context("none", alias="x")
    with pytest.raises(al.InvalidValue, match="alias=''"):
        shared.alias_context("refunds", alias="")
    assert len(shared.check()) == 0


# Retention


def test_each_topic_is_kept_as_long_as_its_user_says(place: Callable[[str], str], clock: Clock) -> None:
    settings = {"auto_cleanup_days": 30, "topic_cleanup_days": {"logs": 7, "contracts": None}}
    with al.open(place("x.db"), embedding_model="hash-16", clock=clock, **settings) as lab:
        for topic in ("logs", "contracts", "notes", None):
            lab.store_context(f"About {topic}.", context_id=str(topic), topic=topic)
        lab.store_context("Pinned log.", context_id="pinned", topic="logs", pinned=True)
        assert len(lab.cleanup()) == 0
        clock.now += timedelta(days=8)
        assert rows(lab.cleanup(), "context_id", "reason") == [("logs", "unused for more than 7 days")]
        clock.now += timedelta(days=23)
        assert {row[0] for row in rows(lab.cleanup(), "context_id")} == {"logs", "notes", "None"}
        assert {row[0] for row in rows(lab.cleanup(older_than="1d"), "context_id")} == {
            "logs",
            "notes",
            "None",
            "contracts",
        }
        lab.cleanup(dry_run=False)
        assert [item.id for item in lab.list_contexts()] == ["contracts", "pinned"]


def test_the_length_of_a_topic_may_come_from_the_file_and_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "autom8.yaml").write_text(
        "database: {topic_cleanup_days: {logs: 7, contracts: null}}", encoding="utf-8"
    )
    assert al.LabConfig.load().topic_cleanup_days == {"logs": 7, "contracts": None}
    monkeypatch.setenv("AUTOM8_TOPIC_CLEANUP_DAYS", '{"logs": 9}')
    assert al.LabConfig.load().topic_cleanup_days == {"logs": 9}
    with pytest.raises(al.ConfigurationError, match="topic_cleanup_days=0"):
        al.LabConfig.load(topic_cleanup_days={"logs": 0})
    monkeypatch.setenv("AUTOM8_TOPIC_CLEANUP_DAYS", "logs: 9")
    with pytest.raises(al.ConfigurationError, match="topic_cleanup_days"):
        al.LabConfig.load()
