"""The command line, as a person runs it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import autom8_lab as al
from autom8_lab import mockdata
from autom8_lab.cli import ALL, COMMANDS, main
from autom8_lab.demo import demo_rows, run_demo

BOTH_BACKENDS = True

ENVIRONMENT = {"AUTOM8_EMBEDDING_MODEL": "hash-64"}


def run(*arguments: str, input: str | None = None, **environment: str) -> Result:
    return CliRunner().invoke(main, list(arguments), input=input, env={**ENVIRONMENT, **environment})


def answer(*arguments: str, **options: Any) -> Any:
    """What a command says as JSON."""
    result = run(*arguments, "--json", **options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autom8_lab", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )


def commands() -> dict[str, click.Command]:
    """Every command and subcommand by its words."""
    found: dict[str, click.Command] = {}
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": item for inner, item in command.commands.items()}
    return found


@pytest.fixture
def path(place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The lab that commands find by themselves."""
    path = place("autom8.db")
    monkeypatch.setenv("AUTOM8_DB_PATH", path)
    return path


@pytest.fixture
def ledger(path: str) -> str:
    """A lab with mock traffic."""
    with al.open(path, embedding_model="hash-64", synchronous="OFF") as lab:
        mockdata.fill(lab, days=3, calls_per_day=60, until="2026-06-01")
    return path


# Help


def test_help_names_every_command_in_sections_and_the_version_is_the_packages() -> None:
    text = run("--help").stdout
    assert all(f"\n{title}:\n" in text for title in COMMANDS)
    assert all(re.search(rf"^  {name} +\S", text, re.MULTILINE) for name in ALL)
    assert al.__version__ in run("--version").stdout


def test_help_loads_nothing_of_the_lab() -> None:
    code = "import sys, autom8_lab.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert {name for name in loaded if name.startswith("autom8_lab.")} == {"autom8_lab.cli", "autom8_lab.errors"}
    assert not {"pandas", "numpy", "pydantic", "sqlite_utils"} & set(loaded)


@pytest.mark.parametrize("name", list(commands()))
def test_every_command_has_help_with_an_example_that_can_be_read(name: str) -> None:
    command = commands()[name]
    text = run(*name.split(), "--help").stdout
    if name in ALL:
        assert (command.help or "").split("\n")[0] == ALL[name][1]
    example = re.search(r"Example: (autom8-lab .*)", command.help or "")
    assert example, f"{name} has no example"
    assert "Example: autom8-lab" in text
    words = shlex.split(example[1])[1:]
    assert words[: len(name.split())] == name.split()
    if not isinstance(command, click.Group):
        command.make_context(name, words[len(name.split()) :])
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, f"{name}: {parameter.name}"  # type: ignore[attr-defined]


def test_a_shell_completes_commands_and_options() -> None:
    def asked(**environment: str) -> str:
        program = [sys.executable, "-c", "from autom8_lab.cli import main; main(prog_name='autom8-lab')"]
        return subprocess.run(program, capture_output=True, text=True, env={**os.environ, **environment}).stdout

    assert "complete -o nosort -F" in asked(_AUTOM8_LAB_COMPLETE="bash_source")
    words = {"_AUTOM8_LAB_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    assert asked(**words, COMP_WORDS="autom8-lab se").split() == ["plain,search"]
    assert "plain,--topic" in asked(**{**words, "COMP_CWORD": "2"}, COMP_WORDS="autom8-lab search --t").split()


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch", "x"], "no command 'serch'; did you mean 'search'?"),
        (["--foo"], "No such option '--foo'"),
        (["search"], "Missing argument 'QUERY'"),
        (["search", "x", "-k", "many"], "'many' is not a valid integer"),
        (["search", "x", "-k", "0"], "k=0: give a whole number from 1"),
        (["search", "x", "--method", "magic"], "'magic' is not one of"),
        (["search", "x", "--since", "yesterday"], "since='yesterday': give a time"),
        (["search", "x", "--min-similarity", "nan"], "min_similarity=nan"),
        (["search", "x", "--metadata", "team"], "--metadata team: give KEY=VALUE"),
        (["search", "x", "--db", "none.db"], "no lab at none.db: `autom8-lab init --db none.db` makes one"),
        (["search", "x", "--config", "none.yaml"], "no configuration file at none.yaml"),
        (["search", "x", "--bd", "x"], "No such option '--bd'"),
        (["store"], "give one of TEXT, --file or --rows"),
        (["store", "x", "--rows", "y"], "give one of TEXT, --file or --rows"),
        (["store", "--rows", "y", "--id", "z"], "--id is for a single text"),
        (["store", "--rows", "none.jsonl"], "none.jsonl cannot be read (No such file or directory)"),
        (["store", "--rows", "wrong.jsonl"], "wrong.jsonl, value 1: not valid JSON"),
        (["store", "--rows", "list.json"], "list.json, value 1: int is no row"),
        (["store", "--file", "binary"], "binary is not UTF-8 text"),
        (["store", " "], "Error: content=' ' is empty"),
        (["store", "x", "--ttl", "soon"], "ttl='soon'"),
        (["usage", "--by", "modle"], "by='modle' is no column of the ledger; did you mean 'model'?"),
        (["usage", "--freq", "Q"], "'Q' is not one of"),
        (["usage", "--since", "soon"], "since='soon'"),
        (["import", "codx"], "no source 'codx'; did you mean 'codex'?"),
        (["import", "rows"], "rows needs a PATH"),
        (["import", "billing", "bill.csv"], "billing needs --provider"),
        (["import", "codex", "x", "--mapping", "a=b"], "codex has no use for --mapping"),
        (["import", "rows", "x", "--mapping", "a"], "--mapping a: give FIELD=COLUMN"),
        (["import", "rows", "none.csv"], "no file at none.csv"),
        (["migrate", "--to", "m999"], "no version 'm999'"),
        (["migrate", "--status", "--db", "none.db"], "no lab at none.db"),
        (["config", "shw"], "No such command 'shw'. Did you mean 'show'?"),
        (["config", "init", "wrong.jsonl"], "wrong.jsonl exists already"),
        (["config", "show", "--preset", "prod"], "'prod' is not one of"),
        (["cleanup", "--older-than", "long"], "older_than='long'"),
        (["decisions", "--limit", "0"], "limit=0"),
        (["check", "--db", "none.db"], "no lab at none.db"),
        (["backup"], "Missing argument 'PATH'"),
        (["backup", "backups/", "--keep", "0"], "keep=0"),
        (["repair", "autom8.db"], "autom8.db"),
        (["repair", "new.db", "--db", "none.db"], "no lab at none.db"),
        (["export"], "Missing argument 'PATH'"),
        (["export", "wrong.jsonl"], "wrong.jsonl is no export of a lab"),
        (["import", "export"], "export needs a PATH"),
        (["import", "export", "none.jsonl"], "no export at none.jsonl"),
        (["import", "export", "wrong.jsonl"], "wrong.jsonl"),
        (["test", "--only", "vector"], "no group of checks 'vector'; did you mean 'vectors'?"),
        (["bench", "--part", "raed"], "raed"),
        (["bench", "--size", "huge"], "'huge' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_exit_code_2_and_changes_nothing(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    with al.open("autom8.db", embedding_model="hash-64"):
        pass
    (tmp_path / "wrong.jsonl").write_text("{not json\n", encoding="utf-8")
    (tmp_path / "list.json").write_text("[1, 2]", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa text")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("variable", ["AUTOM8_CASH_SIZE", "AUTOM8_CACHE_SIZE"])
def test_a_wrong_variable_is_one_line(variable: str) -> None:
    result = run("health", **{variable: "lots"})
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert variable in result.stderr


BOMB = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("database:\n  - [\n", "is not valid YAML"),
        ("database: {cash_size: 5}", "unknown setting 'cash_size'; did you mean 'cache_size'?"),
        ("database: {cache_size: lots}", "cache_size='lots'"),
        ("database: [cache_size]", "must hold keys and values, not list"),
        ("database: {db_path: none/lab.db}", "none: create it first"),
        ("database: {db_path: .}", "is a folder"),
        ("database: {cache_size: 5, cache_size: 6}", "'cache_size' is given twice"),
        (f"{BOMB}database: {{cache_size: *a11}}", "its aliases stand for more than 1,000,000 values"),
        ("database: !!python/object/apply:os.system ['touch harm']", "is not valid YAML"),
        ("database: {db_path: !!python/name:os.getcwd ''}", "is not valid YAML"),
        ("database: {cache_size: " + "[" * 5_000, "is not valid YAML"),
    ],
    ids=lambda value: value[:40],
)
def test_a_wrong_configuration_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "autom8.yaml").write_text(text, encoding="utf-8")
    started = time.perf_counter()
    result = CliRunner().invoke(main, ["store", "x"])
    assert (result.exit_code, result.stderr.count("\n"), result.stdout) == (2, 1, ""), result.stderr
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert not (tmp_path / "harm").exists()
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["health", "--db", "other.db"], "is not an SQLite file: give another path; the file was not touched"),
        (["store", "x", "--db", "none/lab.db"], "/none: create it first"),
        (["store", "x", "--db", "folder"], "folder is a folder: give the path of a file in it"),
        (["init", "--db", "other.db/lab.db"], "cannot be made"),
        (["demo", "--path", "folder"], "folder is a folder"),
        (["backup", "none/copy.db"], "/none: create it first"),
        (["export", "none/lab.jsonl"], "/none: create it first"),
        (["repair", "none/lab.db"], "/none: create it first"),
        (["test", "--folder", "none"], "no files can be made in none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_path_where_nothing_can_be_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "other.db").write_text("this is no database, and long enough", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    run("store", "x")
    result = run(*arguments)
    assert (result.exit_code, result.stderr.count("\n"), result.stdout) == (2, 1, "")
    assert message in result.stderr


def test_what_the_lab_cannot_do_is_one_line_and_exit_code_1() -> None:
    run("store", "x", "--id", "taken")
    result = run("store", "y", "--id", "taken")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("Error: ")
    assert "taken" in result.stderr


def test_a_process_ends_without_a_traceback() -> None:
    for arguments in (["serch"], ["search", "x", "--db", "none.db"], ["health", "--config", "none.yaml"]):
        result = process(*arguments)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert result.stderr.startswith("Error: ")


def test_a_warning_is_one_line_and_the_answer_comes_all_the_same(path: str) -> None:
    run("store", "A text.")
    result = run("search", "text", AUTOM8_EMBEDDING_MODEL="hash-32")
    assert result.exit_code == 0
    assert re.fullmatch(rf"Warning: the vectors in .*{re.escape(path)} come from 'hash-64'.*\n", result.stderr)
    assert "A text." in result.stdout


# Set up


def test_init_makes_a_lab_once_and_says_whether_it_is_ready(
    tmp_path: Path, place: Callable[[str], str], backend: str
) -> None:
    path = place("new/lab.db")  # on the server it is there already, and empty
    (tmp_path / "first.csv").write_text("context_id,content,pinned,priority\na,A first text.,yes,7\n", encoding="utf-8")
    report = answer("init", "--db", path, "--contents", "first.csv")
    assert (report["ready"], report["created"], report["contexts_stored"]) == (True, backend == "sqlite", 1)
    report = answer("init", "--db", path, "--contents", "first.csv")
    assert (report["ready"], report["created"], report["contexts_stored"]) == (True, False, 0)
    with al.open(path, embedding_model="hash-64") as lab:
        assert (lab.get_context("a").pinned, lab.get_context("a").priority) == (True, 7)
    result = run("init", "--db", "other.db", AUTOM8_SYNCHRONOUS="OFF")
    assert result.exit_code == 1
    assert re.search(r"^problems +synchronous=OFF: use NORMAL or FULL", result.stdout, re.MULTILINE)


def test_migrate_goes_to_a_version_and_shows_it(place: Callable[[str], str]) -> None:
    lab = place("lab.db")
    newest = answer("migrate", "--db", lab)["total_migrations"]
    assert answer("migrate", "--db", lab, "--status")["applied_count"] == newest
    assert answer("migrate", "--db", lab, "--to", "3")["applied_count"] == 3
    assert answer("migrate", "--db", lab, "--to", "m005_access_log")["applied_count"] == 5
    assert len(answer("migrate", "--db", lab, "--status")["pending"]) == newest - 5
    assert answer("migrate", "--db", lab)["pending"] == []


def test_config_shows_begins_and_checks(tmp_path: Path) -> None:
    rows = {row["setting"]: row for row in answer("config", "show", "--preset", "production", "--db", "x.db")}
    assert rows["max_connections"]["origin"] == "preset production"
    assert rows["db_path"] == {**rows["db_path"], "value": "x.db", "origin": "argument"}
    assert rows["embedding_model"]["origin"] == "environment AUTOM8_EMBEDDING_MODEL"
    assert "take away the #" in run("config", "init").stdout
    assert answer("config", "check")["valid"] is True
    with (tmp_path / "autom8.yaml").open("a", encoding="utf-8") as file:
        file.write("\n  cash_size: 5\n")
    result = run("config", "check")
    assert result.exit_code == 1
    assert "unknown setting 'cash_size'; did you mean 'cache_size'?" in result.stdout


# Remember and find


def test_a_text_is_stored_with_what_is_known_about_it_and_found(path: str) -> None:
    options = "--topic rules --id a --summary S --source hand --priority 3 --pin --ttl 30d --metadata team=core --metadata n=5"
    assert answer("store", "Refunds need a second approval.", *options.split())[0]["outcome"] == "stored"
    with al.open(path, embedding_model="hash-64") as lab:
        context = lab.get_context("a")
        assert (context.topic, context.summary, context.source, context.priority) == ("rules", "S", "hand", 3)
        assert (context.pinned, context.metadata) == (True, {"team": "core", "n": 5})
        assert context.expires_at is not None
    run("store", "Refunds are quick.", "--id", "b", "--topic", "news")
    assert [row["context_id"] for row in answer("search", "refunds", "-k", "1", "--topic", "news")] == ["b"]
    assert [row["context_id"] for row in answer("search", "refunds", "--metadata", "team=core")] == ["a"]
    assert [row["context_id"] for row in answer("search", "refunds", "--pinned")] == ["a"]
    assert len(answer("search", "refunds", "--since", "1h", "--method", "text")) == 2
    assert answer("search", "refunds", "--until", "2020-01-01") == []
    assert run("search", "refunds", "--until", "2020-01-01").stdout == "no rows\n"


def test_an_id_that_is_taken_is_refused_updated_or_left(tmp_path: Path, path: str) -> None:
    run("store", "One.", "--id", "a")
    result = run("store", "Two.", "--id", "a")
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert answer("store", "Two.", "--id", "a", "--if-exists", "skip")[0]["outcome"] == "skipped"
    assert answer("store", "Two.", "--id", "a", "--if-exists", "update")[0]["outcome"] == "updated"


def test_files_and_standard_input_are_stored(tmp_path: Path, path: str) -> None:
    (tmp_path / "one.md").write_text("\ufeffThe first file.", encoding="utf-8")
    (tmp_path / "two.md").write_text("The second file.", encoding="utf-8")
    assert len(answer("store", "--file", "one.md", "--file", "two.md", "--topic", "files")) == 2
    run("store", "--file", "-", "--id", "piped", input="From a pipe.")
    with al.open(path, embedding_model="hash-64") as lab:
        contents = {item.content: item.source for item in lab.list_contexts()}
    assert contents == {"The first file.": "one.md", "The second file.": "two.md", "From a pipe.": None}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "rows.jsonl",
            '{"content": "One.", "context_id": "1", "priority": 2}\n\n{"content": "Two.", "metadata": {"a": 1}}\n',
        ),
        (
            "rows.json",
            '[{"content": "One.", "context_id": "1", "priority": 2}, {"content": "Two.", "metadata": {"a": 1}}]',
        ),
        ("rows.csv", 'content,context_id,priority,metadata\nOne.,1,2,\nTwo.,,,"{""a"": 1}"\n'),
    ],
)
def test_rows_are_stored_from_every_kind_of_file(tmp_path: Path, path: str, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [row["outcome"] for row in answer("store", "--rows", name, "--topic", "rows")] == ["stored", "stored"]
    with al.open(path, embedding_model="hash-64") as lab:
        assert lab.get_context("1").priority == 2
        assert [hit.context.metadata for hit in lab.search("two", k=1, topic="rows")] == [{"a": 1}]


def test_rows_come_through_a_pipe(path: str) -> None:
    assert len(answer("store", "--rows", "-", input='{"content": "One."}\n{"content": "Two."}\n')) == 2


def test_cleanup_removes_only_when_told_to(path: str) -> None:
    run("store", "Old.", "--id", "old", "--ttl", "1s")
    run("store", "Kept.", "--id", "kept")
    time.sleep(1.1)
    assert [row["context_id"] for row in answer("cleanup")] == ["old"]
    assert [row["context_id"] for row in answer("cleanup", "--delete")] == ["old"]
    assert answer("cleanup") == []


# Account


@pytest.mark.parametrize("name", ["usage", "cost", "latency", "models"])
def test_the_account_is_the_labs_own_frame(ledger: str, name: str) -> None:
    verb = {"models": "model_performance_df"}.get(name, f"{name}_df")
    with al.open(ledger, embedding_model="hash-64") as lab:
        expected = getattr(lab, verb)(by=["provider", "operation"], freq="D", since="2026-05-30", success=True)
    arguments = "--by provider --by operation --freq D --since 2026-05-30 --success".split()
    printed = answer(name, *arguments)
    assert len(expected) > 4
    assert [row["operation"] for row in printed] == expected["operation"].tolist()
    assert list(printed[0]) == expected.columns.tolist()
    text = run(name, *arguments, "--csv").stdout
    assert next(csv.reader(io.StringIO(text))) == expected.columns.tolist()
    assert len(text.splitlines()) == len(expected) + 1
    table = run(name, *arguments).stdout.splitlines()
    assert table[0].split()[:3] == ["period", "provider", "operation"]
    assert len(table) == len(expected) + 1


def test_calls_are_filtered_by_several_names_and_metadata(ledger: str) -> None:
    rows = answer("usage", "--model", "gpt-4.1", "--model", "gpt-4o-mini", "--source", "mock")
    assert [row["model"] for row in rows] == ["gpt-4.1", "gpt-4o-mini"]
    assert answer("usage", "--metadata", "team=nobody") == []
    assert sum(row["calls"] for row in answer("usage", "--failure")) == sum(
        row["failed_calls"] for row in answer("usage")
    )


def test_the_newest_decisions_are_shown(ledger: str) -> None:
    rows = answer("decisions", "--limit", "3", "--type", "route")
    assert len(rows) == 3
    assert rows == sorted(rows, key=lambda row: row["at"])
    assert rows[0]["candidates"][rows[0]["chosen"]] is not None


def test_logs_are_imported_with_a_report(tmp_path: Path, path: str, place: Callable[[str], str]) -> None:
    (tmp_path / "calls.csv").write_text(
        "Model,Prompt tokens,Completion tokens,At\ngpt-4o-mini,10,20,2026-05-01T10:00:00Z\ngpt-4o-mini,-1,2,2026-05-01T11:00:00Z\n",
        encoding="utf-8",
    )
    assert answer("import", "rows", "calls.csv", "--mapping", "guess", "--dry-run")["new"] == 1
    report = answer("import", "rows", "calls.csv", "--mapping", "guess")
    assert (report["new"], report["refused"]) == (1, 1)
    assert "input_tokens" in report["refused_rows"][0]["reason"]
    table = run("import", "rows", "calls.csv", "--mapping", "guess").stdout
    assert re.search(r"unchanged_files +1", table)
    table = run("import", "rows", "calls.csv", "--mapping", "guess", "--again").stdout
    assert re.search(r"already_there +1", table)
    mapping = ["model=Model", "at=At", "input_tokens=Completion tokens"]
    options = [word for pair in mapping for word in ("--mapping", pair)]
    assert answer("import", "rows", "calls.csv", *options, "--db", place("other.db"))["new"] == 2


# Look after the file


def test_health_tells_the_state_and_the_numbers(ledger: str, backend: str) -> None:
    report = answer("health")
    assert report["usage_rows"] == 180
    assert report.get("journal_mode") == ("wal" if backend == "sqlite" else None)
    names = [line.split()[0] for line in run("health").stdout.splitlines() if not line.startswith(" ")]
    assert names == list(report)
    assert len(next(csv.DictReader(io.StringIO(run("health", "--csv").stdout)))) == len(report)


def test_check_finds_nothing_in_a_sound_lab(ledger: str) -> None:
    assert answer("check") == []
    assert run("check").stdout == "nothing is wrong\n"


def replace_in(path: str, old: bytes, new: bytes) -> None:
    Path(path).write_bytes(Path(path).read_bytes().replace(old, new))


@pytest.mark.only_sqlite
def test_check_says_what_is_wrong(ledger: str) -> None:
    replace_in(ledger, b"gpt-4.1", b"gpt-4.9")
    result = run("check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["severity"] == "error"


@pytest.mark.only_sqlite
def test_health_of_a_damaged_file_is_exit_code_1(ledger: str) -> None:
    content = bytearray(Path(ledger).read_bytes())
    for page in range(20, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    Path(ledger).write_bytes(content)
    result = run("health")
    assert result.exit_code == 1, result.output
    assert "malformed" in result.output or "quick_check" in result.output


@pytest.mark.only_sqlite
def test_a_backup_is_made_and_rotated(ledger: str) -> None:
    assert answer("backup", "copy.db")["verified"] is True
    for _ in range(3):
        report = answer("backup", "backups/", "--keep", "2")
    assert len(list(Path("backups").iterdir())) == 2
    assert Path(report["path"]).parent == Path("backups")
    assert run("backup", "copy.db", "--keep", "2").exit_code == 2
    assert answer("check", "--db", "copy.db") == []


@pytest.mark.only_sqlite
def test_a_damaged_lab_is_repaired_into_a_new_one(ledger: str) -> None:
    assert answer("repair", "whole.db")["lost"] == 0
    replace_in(ledger, b"gpt-4.1", b"gpt-4.9")
    result = run("repair", "rescued.db", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["doubtful"] >= 1
    calls = next(row for row in report["tables"] if row["table"] == "usage_ledger")
    assert calls["saved"] > 0
    with al.open("rescued.db", embedding_model="hash-64") as lab:
        assert "error" not in set(lab.check()["severity"])
    result = run("repair", "rescued.db")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert run("repair", "other.db", "--db", "whole.db").stdout.count("\n") > 15


def test_a_lab_goes_out_as_json_lines_and_comes_back_into_an_empty_one(
    ledger: str, place: Callable[[str], str]
) -> None:
    whole = answer("export", "whole.jsonl.gz")
    assert answer("import", "export", "whole.jsonl.gz", "--db", place("copy.db"))["rows"] == whole["rows"]
    assert answer("export", "again.jsonl.gz", "--db", place("copy.db"))["sha256"] == whole["sha256"]
    assert answer("export", "bare.jsonl", "--no-vectors")["rows"] < whole["rows"]
    assert "usage_ledger" in run("import", "export", "bare.jsonl", "--db", place("bare.db")).stdout
    result = run("import", "export", "whole.jsonl.gz", "--db", place("copy.db"))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_file_that_cannot_be_opened_can_be_checked(tmp_path: Path) -> None:
    (tmp_path / "autom8.db").write_bytes(b"SQLite format 3\0" + b"\1" * 5_000)
    result = run("check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)


def test_the_benchmark_prints_its_figures() -> None:
    rows = answer("bench", "--part", "read", "--encoder", "hash")
    assert "get_context" in {row["what"] for row in rows}


# Terminal and pipe


def in_terminal(columns: int, *arguments: str, **environment: str) -> str:
    """Run a command in a pseudo-terminal of that width and return what it writes."""
    head, tail = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "autom8_lab", *arguments],
        stdin=tail,
        stdout=tail,
        stderr=tail,
        env={**os.environ, **ENVIRONMENT, "COLUMNS": str(columns), "TERM": "xterm", **environment},
        close_fds=True,
    )
    os.close(tail)
    written = b""
    try:
        while part := os.read(head, 65_536):
            written += part
    except OSError:
        pass  # Linux says so when the last writer has gone
    os.close(head)
    assert child.wait(60) == 0, written
    return written.decode()


def test_a_table_fits_the_terminal_and_its_head_is_bold(ledger: str) -> None:
    for columns in (40, 60):
        lines = in_terminal(columns, "decisions", "--limit", "5").replace("\r", "").splitlines()
        plain = [click.unstyle(line) for line in lines]
        assert max(len(line) for line in plain[:6]) <= columns
        assert (len(plain), "…" in plain[1]) == (7, True)
        assert plain[6].startswith("(no room for ")
        assert lines[0].startswith("\x1b[1m")
    assert "\x1b" not in in_terminal(100, "decisions", NO_COLOR="1")


def test_a_pipe_gets_whole_lines_without_colours(ledger: str) -> None:
    result = process("decisions", "--limit", "5")
    assert "\x1b" not in result.stdout
    assert "…" not in result.stdout
    assert all(len(line.split()[0]) == 24 for line in result.stdout.splitlines()[1:])


def test_a_pipe_that_is_closed_early_is_no_error(ledger: str) -> None:
    command = (
        f"{sys.executable} -m autom8_lab usage --by agent --by operation --freq h | head -1; exit ${{PIPESTATUS[0]}}"
    )
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, **ENVIRONMENT})
    assert result.stdout.startswith("period")
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_an_answer_that_cannot_be_written_is_one_line(ledger: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "autom8_lab", "usage"]
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}
        )
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, "Error: [Errno 28] No space left on device")
    assert "Traceback" not in result.stderr


def test_a_stored_text_does_not_steer_the_terminal() -> None:
    run("store", "red \x1b[31m alert \x07 and \x9b31m more", "--id", "a")
    shown = run("search", "alert").stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
    assert "\\u001b[31m" in run("search", "alert", "--json").stdout


# The demo


def test_the_demo_searches_the_language_reference_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The hash encoder instead of the model: make demo runs the real one, which takes a minute.
    monkeypatch.setenv("AUTOM8_EMBEDDING_MODEL", "hash")
    lines: list[str] = []
    path = str(tmp_path / "demo.db")
    run_demo(path, write=lambda text: lines.append(str(text)))
    printed = "\n".join(lines)
    assert printed.count("al.search_df(") >= 3
    assert "python-customization" in printed or "python-attribute-access" in printed
    assert re.search(r"embedding_model +hash-384@1", printed)
    lines.clear()
    run_demo(path, write=lambda text: lines.append(str(text)))
    assert "stored" not in "\n".join(lines[1:2]), "a second run finds everything there"


def test_the_demos_texts_are_those_of_pythons_own_help() -> None:
    rows = demo_rows()
    assert len(rows) > 60
    assert all(row["content"].strip() for row in rows)
