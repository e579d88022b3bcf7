"""The self-test passes here, and fails wherever a part is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sqlite_utils import Database

import autom8_lab as al
from autom8_lab.cli import main
from autom8_lab.diagnostics.loads import LEAST, _rate
from autom8_lab.diagnostics.report import DatabaseTestReport
from autom8_lab.diagnostics.running import CHECKS  # by then every module has added its checks
from autom8_lab.diagnostics.workbench import GROUPS, CheckFailed, Workbench, expect
from autom8_lab.embedding import HashEncoder
from autom8_lab.lab import Lab
from autom8_lab.storage import migrations


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseTestReport]:
    """A whole self-test, with the hash encoder in the model's place, and a copy of a lab."""
    path = tmp_path_factory.mktemp("user") / "lab.db"
    with al.open(path, embedding_model="hash-32") as lab:
        lab.store_context("The user's own text.", context_id="own")
    before = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOM8_EMBEDDING_MODEL", "hash-32")
        yield al.run_database_tests(path)
    assert path.read_bytes() == before, "the user's lab is only read"


def outcome(**options: Any) -> DatabaseTestReport:
    return al.run_database_tests(**options)


def failed(report: DatabaseTestReport) -> set[str]:
    checks = report.checks_df()
    return set(checks[checks["outcome"] == "failed"]["check"])


# A sound installation


def test_everything_works_here(whole: DatabaseTestReport) -> None:
    assert whole["failures"] == []
    assert whole.passed
    summary = whole["test_summary"]
    assert (summary["total"], summary["passed"], summary["failed"]) == (len(CHECKS) + 1, len(CHECKS) + 1, 0)
    assert f"{summary['success_rate']:.1f}%" == "100.0%"


def test_every_check_is_a_row_with_its_time(whole: DatabaseTestReport) -> None:
    frame = whole.checks_df()
    assert frame.columns.tolist() == ["group", "check", "outcome", "seconds", "problem"]
    assert frame["check"].tolist() == ["the lab is sound and can be copied", *(item.name for item in CHECKS)]
    assert (frame["seconds"] > 0).all()
    assert frame["seconds"].sum() == pytest.approx(whole["test_summary"]["seconds"], abs=0.01)
    assert list(dict.fromkeys(frame["group"]))[1:] == list(GROUPS)


def test_the_rates_stand_beside_what_is_typical(whole: DatabaseTestReport) -> None:
    frame = whole.performance_df()
    assert set(frame["operation"]) == set(LEAST) == set(whole["performance"])
    assert (frame["per_second"] >= frame["at_least"]).all()
    assert frame.set_index("operation").loc["store", "typical"] == "500 to 1,000"


def test_the_report_reads_well(whole: DatabaseTestReport) -> None:
    total = whole["test_summary"]["total"]
    assert str(whole).startswith(f"{total} of {total} checks passed (100.0 %) in ")
    assert f"{total} of {total} checks passed" in whole._repr_html_()
    assert whole["environment"]["sqlite_utils"][0].isdigit()


def test_groups_can_be_chosen() -> None:
    report = outcome(only="text search")
    assert set(report.checks_df()["group"]) == {"text search"}
    assert set(outcome(only=["errors", "ledger"]).checks_df()["group"]) == {"errors", "ledger"}
    with pytest.raises(al.InvalidValue, match="no group of checks 'vector'; did you mean 'vectors'"):
        outcome(only="vector")


def test_the_files_of_the_test_are_removed_and_the_current_lab_stays(tmp_path: Path, lab: al.Lab) -> None:
    (tmp_path / "disk").mkdir()
    assert outcome(only="contexts", folder=tmp_path / "disk").passed
    assert list((tmp_path / "disk").iterdir()) == []
    assert al.current_lab() is lab


def test_a_report_of_no_checks_has_not_passed() -> None:
    report = DatabaseTestReport([], [], {})
    assert not report.passed
    assert report["test_summary"]["success_rate"] == 0
    assert report.checks_df().empty


# A broken encoder, disk, extension, file, configuration


class Broken(HashEncoder):
    """An encoder that answers whatever it is told to."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        super().__init__(dimensions=16)
        self.name = self.model_id = "broken"
        self.make = make

    def encode_documents(self, texts: Sequence[str]) -> Any:
        return self.make(len(texts))

    def encode_query(self, text: str) -> Any:
        return self.make(1)[0]


def test_a_model_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOM8_EMBEDDING_MODEL", "hash-0")
    assert failed(outcome(only="model")) == {"the configured model tells related texts from others"}


@pytest.mark.parametrize(
    "make",
    [
        lambda count: np.full((count, 16), np.nan, dtype=np.float32),
        lambda count: np.zeros((count, 16), dtype=np.float32),
        lambda count: np.ones((count, 8), dtype=np.float32),
    ],
    ids=["not a number", "zero", "of another size"],
)
def test_an_encoder_whose_vectors_are_none_fails(make: Callable[[int], Any]) -> None:
    report = outcome(encoder=Broken(make), only=["model", "contexts", "text search"])
    assert report["test_summary"]["success_rate"] == 0
    assert all("InvalidVector" in text for text in report["failures"])


def test_an_encoder_that_gives_every_text_the_same_vector_fails() -> None:
    report = outcome(encoder=Broken(lambda count: np.ones((count, 16), dtype=np.float32)), only=["model", "vectors"])
    assert failed(report) == {
        "the configured model tells related texts from others",
        "a new text is found by meaning at once and a changed one anew",
    }


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file", Path("/proc") if os.path.isdir("/proc") else tmp_path / "x"):
        with pytest.raises(al.StorageError, match="no files can be made in"):
            outcome(folder=folder)


def test_a_missing_extension_fails_with_exit_code_1() -> None:
    program = (
        "import sys; sys.modules['sqlite_vec'] = None\n"
        "from autom8_lab.cli import main; main(['test', '--only', 'vectors', '--json'])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert report["test_summary"]["failed"] == 1
    assert "sqlite vec finds the nearest texts" in report["failures"][0]
    assert "sqlite-vec is not installed" in report["failures"][0]


def damaged(path: Path, damage: str) -> None:
    database = Database(path)
    database.execute(damage)
    database.conn.commit()
    database.close()


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TRIGGER context_registry_au",
        "DROP TRIGGER context_chunks_ad",
        "DROP INDEX idx_usage_ledger_at",
        "DROP TABLE context_aliases",
        "UPDATE context_registry SET content = 'Somebody else wrote this.'",
        "DELETE FROM embeddings",
    ],
)
def test_a_lab_with_a_broken_part_fails(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-16") as lab:
        lab.store_context("A text of the user's.")
    damaged(path, damage)
    report = outcome(path=path, only="health")
    assert failed(report) == {"the lab is sound and can be copied"}
    result = CliRunner().invoke(main, ["test", "--db", str(path), "--only", "health"])
    assert result.exit_code == 1
    assert "1 of 2 checks passed (50.0 %)" in result.output


def test_a_lab_that_is_not_there_fails(tmp_path: Path) -> None:
    report = outcome(path=tmp_path / "none.db", only="health")
    assert "LabNotFound" in report["failures"][0]


def test_a_wrong_configuration_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "autom8.yaml").write_text("database: {synchronous: 'OFF'}", encoding="utf-8")
    assert failed(outcome(only=["configuration", "health"])) == {"the configuration is valid on this machine"}
    monkeypatch.setenv("AUTOM8_CACHE_SIZE", "lots")
    report = outcome(only=["configuration", "health"])
    assert report["test_summary"]["success_rate"] == 0
    assert all("AUTOM8_CACHE_SIZE='lots'" in text for text in report["failures"])


def test_settings_of_the_user_do_not_fail_a_sound_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "READ_ONLY": "true",
        "SIMILARITY_THRESHOLD": "0.99",
        "EMBEDDING_DIMENSIONS": "384",
        "ACCESS_LOG": "false",
        "METRIC": "dot",
        "AGENT": "me",
        "CANDIDATES": "1",
        "VECTOR_ENGINE": "exact",
    }.items():
        monkeypatch.setenv(f"AUTOM8_{name}", value)
    groups = ["contexts", "text search", "vectors", "transparency", "health", "concurrency"]
    assert outcome(only=groups)["failures"] == []


# Every check fails where its part does not do its work


class Sabotaged(Workbench):
    """Opens labs in which one verb does something else."""

    verb: str
    broken: Callable[..., Any]

    def open(self, path: Path, **settings: Any) -> Lab:
        lab = super().open(path, **settings)
        lab.__class__ = type("SabotagedLab", (Lab,), {self.verb: self.broken})
        return lab


def nothing(self: Lab, *arguments: Any, **options: Any) -> Any:
    return None


def forgetful(verb: str, *fields: str) -> Callable[..., Any]:
    """The verb, deaf to some of its arguments."""

    def broken(self: Lab, *arguments: Any, **options: Any) -> Any:
        return getattr(Lab, verb)(self, *arguments, **{name: v for name, v in options.items() if name not in fields})

    return broken


def emptied(verb: str) -> Callable[..., Any]:
    """The verb with the first row of its frame or list missing."""
    return lambda self, *arguments, **options: getattr(Lab, verb)(self, *arguments, **options)[1:]


def bad_store(self: Lab, rows: Any, **options: Any) -> Any:
    return Lab.store_contexts(self, list(rows)[1:], **options)


def bad_health(self: Lab) -> Any:
    return al.Report({**Lab.health(self), "journal_mode": "delete"})


def bad_check(self: Lab, **options: Any) -> Any:
    import pandas as pd

    row = {"severity": "error", "table": "t", "key": "k", "finding": "f", "remedy": "r"}
    return pd.concat([Lab.check(self, **options), pd.DataFrame([row])])


def bad_transaction(self: Lab) -> Any:
    from contextlib import nullcontext

    return nullcontext(self)


def bad_backup(self: Lab, path: Any, **options: Any) -> Any:
    with al.open(path, embedding_model="hash-64") as other:
        other.store_context("Something else.", context_id="kept")
    return al.Report(verified=True)


def greedy(self: Lab, *arguments: Any, **options: Any) -> Any:
    """Cleanup that spares nothing."""
    for item in self.list_contexts(include_expired=True):
        self.unpin_context(item.id)
    return Lab.cleanup(self, *arguments, **options)


def slow(self: Lab, *arguments: Any, **options: Any) -> Any:
    import time

    time.sleep(0.04)
    return Lab.get_context(self, *arguments, **options)


SABOTAGE: list[tuple[str, str, Callable[..., Any]]] = [
    ("a context is stored read changed and deleted", "delete_context", nothing),
    ("a context is stored read changed and deleted", "store_context", forgetful("store_context", "metadata")),
    ("a context is stored read changed and deleted", "store_context", forgetful("store_context", "ttl")),
    ("a context is stored read changed and deleted", "update_context", forgetful("update_context", "priority")),
    ("a batch is stored and a text is kept once", "store_contexts", bad_store),
    ("pinned contexts outlive cleanup and expired ones do not", "cleanup", greedy),
    ("pinned contexts outlive cleanup and expired ones do not", "cleanup", forgetful("cleanup", "dry_run", "pinned")),
    ("a newer fact takes the place of an older one", "store_context", forgetful("store_context", "supersedes")),
    ("texts are found by their words and names", "search", emptied("search")),
    ("the index follows every change", "update_context", nothing),
    ("the index follows every change", "delete_context", nothing),
    ("the exact engine finds the nearest texts", "search_df", emptied("search_df")),
    ("sqlite vec finds the nearest texts", "delete_context", nothing),
    ("an hnsw index finds the nearest texts", "build_vector_index", nothing),
    ("a new text is found by meaning at once and a changed one anew", "update_context", nothing),
    ("hybrid search explains its answers", "search", lambda self, q, **o: Lab.search(self, q, method="text", topic=o["topic"])),
    ("it is known what was shown to whom", "get_context", lambda self, name: self.list_contexts()[0]),
    ("a call is recorded priced and read back", "use_prices", nothing),
    ("a call is recorded priced and read back", "record_usage", forgetful("record_usage", "output_tokens")),
    ("recording again changes nothing", "record_usages", lambda self, rows: Lab.record_usages(self, [{**r, "source_id": None, "source": None} for r in rows])),
    ("the frames agree with the rows", "usage_df", emptied("usage_df")),
    ("the frames agree with the rows", "latency_df", lambda self, **o: Lab.latency_df(self, model="gpt-4.1")),
    ("a decision is recorded with what it saw and how it went", "record_outcome", nothing),
    ("a decision is recorded with what it saw and how it went", "record_decision", forgetful("record_decision", "context_ids")),
    ("everything in the file is as the lab defines it", "check", bad_check),
    ("the file is healthy", "health", bad_health),
    ("a backup holds what the lab holds", "backup", bad_backup),
    ("a transaction lands whole or not at all", "transaction", bad_transaction),
    ("a process that dies in a transaction leaves nothing half", "list_contexts", emptied("list_contexts")),
    ("a process that dies in a transaction leaves nothing half", "check", bad_check),
    ("threads and another process lose nothing", "transaction", bad_transaction),
    ("wrong input is refused and changes nothing", "store_context", nothing),
    ("places that cannot be a lab are refused", "close", nothing),
    ("the lab is quick enough", "get_context", slow),
]  # fmt: skip


@pytest.mark.parametrize(("name", "verb", "broken"), SABOTAGE, ids=[f"{item[0]}, {item[1]}" for item in SABOTAGE])
def test_a_check_fails_where_its_part_does_not_do_its_work(
    name: str, verb: str, broken: Callable[..., Any], tmp_path: Path
) -> None:
    item = next(item for item in CHECKS if item.name == name)
    bench = Sabotaged(tmp_path)
    bench.verb, bench.broken = verb, broken
    with pytest.raises((CheckFailed, al.LabError, AttributeError, TypeError)):
        item.run(bench)
    Lab.close(bench._lab) if bench._lab else None


def test_a_migration_without_a_reverse_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(migrations.reverses, "m006_settings_log", lambda database: None)
    assert failed(outcome(only="migrations")) == {"the schema goes back and forth"}


def test_opening_a_file_of_others_fails(tmp_path: Path) -> None:
    class Careless(Workbench):
        def open(self, path: Path, **settings: Any) -> Lab:
            return super().open(self.folder / "another.db", **settings)

    check = next(item for item in CHECKS if item.name == "files of others and of the future are left alone")
    with pytest.raises(CheckFailed, match=r"opening foreign\.db"):
        check.run(Careless(tmp_path))


def test_a_coroutine_that_loses_something_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    store = al.aio.AsyncLab.store_context

    async def forgetful(self: al.aio.AsyncLab, content: str, **fields: Any) -> str:
        return fields["context_id"] if content == "Task 7." else await store(self, content, **fields)

    monkeypatch.setattr(al.aio.AsyncLab, "store_context", forgetful)
    report = outcome(only="concurrency")
    assert failed(report) == {"coroutines lose nothing"}
    assert "40 contexts and 10 calls were stored, 49 are there" in report["failures"][0]


def test_every_check_is_shown_to_fail() -> None:
    broken_elsewhere = {
        "the configured model tells related texts from others",
        "the configuration is valid on this machine",
        "the schema goes back and forth",
        "files of others and of the future are left alone",
        "coroutines lose nothing",
    }
    assert {item.name for item in CHECKS} == {item[0] for item in SABOTAGE} | broken_elsewhere


def test_a_rate_below_the_least_fails(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    with pytest.raises(CheckFailed, match=r"5\.0 store per second, at least 10 are expected"):
        _rate(bench, "store", 5, 1.0)
    assert bench.rates[0]["per_second"] == 5.0


def test_what_is_expected_is_checked_without_assert(tmp_path: Path) -> None:
    # Python leaves `assert` out under -O; a self-test must not pass because of that.
    program = "from autom8_lab.diagnostics.workbench import expect; expect(False, 'seen')"
    result = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True)
    assert "CheckFailed: seen" in result.stderr
    folder = Path(al.__file__).parent / "diagnostics"
    ours = ["accounts", "contexts", "files", "loads", "report", "running", "vectors", "workbench"]
    assert not [
        path
        for path in [folder / f"{name}.py" for name in ours]
        if "assert " in path.read_text(encoding="utf-8").replace("`assert`", "")
    ]
    with pytest.raises(CheckFailed):
        expect([], "nothing")


def test_the_command_prints_every_check_and_the_summary() -> None:
    result = CliRunner().invoke(main, ["test", "--only", "errors", "--only", "text search"])
    assert result.exit_code == 0
    assert "wrong input is refused and changes nothing" in result.output
    assert "4 of 4 checks passed (100.0 %)" in result.output
    result = CliRunner().invoke(main, ["test", "--only", "eror"])
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
