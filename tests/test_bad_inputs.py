"""Every verb refuses what it cannot use with an error of ours, which names the value and the remedy; nothing changes.

To add a verb: a `Case` or more in CASES, and what its required parameters need in REQUIRED.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from backends import Places

import autom8_lab as al
from autom8_lab.lab import Lab

BOTH_BACKENDS = True

MODEL = "hash-16"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEEP: dict[str, Any] = {}
for _ in range(40):
    DEEP = {"deeper": DEEP}


class Case(NamedTuple):
    """One call that cannot work: what its message has to say, and which error it is."""

    verb: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    says: str
    error: type[al.LabError] = al.InvalidValue


def case(verb: str, *arguments: Any, says: str, error: type[al.LabError] = al.InvalidValue, **options: Any) -> Case:
    return Case(verb, arguments, options, says, error)


CASES = [
    # Contexts
    case("store_context", None, says=r"content=None is a NoneType: give a str"),
    case("store_context", b"bytes", says=r"content=b'bytes' is a bytes: give a str"),
    case("store_context", "", says=r"content='' is empty: give some text"),
    case("store_context", "a\0b", says=r"content has a NUL character at position 1: remove it"),
    case("store_context", "\ud800", says=r"half a surrogate pair at position 0: decode its source"),
    case("store_context", "x" * 50_000_001, says=r"50,000,001 characters: at most 50,000,000 are kept, split it"),
    case("store_context", "new", context_id=" a", says=r"context_id=' a' starts or ends with white space: give 'a'"),
    case("store_context", "new", context_id=7, says=r"context_id=7 is a int: give a str"),
    case("store_context", "new", topic="x" * 256, says=r"topic has 256 characters: at most 255"),
    case("store_context", "new", topic=["a"], says=r"topic=\['a'\] is a list: give a str"),
    case("store_context", "new", priority="high", says=r"priority='high': give a whole number"),
    case("store_context", "new", priority=2**40, says=r"priority=1099511627776: give a whole number within"),
    case("store_context", "new", pinned="yes", says=r"pinned='yes': give True or False"),
    case("store_context", "new", ttl="soon", says=r"ttl='soon': give a timedelta or a text such as"),
    case("store_context", "new", ttl=timedelta(0), says=r"ttl=datetime.timedelta\(0\): give a length of time above"),
    case("store_context", "new", ttl="1d", expires_at=NOON, says=r"ttl='1d' and expires_at=.*give one of the two"),
    case("store_context", "new", expires_at="tomorrow", says=r"expires_at='tomorrow': give a time such as"),
    case("store_context", "new", expires_at=datetime(2026, 1, 1), says=r"expires_at=2026.*no time zone: add one"),
    case("store_context", "new", metadata=[1], says=r"metadata=\[1\] is a list: give a dict"),
    case("store_context", "new", metadata={1: 2}, says=r"metadata has the key 1: JSON's keys are str"),
    case("store_context", "new", metadata={"a": {1, 2}}, says=r"metadata\['a'\]={1, 2} is a set.*give a str or"),
    case("store_context", "new", metadata={"a": float("nan")}, says=r"metadata\['a'\]=nan has no place.*give None"),
    case(
        "store_context", "new", metadata={"a": 2**64}, says=r"metadata\['a'\]=18446744073709551616 .*give it as a str"
    ),
    case("store_context", "new", metadata=DEEP, says=r"nested deeper than 32 levels: flatten it"),
    case(
        "store_context", "new", metadata={"a": "x" * 1_000_000}, says=r"1,000,009 characters as JSON: at most 1,000,000"
    ),
    case("store_context", "new", supersedes="nobody", says=r"no context 'nobody'", error=al.ContextNotFound),
    case("store_context", "new", if_exists="replace", says=r"if_exists='replace': give 'fail', 'update' or 'skip'"),
    case(
        "store_context", "another text", context_id="one", says=r"'one' exists already.*update_", error=al.ContextExists
    ),
    case("store_contexts", "text", says=r"'text' is a str: give a DataFrame or a list of dicts"),
    case("store_contexts", None, says=r"None is a NoneType: give a DataFrame"),
    case("store_contexts", [{"content": "new"}, 7], says=r"row 1: a row is a int: give a dict"),
    case(
        "store_contexts", [{"content": "new", "topik": "a"}], says=r"row 0: unknown field 'topik'; did you mean 'topic'"
    ),
    case("store_contexts", [{"topic": "a"}], says=r"row 0: content=None"),
    case("store_contexts", ["new"], batch_size=0, says=r"batch_size=0: give a whole number from 1"),
    case("store_contexts", ["new"], progress="loud", says=r"progress='loud': give True, False or None"),
    case("get_context", "nobody", says=r"no context 'nobody': al.contexts_df\(\)", error=al.ContextNotFound),
    case("get_context", 5, says=r"context_id=5 is a int: give a str"),
    case("update_context", "nobody", topic="a", says=r"no context 'nobody'", error=al.ContextNotFound),
    case("update_context", "one", content=7, says=r"content=7 is a int: give a str"),
    case("update_context", "one", superseded_by="one", says=r"superseded_by='one' closes a circle"),
    case("delete_context", "nobody", says=r"no context 'nobody'", error=al.ContextNotFound),
    case("pin_context", "", says=r"context_id='' is empty: give some text"),
    case("unpin_context", None, says=r"context_id=None is a NoneType"),
    case("alias_context", "nobody", alias="a", says=r"no context 'nobody'", error=al.ContextNotFound),
    case("alias_context", "one", alias="a\nb", says=r"alias='a\\nb' has the control character '\\n': remove it"),
    case("list_contexts", limit=0, says=r"limit=0: give a whole number from 1"),
    case("list_contexts", since="whenever", says=r"since='whenever': give a time"),
    case("contexts_df", pinned="both", says=r"pinned='both': give True or False"),
    case("contexts_df", min_priority="low", says=r"min_priority='low': give a whole number"),
    case("contexts_df", metadata={"a": {"b": 1}}, says=r"metadata\['a'\]=.*compare with a single value"),
    case("cleanup", older_than=-1, says=r"older_than=-1: give a timedelta or a text"),
    case("cleanup", dry_run="no", says=r"dry_run='no': give True or False"),
    case("embed_contexts", "no/such model", says=r"'no/such model' cannot be loaded", error=al.ModelUnavailable),
    case("embed_contexts", 7, says=r"model=7 is a int: give a str"),
    case("build_vector_index", progress=7, says=r"progress=7: give True, False or None"),
    # Search
    case("search", None, says=r"query=None is a NoneType: give a str"),
    case("search", "one", k=0, says=r"k=0: give a whole number from 1 to 10,000"),
    case("search", "one", k=10_001, says=r"k=10001: give a whole number from 1 to 10,000"),
    case("search", "one", k=True, says=r"k=True: give a whole number"),
    case("search", "one", method="fuzzy", says=r"method='fuzzy'.*known names: hybrid, semantic, text"),
    case("search", "one", fusion="sum", says=r"fusion='sum'"),
    case("search", "one", min_similarity="0.5", says=r"min_similarity='0.5': give a number"),
    case("search", "one", method="text", min_similarity=0.5, says=r"min_similarity=0.5 needs vectors: use"),
    case("search", "one", text_weight=2, says=r"text_weight=2"),
    case("search", "one", include_expired="yes", says=r"include_expired='yes': give True or False"),
    case("search_df", "one", topic=5, says=r"topic=5 is a int: give a str"),
    case("search_df", "one", until="7 moons", says=r"until='7 moons': give a time"),
    case("search_many", "one", says=r"'one' is a str: give"),
    case("search_many", ["one", 7], says=r"query=7 is a int: give"),
    case("searches_df", limit=-1, says=r"limit=-1: give a whole number from 1"),
    case("accesses_df", 7, says=r"context_id=7 is a int"),
    case("shown_df", by="colour", says=r"by='colour'|'colour'"),
    case("storage_df", by="colour", says=r"'colour'"),
    # The account
    case("record_usage", "", says=r"model='' is empty: give some text"),
    case("record_usage", "m", input_tokens=-1, says=r"input_tokens=-1: give a whole number of at least 0"),
    case("record_usage", "m", input_tokens=1.5, says=r"input_tokens=1.5: give a whole number"),
    case("record_usage", "m", input_tokens=1, cache_read_tokens=2, says=r"=2 is more than input_tokens=1"),
    case("record_usage", "m", latency_ms=float("inf"), says=r"latency_ms=inf: give a finite number of at least 0"),
    case("record_usage", "m", quality_score=1.5, says=r"quality_score=1.5: give a number from 0 to 1"),
    case("record_usage", "m", success="maybe", says=r"success='maybe': give True or False"),
    case("record_usage", "m", at="noon", says=r"at='noon': give a time"),
    case("record_usage", "m", source_id="7", says=r"source_id='7' has no source: say where"),
    case("record_usage", "m", decision_id="nobody", says=r"no decision 'nobody'", error=al.DecisionNotFound),
    case("record_usages", [{"input_tokens": 1}], says=r"row 0: model is missing: give the name"),
    case(
        "record_usages",
        [{"model": "m", "latency": 1}],
        says=r"row 0: unknown field 'latency'; did you mean 'latency_ms'",
    ),
    case("record_usages", pd.DataFrame({"model": ["m"], "input_tokens": [-5]}), says=r"row 0: input_tokens=-5.*: give"),
    case("record_usages", 7, says=r"7 is a int: give a DataFrame"),
    case("record_usages", [], batch_size="many", says=r"batch_size='many': give a whole number"),
    case("track_usage", 7, says=r"model=7 is a int: give a str"),
    case("track_usage", "m", usage="text", says=r"usage='text' is a str: give a function"),
    case("record_decision", None, says=r"decision_type"),
    case("record_decision", "route", propensity=0, says=r"propensity=0"),
    case("record_decision", "route", propensity=0.5, candidates={"a": "high"}, says=r"candidates"),
    case("record_decision", "route", candidates=["a"], says=r"candidates=\['a'\]"),
    case("record_decision", "route", context_ids=["nobody"], says=r"no context 'nobody'", error=al.ContextNotFound),
    case("record_decision", "route", context_ids=7, says=r"context_ids=7"),
    case("record_outcome", "nobody", success=True, says=r"no decision 'nobody'", error=al.DecisionNotFound),
    case("record_outcome", "nobody", says=r"the outcome of 'nobody' is empty: give quality_score .*success"),
    case("decision_contexts_df", "nobody", says=r"no decision 'nobody'", error=al.DecisionNotFound),
    case("use_prices", 7, says=r"7"),
    case("use_prices", "nowhere.yaml", says=r"nowhere.yaml"),
    case("use_prices", [{"model": "m"}], says=r"input_usd_per_mtok"),
    case("use_prices", [{"model": "m", "input_usd_per_mtok": -1, "output_usd_per_mtok": 1}], says=r"-1"),
    case("reprice_usage", dry_run=2, says=r"dry_run=2: give True or False"),
    case("ledger_df", limit="all", says=r"limit='all': give a whole number"),
    case("ledger_df", colour="red", says=r"unknown filter 'colour'"),
    case("usage_df", by="colour", says=r"by='colour' is no column of the ledger"),
    case("usage_df", by=7, says=r"by=7"),
    case("usage_df", freq="year", says=r"freq='year': give 'h', 'D', 'W' or 'M'"),
    case("cost_df", by=["model", "model"], says=r"names something twice"),
    case("latency_df", confidence=1.5, says=r"confidence is 1.5: give"),
    case("model_performance_df", since=NOON, until=NOON, says=r"since=.* is not before until="),
    case("compare_models", "a", 7, says=r"b=7 is a int: give a str"),
    case("compare_models", "a", "b", prompt="D", says=r"prompt='D': give a column or a metadata key"),
    case("decisions_df", limit=1.5, says=r"limit=1.5: give a whole number"),
    case("reconcile_df", by="colour", says=r"colour"),
    # Importers
    case("import_rows", 7, says=r"7"),
    case("import_rows", "nowhere.csv", says=r"at nowhere.csv: ", error=al.NotFound),
    case("import_rows", [{"a": 1}], mapping={"colour": "a"}, says=r"'colour'"),
    case("import_litellm", "nowhere.json", says=r"at nowhere.json: ", error=al.NotFound),
    case("import_otel", "nowhere.json", says=r"at nowhere.json: ", error=al.NotFound),
    case("import_claude_code", "nowhere", says=r"at nowhere: ", error=al.NotFound),
    case("import_codex", "nowhere", says=r"at nowhere: ", error=al.NotFound),
    case("import_llm_logs", "nowhere.db", says=r"at nowhere.db: ", error=al.NotFound),
    case("import_llm_embeddings", "nowhere.db", says=r"at nowhere.db: ", error=al.NotFound),
    case("import_billing", "nowhere.csv", provider="openai", says=r"at nowhere.csv: ", error=al.NotFound),
    case("import_billing", [], provider=7, says=r"provider=7"),
    # Tuning
    case("judge", None, grades={"one": 1}, says=r"query"),
    case("judge", "one", grades={"one": "good"}, says=r"'good'"),
    case("evaluate_search", 7, says=r"queries=7 without judgments: give both"),
    case("evaluate_search", methods="fuzzy", says=r"fuzzy|queries|judg"),
    case("tune_search", what="colour", says=r"what='colour'"),
    case("tune_threshold", max_false_hit_rate=2, says=r"max_false_hit_rate(=| is )2"),
    case("drift_df", "whenever", says=r"since='whenever': give a time"),
    case("drift_df", measures=["colour"], says=r"'colour'.*known names"),
    case("apply", 7, says=r"7 is a int: give a Recommendation"),
    case("revert", "colour", says=r"colour", error=al.LabError),
    case("setting", 7, says=r"no setting 7 was applied", error=al.NotFound),
    case("route", None, says=r"prompt=None"),
    case("fit_router", models=["a", "z"], says=r"the model '(a|z)'"),
    case("routing_report", says=r"the only model is none: record graded answers of two"),
    case("replay", "a", confidence=2, says=r"confidence is 2: give a value"),
    case("acting_as", "", says=r"agent='' is empty"),
    # Files and labs
    case("open", 7, says=r"path=7 is a int: give the path of a file"),
    case("open", b"lab.db", says=r"path=b'lab.db' is a bytes: give the path"),
    case("open", "", says=r"path='': give the path of a file"),
    case("open", "a\0b.db", says=r"'a\\x00b.db': give the path of a file"),
    case("open", "file:lab.db?mode=ro", says=r"'file:lab.db\?mode=ro': give the path"),
    case("open", "mysql://host/lab", says=r"mysql://host/lab"),
    case("open", "nowhere/at/all/lab.db", says=r"no folder .*nowhere/at/all: create it", error=al.StorageError),
    case("open", "/dev/null", says=r"/dev/null is a device, pipe or socket: give", error=al.NotALab),
    case("open", "x" * 300, says=r"too long", error=al.StorageError),
    case("open", preset="hopeful", says=r"preset='hopeful'|unknown preset 'hopeful'", error=al.ConfigurationError),
    case("open", ":memory:", colour="red", says=r"colour", error=al.ConfigurationError),
    case("open", ":memory:", chunk_tokens="many", says=r"chunk_tokens", error=al.ConfigurationError),
    case("open", ":memory:", deadline_seconds=-1, says=r"deadline_seconds", error=al.ConfigurationError),
    case("open", ":memory:", statement_seconds=0, says=r"statement_seconds", error=al.ConfigurationError),
    case("open", ":memory:", encoder="hash", says=r"encoder='hash'"),
    case("open", ":memory:", clock=7, says=r"clock=7"),
    case("open", config_path="nowhere.yaml", says=r"nowhere.yaml", error=al.ConfigurationError),
    case("use", 7, says=r"7 is a int: give what al.open\(\) returned"),
    case("run_migrations", ":memory:x/y.db", says=r"no folder", error=al.StorageError),
    case("run_migrations", "new.db", to=99, says=r"no version 99: give 0 to"),
    case("run_migrations", 7, says=r"path=7 is a int"),
    case("get_migration_status", "nowhere.db", says=r"no lab at nowhere.db: create one", error=al.LabNotFound),
    case("get_migration_status", None, says=r"path=None is a NoneType"),
    case("backup", "nowhere/copy.db", says=r"no folder .*nowhere: create", error=al.StorageError),
    case("backup", 7, says=r"path=7 is a int"),
    case("backup", "copy.db", keep=0, says=r"keep=0: give a whole number from 1"),
    case("check_file", "nowhere.db", says=r"nowhere.db", error=al.LabError),
    case("repair", "nowhere.db", to="new.db", says=r"no lab at nowhere.db to repair: give", error=al.LabNotFound),
    case("repair", 7, to="new.db", says=r"path=7 is a int: give the path"),
    case("repair", "/dev/null", to=None, says=r"to=None is a NoneType: give the path"),
    case("export", 7, says=r"path=7 is a int: give the path"),
    case("export", "lab.jsonl", vectors="some", says=r"vectors='some': give True or False"),
    case("export", "nowhere/lab.jsonl", says=r"no folder .*nowhere: create it", error=al.StorageError),
    case("import_export", "nowhere.jsonl", says=r"no export at nowhere.jsonl: al.export", error=al.LabNotFound),
    case("import_export", "/dev/null", says=r"no export at /dev/null: al.export", error=al.LabNotFound),
    case("copy_lab", "nowhere.db", "copy.db", says=r"no lab at nowhere.db", error=al.LabNotFound),
    case("copy_lab", 7, "copy.db", says=r"db_path=7: ", error=al.ConfigurationError),
    case("compare_labs", "nowhere.db", "copy.db", says=r"no lab at nowhere.db", error=al.LabNotFound),
    case("check", progress="loud", says=r"progress='loud': give True, False or None"),
    case("setup_database", "/dev/null/lab.db", says=r"/dev/null", error=al.StorageError),
    case("setup_database_from_config", config_path="nowhere.yaml", says=r"nowhere.yaml"),
    case("run_database_tests", only="colour", says=r"no group of checks 'colour'"),
    case("run_database_tests", folder="nowhere", only="errors", says=r"nowhere: ", error=al.StorageError),
    case("run_database_tests", only=7, says=r"only=7 is a int: give a name"),
    case("benchmark", "huge", says=r"size='huge'"),
    case("benchmark", "quick", parts="colour", says=r"'colour'"),
    case("benchmark", "quick", seed=-1, says=r"seed=-1: give a whole number"),
    case("benchmark", "quick", parts="read", folder="nowhere", says=r"nowhere: ", error=al.StorageError),
    case("validate_config", 7, says=r"config_path=7"),
]
# Verbs that take nothing from their caller, or that check what he gives when they are entered.
WITHOUT_CASES = {
    "config_advice_df",
    "config_df",
    "connection",
    "current_lab",
    "health",
    "judgments_df",
    "settings_df",
    "stats",
    "transaction",
    "unpriced_df",
}


@pytest.fixture(scope="module")
def filled(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab that no case may change."""
    with (
        closing(Places(backend, tmp_path_factory.mktemp("bad"))) as place,
        al.open(place("lab.db"), embedding_model=MODEL, synchronous="OFF") as lab,
    ):
        lab.store_context("The first text.", context_id="one", topic="numbers", metadata={"n": 1})
        lab.store_context("The second text.", context_id="two")
        decision = lab.record_decision("route", chosen="a", candidates={"a": 0.7, "b": 0.3}, propensity=0.9)
        lab.record_usage("a", input_tokens=10, output_tokens=5, latency_ms=100, decision_id=decision)
        lab.search("first text")
        lab.searches_df()
        yield lab


def content(lab: Lab) -> list[Any]:
    """Everything that the lab's tables hold, the notes of reading it aside."""
    lab._access.flush()
    storage = lab._storage
    return [
        (name, list(storage.batches(name, by=shape.key, size=1_000)))
        for name, shape in sorted(storage.tables().items())
        if not name.startswith("access_")
    ]


def call(lab: Lab, verb: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Call a verb as a user does, and use what it returns as far as it only works when it is used."""
    target = getattr(lab, verb, None) or getattr(al, verb)
    result = target(*arguments, **options)
    if verb in ("acting_as", "transaction", "connection", "track_usage"):
        with result:
            pass
    if isinstance(result, Lab):
        result.close()


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: f"{bad.verb}-{bad.says[:40]}")
def test_a_bad_input_is_refused_by_value_and_remedy_and_changes_nothing(filled: Lab, tmp_path: Path, bad: Case) -> None:
    before = content(filled)
    with pytest.raises(bad.error) as caught:
        call(filled, bad.verb, bad.arguments, bad.options)
    message = str(caught.value)
    assert re.search(bad.says, message), message
    assert re.search(r": \S|; did you mean|; known names", message), f"no remedy in {message!r}"
    assert len(message) < 1_000
    assert content(filled) == before
    assert list(tmp_path.iterdir()) == []


def verbs() -> list[str]:
    return sorted(name for name in al.__all__ if inspect.isfunction(getattr(al, name)))


def test_every_verb_has_a_case() -> None:
    covered = {bad.verb for bad in CASES}
    assert set(verbs()) - covered - WITHOUT_CASES == set()
    assert covered | WITHOUT_CASES <= set(verbs())
    assert len(CASES) >= 60
