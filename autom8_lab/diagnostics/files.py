"""Checks: schema, migrations, health, configuration, backup."""

from __future__ import annotations

from ..errors import NewerSchema, NotALab
from ..lab import get_migration_status, run_migrations
from ..setup import complaints, validate_config
from .workbench import Workbench, check, expect, expect_error


@check("schema")
def everything_in_the_file_is_as_the_lab_defines_it(bench: Workbench) -> None:
    """Schema, checksums, references, text index and vectors, as `Lab.check` sees them."""
    findings = bench.lab.check(progress=False)
    errors = findings[findings["severity"] == "error"]
    texts = [f"{row['table']} {row['key'] or ''}: {row['finding']}" for row in errors.head(3).to_dict("records")]
    expect(errors.empty, f"{len(errors)} findings: {'; '.join(texts)}")


@check("migrations")
def the_schema_goes_back_and_forth(bench: Workbench) -> None:
    """Every migration has a reverse that works."""
    path = bench.folder / "migrations.db"
    total = run_migrations(path)["total_migrations"]
    for target in (0, total // 2, total):
        count = run_migrations(path, to=target)["applied_count"]
        expect(count == target, f"asked for {target} migrations, {count} are applied")
    expect(get_migration_status(path)["pending"] == [], "migrations are pending")
    with bench.open(path) as lab:
        lab.store_context("It works after all of that.")


@check("migrations")
def files_of_others_and_of_the_future_are_left_alone(bench: Workbench) -> None:
    """Refusals before anything is written."""
    from sqlite_utils import Database

    foreign, newer = bench.folder / "foreign.db", bench.folder / "newer.db"
    database = Database(foreign)
    database["notes"].insert({"text": "another program's"})  # type: ignore[union-attr]
    database.close()
    run_migrations(newer)
    database = Database(newer)
    row = {"migration_set": "autom8_lab", "name": "m999_of_the_future", "applied_at": "2099-01-01"}
    database["_sqlite_migrations"].insert(row)  # type: ignore[union-attr]
    database.close()
    for path, kind in ((foreign, NotALab), (newer, NewerSchema)):
        before = path.read_bytes()
        with expect_error(kind, f"opening {path.name}"):
            bench.open(path)
        expect(path.read_bytes() == before, f"{path.name} was changed")


@check("health")
def the_file_is_healthy(bench: Workbench) -> None:
    """Health status reporting."""
    health = bench.lab.health()
    problems = complaints(health)
    expect(not problems, "; ".join(problems))
    expect(health["journal_mode"] == "wal", f"the journal mode is {health['journal_mode']}: readers and writers block")
    expect(health["foreign_keys"] == "on", "foreign keys are off")


@check("configuration")
def the_configuration_is_valid_on_this_machine(bench: Workbench) -> None:
    """Configuration validation."""
    report = validate_config()
    expect(report["valid"], "; ".join(report["problems"]))


@check("backup")
def a_backup_holds_what_the_lab_holds(bench: Workbench) -> None:
    """Backup, and the copy opened again."""
    with bench.fresh("original") as lab:
        lab.store_context("Worth keeping.", context_id="kept")
        report = lab.backup(bench.folder / "backup.db", progress=False)
    expect(report["verified"], "the copy was not verified")
    with bench.open(bench.folder / "backup.db") as copy:
        expect(copy.get_context("kept").content == "Worth keeping.", "the copy holds another text")
