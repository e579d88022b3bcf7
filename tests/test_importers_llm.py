"""The llm command line's files: written by the real llm with a model that needs no network, and by its older versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlite_utils import Database

import autom8_lab as al
from autom8_lab.lab import Lab

BOTH_BACKENDS = True

llm = pytest.importorskip("llm", reason="needs the extra test")

NAME = "gpt-4o-mini-2024-07-18"


class Parrot(llm.Model):  # type: ignore[misc, name-defined]
    """Says what it hears, and counts the words."""

    model_id = "parrot"

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any = None) -> Iterator[str]:
        words = prompt.prompt.split()
        details = {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 2}}
        response.set_usage(input=len(words), output=len(words) + 2, details=details)
        response.set_resolved_model(NAME)
        yield from prompt.prompt


class Counter(llm.EmbeddingModel):  # type: ignore[misc, name-defined]
    """Counts letters."""

    model_id = "letters"

    def embed_batch(self, items: Any) -> Iterator[list[float]]:
        for item in items:
            yield [float(item.lower().count(letter)) + 0.1 for letter in "abcdefgh"]


@pytest.fixture
def letters() -> Iterator[None]:
    """The embedding model, as a plugin would register it."""
    from llm.plugins import pm

    class Plugin:
        @staticmethod
        @llm.hookimpl
        def register_embedding_models(register: Any) -> None:
            register(Counter())

    plugin = Plugin()
    pm.register(plugin)
    yield
    pm.unregister(plugin)


def logged(path: Path, prompts: list[str], *, conversation: bool = False) -> Path:
    from llm.migrations import migrate

    model = Parrot()
    talk = model.conversation() if conversation else model
    with Database(path) as database:
        migrate(database)
        for prompt in prompts:
            response = talk.prompt(prompt)
            assert response.text() == prompt
            response.log_to_db(database)
    return path


def calls(lab: Lab) -> pd.DataFrame:
    return lab.ledger_df().sort_values("source_id", ignore_index=True).drop(columns="usage_key")


def test_every_call_that_llm_logged_arrives(lab: Lab, tmp_path: Path) -> None:
    path = logged(tmp_path / "logs.db", ["one two three", "one two three four"], conversation=True)
    report = lab.import_llm_logs(path)
    assert (report["read"], report["new"], report["refused"], report["unpriced"]) == (2, 2, 0, 0)
    frame = lab.ledger_df()
    assert frame["model"].tolist() == [NAME] * 2
    assert frame["source"].tolist() == ["llm"] * 2
    assert frame[["input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"]].to_numpy().tolist() == [
        [3, 5, 1, 2],
        [4, 6, 1, 2],
    ]
    assert frame["latency_ms"].ge(0).all()
    assert frame["success"].all()
    assert frame["cost_usd"].gt(0).all()
    assert (pd.Timestamp.now(tz="UTC") - frame["at"]).dt.total_seconds().between(0, 60).all()
    assert frame["metadata"].iloc[0]["asked_model"] == "parrot"
    assert lab.usage_df(by="metadata.conversation")["calls"].tolist() == [2]


def test_imported_twice_nothing_changes_and_new_calls_are_added(lab: Lab, tmp_path: Path) -> None:
    path = logged(tmp_path / "logs.db", ["one"])
    lab.import_llm_logs(path)
    before = calls(lab)
    assert lab.import_llm_logs(path)["already_there"] == 1
    pd.testing.assert_frame_equal(calls(lab), before)
    logged(path, ["two words"])
    report = lab.import_llm_logs(path)
    assert (report["new"], report["already_there"]) == (1, 1)


def test_prompts_and_answers_become_contexts_when_they_are_asked_for(lab: Lab, tmp_path: Path) -> None:
    path = logged(tmp_path / "logs.db", ["Where is the crane?"])
    lab.import_llm_logs(path)
    assert lab.stats()["contexts"] == 0
    assert lab.import_llm_logs(path, store_texts=True)["contexts"] == 2
    assert {item.topic for item in lab.list_contexts()} == {"prompt", "response"}
    assert lab.search("crane", method="text")[0].context.content == "Where is the crane?"


OLD = {
    "id": str,
    "model": str,
    "prompt": str,
    "response": str,
    "conversation_id": str,
    "duration_ms": int,
    "datetime_utc": str,
}
COUNTED = {**OLD, "input_tokens": int, "output_tokens": int, "token_details": str, "resolved_model": str}
RESPONSE = {
    "id": "01j9tq2r0a000000000000000",
    "model": "gpt-4o-mini",
    "prompt": "Say hi",
    "response": "Hi",
    "conversation_id": "01j9tq2r0b000000000000000",
    "duration_ms": 843,
    "datetime_utc": "2024-10-10T12:00:00.000000+00:00",
}


def old_file(path: Path, columns: dict[str, type], rows: list[dict[str, Any]]) -> Path:
    """The responses table of llm 0.5 to 0.31, which 0.32 leaves in the file as history."""
    with Database(path) as database:
        database.table("_llm_migrations").create({"name": str, "applied_at": str}, pk="name")
        database.table("conversations").create({"id": str, "name": str, "model": str}, pk="id")
        database.table("responses").create(columns, pk="id")
        database.table("responses").insert_all(rows)
    return path


def test_the_old_schema_is_read_with_and_without_token_counts(lab: Lab, tmp_path: Path) -> None:
    lab.import_llm_logs(old_file(tmp_path / "0.16.db", OLD, [RESPONSE]))
    details = {"cache_creation_input_tokens": 20, "cache_read_input_tokens": 100}
    claude = {
        **RESPONSE,
        "id": "01j9tq2r0c000000000000000",
        "model": "anthropic/claude-sonnet-4-5",
        "datetime_utc": "2025-10-10T12:00:00.000000",
        "input_tokens": 3,
        "output_tokens": 7,
        "token_details": json.dumps(details),
        "resolved_model": None,
    }
    lab.import_llm_logs(old_file(tmp_path / "0.31.db", COUNTED, [claude]))
    first, second = calls(lab).to_dict("records")
    assert (first["at"], first["latency_ms"]) == (pd.Timestamp("2024-10-10T12:00:00Z"), 843)
    assert pd.isna(first["input_tokens"])
    assert pd.isna(first["cost_usd"])
    assert (second["input_tokens"], second["cache_read_tokens"], second["cache_write_tokens"]) == (123, 100, 20)
    assert second["cost_usd"] == pytest.approx((3 * 3 + 100 * 0.3 + 20 * 3.75 + 7 * 15) / 1e6)
    assert lab.unpriced_df()["reason"].tolist() == ["tokens unknown"]


def test_a_file_with_history_and_new_calls_gives_both(lab: Lab, tmp_path: Path) -> None:
    path = old_file(tmp_path / "logs.db", COUNTED, [{**RESPONSE, "input_tokens": 5, "output_tokens": 6}])
    shutil.copy(logged(tmp_path / "new.db", ["one two"]), tmp_path / "both.db")
    with Database(tmp_path / "both.db") as database, Database(path) as old:
        database.table("responses").insert_all(old.table("responses").rows, ignore=True)
    report = lab.import_llm_logs(tmp_path / "both.db")
    assert (report["read"], report["new"]) == (2, 2)
    assert sorted(lab.ledger_df()["input_tokens"]) == [2, 5]


def test_the_published_schemas_are_read(lab: Lab, tmp_path: Path, shared_data: Path) -> None:
    ddl = (shared_data / "llm_schema" / "logs_llm_0.36.sql").read_text(encoding="utf-8")
    with Database(tmp_path / "logs.db") as database:
        for statement in ddl.split(";\n"):
            if statement.strip().startswith("CREATE TABLE") and "_fts" not in statement:
                database.execute(statement)
        turn = {
            "id": "01k",
            "model": "gpt-4o",
            "datetime_utc": "2026-09-01T00:00:00",
            "duration_ms": 5,
            "input_tokens": 9,
        }
        database.table("turns").insert({**turn, "output_tokens": 1})
        database.table("responses").insert({**RESPONSE, "input_tokens": 5, "output_tokens": 6})
    assert lab.import_llm_logs(tmp_path / "logs.db")["new"] == 2


def test_a_foreign_a_newer_and_a_damaged_file_say_so(lab: Lab, tmp_path: Path) -> None:
    with Database(tmp_path / "other.db") as database:
        database.table("history").insert({"url": "x"})
    with pytest.raises(al.InvalidValue, match=r"no log of llm: it has history.*llm logs path"):
        lab.import_llm_logs(tmp_path / "other.db")
    with Database(tmp_path / "newer.db") as database:
        database.table("_llm_migrations").insert({"name": "m099_everything_else", "applied_at": "2030"})
        database.table("turns").create({"id": str, "model_key": int, "datetime_utc": str, "duration_ms": int})
    with pytest.raises(al.InvalidValue, match=r"turns has no model; last migration m099_everything_else.*upgrade"):
        lab.import_llm_logs(tmp_path / "newer.db")
    with Database(tmp_path / "newest.db") as database:
        database.table("_llm_migrations").insert({"name": "m120_calls", "applied_at": "2031"})
        database.table("calls").insert({"id": 1})
    with pytest.raises(al.InvalidValue, match=r"no table responses or turns; last migration m120_calls"):
        lab.import_llm_logs(tmp_path / "newest.db")
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(al.InvalidValue, match="not an SQLite file"):
        lab.import_llm_logs(tmp_path / "text.db")
    with pytest.raises(al.NotFound, match="llm logs path"):
        lab.import_llm_logs(tmp_path / "nowhere.db")


def test_bad_rows_and_a_damaged_file_end_in_the_report(lab: Lab, tmp_path: Path) -> None:
    rows = [{**RESPONSE, "id": f"{number:04}", "input_tokens": 5, "output_tokens": number} for number in range(3_000)]
    rows[1] |= {"input_tokens": -5}
    rows[2] |= {"datetime_utc": None}
    rows[3] |= {"token_details": "{" * 5_000}
    path = old_file(tmp_path / "logs.db", COUNTED, rows)
    report = lab.import_llm_logs(path, dry_run=True)
    assert (report["new"], report["refused"]) == (2_998, 2)
    content = bytearray(path.read_bytes())
    content[200_000:260_000] = b"\xff" * 60_000
    path.write_bytes(content)
    report = lab.import_llm_logs(path)
    assert 0 < report["new"] < 2_998
    assert "cannot be read any further" in report.refused_df()["reason"].iloc[-1]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"input_tokens": -5}, "no number of tokens"),
        ({"input_tokens": 2**62}, "more than one call"),
        ({"input_tokens": "many"}, "no finite number"),
        ({"input_tokens": 5.5}, "no number of tokens"),
        ({"output_tokens": b"\x05"}, "no finite number"),
        ({"datetime_utc": "2199-01-01T00:00:00"}, "in the future"),
        ({"datetime_utc": "1970-01-01T00:00:00"}, "before any call"),
        ({"datetime_utc": None}, "at is missing"),
        ({"datetime_utc": b"\xff"}, "at|datetime_utc"),
        ({"model": None}, "model is missing"),
        ({"model": b"gpt"}, "is no text"),
        ({"model": "m" * 300}, "more than 255"),
        ({"duration_ms": -1}, "below 0"),
        ({"duration_ms": float("inf")}, "no finite number"),
        ({"token_details": '{"cached_tokens": ' + "[" * 10_000}, ""),
        ({"token_details": '{"prompt_tokens_details": {"cached_tokens": -1}}'}, "no number of tokens"),
        ({"token_details": '{"a": 1, "a": 2}'}, ""),
    ],
)
def test_a_hostile_row_of_a_log_costs_no_other_row(lab: Lab, tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    rows = [{**RESPONSE, "id": f"{number:04}", "input_tokens": 5 + number, "output_tokens": 1} for number in range(3)]
    path = tmp_path / "logs.db"
    old_file(path, dict.fromkeys(COUNTED, bytes), [{**rows[0], "token_details": None}])  # columns of any type
    with Database(path) as database:
        database.table("responses").insert_all([rows[1] | bad, rows[2]])
    report = lab.import_llm_logs(path)
    refused = 1 if reason else 0  # details that cannot be read say nothing, and the counts beside them stand
    assert (report["new"], report["refused"]) == (3 - refused, refused)
    assert sorted(lab.ledger_df()["input_tokens"]) == ([5, 7] if refused else [5, 6, 7])
    assert report.refused_df()["reason"].str.contains(reason).all()
    assert report.refused_df()["place"].tolist() == ["responses 0001"] * refused


def test_a_text_of_a_log_that_is_not_utf_8_costs_its_row_alone(lab: Lab, tmp_path: Path) -> None:
    rows = [{**RESPONSE, "id": f"{number:04}", "input_tokens": 5 + number, "output_tokens": 1} for number in range(3)]
    path = old_file(tmp_path / "logs.db", COUNTED, rows)
    with Database(path) as database:
        database.execute("UPDATE responses SET model = CAST(x'6770742dff' AS TEXT) WHERE id = '0001'")
        database.execute("UPDATE responses SET prompt = CAST(x'ff' AS TEXT) WHERE id = '0002'")
        database.conn.commit()
    report = lab.import_llm_logs(path)
    assert (report["new"], report["refused"]) == (2, 1)
    assert "not UTF-8" in report.refused_df().loc[0, "reason"]


def test_an_id_of_a_log_that_another_source_has_is_another_call(lab: Lab, tmp_path: Path) -> None:
    lab.record_usage("gpt-4o", source="elsewhere", source_id=RESPONSE["id"], input_tokens=1, output_tokens=1)
    lab.import_llm_logs(old_file(tmp_path / "logs.db", COUNTED, [{**RESPONSE, "input_tokens": 5, "output_tokens": 1}]))
    assert sorted(lab.ledger_df()["input_tokens"]) == [1, 5]


def test_the_log_of_this_machine_is_found_by_itself(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    with pytest.raises(al.NotFound, match="llm logs path"):
        lab.import_llm_logs()
    assert str(llm.user_dir()) == str(tmp_path / "llm")
    logged(tmp_path / "llm" / "logs.db", ["one"])
    assert lab.import_llm_logs()["new"] == 1


def test_the_usual_folder_is_the_one_that_llm_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from autom8_lab.importers.llm_logs import user_folder

    monkeypatch.delenv("LLM_USER_PATH", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder() == llm.user_dir()


# Embeddings

TEXTS = {"a": "abba baba", "c": "cafe decade", "h": "high hedge hag"}


def embedded(path: Path, name: str = "docs", *, store: bool = True) -> Path:
    with Database(path) as database:
        collection = llm.Collection(name, database, model=Counter())
        for key, text in TEXTS.items():
            collection.embed(key, text, metadata={"page": 1}, store=store)
    return path


def test_collections_become_contexts_with_the_vectors_that_they_have(lab: Lab, tmp_path: Path, letters: None) -> None:
    report = lab.import_llm_embeddings(embedded(tmp_path / "embeddings.db"))
    assert (report["read"], report["new"], report["refused"]) == (3, 3, 0)
    stats = lab.stats()
    assert (stats["contexts"], stats["without_vectors"], stats["embedding_model"]) == (3, 0, "llm/letters")
    hits = lab.search("a cafe decade", method="semantic")
    assert hits[0].context.content == TEXTS["c"]
    query, stored = (np.array(next(iter(Counter().embed_batch([text])))) for text in ("a cafe decade", TEXTS["c"]))
    expected = query @ stored / np.linalg.norm(query) / np.linalg.norm(stored)
    assert hits[0].similarity == pytest.approx(expected, abs=1e-6)
    context = lab.get_context("llm:docs:h")
    assert (context.topic, context.source) == ("docs", "llm-embeddings")
    assert context.metadata == {"page": 1, "collection": "docs", "llm_id": "h"}
    assert lab.import_llm_embeddings(tmp_path / "embeddings.db")["already_there"] == 3
    assert lab.stats()["contexts"] == 3
    lab.store_context("gag hedge", context_id="own")  # what comes later is encoded by the same model
    assert lab.search("gag hedge", method="semantic")[0].context.id == "own"


def test_in_a_lab_with_vectors_both_models_know_the_texts(lab: Lab, tmp_path: Path, letters: None) -> None:
    lab.store_context("a cab")
    lab.import_llm_embeddings(embedded(tmp_path / "embeddings.db"))
    assert (lab.stats()["embedding_model"], lab.stats()["without_vectors"]) == ("hash-64@1", 0)
    assert lab.search("cafe decade", method="semantic")[0].context.content == TEXTS["c"]
    assert lab.embed_contexts("llm/letters")["contexts_embedded"] == 1  # the others' vectors were imported
    assert lab.search("cafe decade", method="semantic")[0].context.content == TEXTS["c"]
    assert lab.stats()["embedding_model"] == "llm/letters"


def test_without_the_models_plugin_search_says_what_is_missing(lab: Lab, tmp_path: Path) -> None:
    lab.import_llm_embeddings(embedded(tmp_path / "embeddings.db", "plain"))
    from autom8_lab.embedding import encoders

    encoders._loaded.clear()
    with pytest.raises(al.ModelUnavailable, match=r"no embedding model 'letters'.*embed-models"):
        lab.search("cafe", method="semantic")
    assert lab.search("cafe", method="text")[0].context.content == TEXTS["c"]


def test_what_has_no_text_or_no_vector_is_listed(lab: Lab, tmp_path: Path) -> None:
    path = embedded(tmp_path / "embeddings.db", "bare", store=False)
    embedded(path, "docs")
    with Database(path) as database:
        table = database.table("embeddings")
        for key, raw in {
            "x": b"abc",
            "nan": np.array([np.nan] * 8, "<f4").tobytes(),
            "short": np.ones(3, "<f4").tobytes(),
        }.items():
            table.insert(
                {"collection_id": 2, "id": key, "embedding": raw, "content": f"text {key}", "updated": 1_700_000_000}
            )
    report = lab.import_llm_embeddings(path)
    assert (report["read"], report["new"], report["refused"]) == (9, 3, 6)
    reasons = report.refused_df()["reason"].str.cat(sep="\n")
    for word in ("--store", "32-bit", "NaN", "3 dimensions"):
        assert word in reasons
    assert lab.stats()["contexts"] == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"embedding": b"\x00" * 32}, "zero"),
        ({"embedding": np.full(8, np.inf, "<f4").tobytes()}, "NaN|infinit|finite"),
        ({"embedding": b""}, "32-bit"),
        ({"embedding": "text"}, "32-bit"),
        ({"embedding": None}, "32-bit"),
        ({"content": b"\xff"}, "text is not in the file"),
        ({"content": "\0"}, "text|content"),
        ({"updated": "soon"}, "no time"),
        ({"updated": 1e30}, "no time"),
        ({"id": None}, ""),
        ({"metadata": "[" * 10_000}, ""),
        ({"metadata": '{"a": 1, "a": 2}'}, ""),
        ({"metadata": '{"a": NaN}'}, "metadata"),
        ({"id": "a\x07b"}, "control character"),
    ],
)
def test_a_hostile_item_of_a_collection_costs_no_other_item(
    lab: Lab, tmp_path: Path, letters: None, bad: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "embeddings.db"
    items = [
        {
            "collection_id": 1,
            "id": f"item {number}",
            "embedding": np.arange(1, 9, dtype="<f4").tobytes(),
            "content": f"text {number}",
            "metadata": None,
            "updated": 1_700_000_000,
        }
        for number in range(3)
    ]
    with Database(path) as database:
        database.table("collections").insert({"id": 1, "name": "docs", "model": "letters"})
        database.table("embeddings").create(dict.fromkeys(items[0], bytes))
        database.table("embeddings").insert_all([items[0], items[1] | bad, items[2]])
    report = lab.import_llm_embeddings(path)
    refused = 1 if reason else 0
    assert (report["new"], report["refused"]) == (3 - refused, refused), report
    assert report.refused_df()["reason"].str.contains(reason).all()
    assert {"text 0", "text 2"} <= {context.content for context in lab.list_contexts()}


def test_one_collection_a_dry_run_and_files_that_are_none(lab: Lab, tmp_path: Path) -> None:
    path = embedded(embedded(tmp_path / "embeddings.db", "one"), "two")
    assert lab.import_llm_embeddings(path, dry_run=True)["new"] == 6
    assert lab.stats()["contexts"] == 0
    assert lab.import_llm_embeddings(path, collection="two")["read"] == 3
    with pytest.raises(al.InvalidValue, match="did you mean 'two'"):
        lab.import_llm_embeddings(path, collection="twoo")
    with pytest.raises(al.InvalidValue, match="llm collections path"):
        lab.import_llm_embeddings(logged(tmp_path / "logs.db", ["x"]))


def test_a_renewed_item_renews_its_context(lab: Lab, tmp_path: Path, letters: None) -> None:
    path = embedded(tmp_path / "embeddings.db")
    lab.import_llm_embeddings(path)
    with Database(path) as database:
        llm.Collection("docs", database, model=Counter()).embed("a", "gag hedge", metadata={"page": 1}, store=True)
    assert lab.import_llm_embeddings(path)["updated"] == 1
    assert lab.get_context("llm:docs:a").content == "gag hedge"
    assert lab.search("gag hedge", method="semantic")[0].context.id == "llm:docs:a"
    assert lab.stats()["without_vectors"] == 0
