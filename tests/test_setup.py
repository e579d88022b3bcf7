"""Looking at a configuration before anything is opened, and making a file ready."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

import autom8_lab as al

BOTH_BACKENDS = True


def test_a_sound_configuration_is_valid_and_nothing_is_created(tmp_path: Path) -> None:
    report = al.validate_config()
    assert report == {"valid": True, "problems": [], "advice": [], "db_path": "autom8.db"}
    assert list(tmp_path.iterdir()) == []


def test_problems_are_returned_not_raised(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("database: {cash_size: 5, metric: 5}", encoding="utf-8")
    report = al.validate_config(path)
    assert report["valid"] is False
    assert [problem.removeprefix(f"{path}: ").split(":")[0] for problem in report["problems"]] == [
        "unknown setting 'cash_size'; did you mean 'cache_size'?",
        "metric=5",
    ]
    assert al.validate_config(tmp_path / "none.yaml")["problems"] == [
        f"no configuration file at {tmp_path / 'none.yaml'}: give the path of a YAML file"
    ]


def test_a_value_that_loses_data_is_a_problem_too() -> None:
    report = al.validate_config(synchronous="OFF")
    assert report["problems"] == [
        "synchronous=OFF: use NORMAL or FULL for a file that matters "
        "(with OFF a power cut can damage the whole file, not only lose the last writes)"
    ]


def test_a_file_that_cannot_serve_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, and long enough to see it", encoding="utf-8")
    assert "is not an SQLite file" in al.validate_config(db_path=str(tmp_path / "text.db"))["problems"][0]
    assert "is a folder" in al.validate_config(db_path=str(tmp_path))["problems"][0]
    assert "create the folder" in al.validate_config(db_path="no/lab.db")["problems"][0]
    assert "prices.yaml cannot be read" in al.validate_config(prices_path="prices.yaml")["problems"][0]


def test_a_file_that_is_there_counts_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with al.open(path, embedding_model="hash-32") as lab:
        lab.store_context("A text.")
    before = path.read_bytes()
    report = al.validate_config(db_path=str(path), embedding_model="hash-64")
    assert report["valid"] is True
    assert "come from 'hash-32'" in report["advice"][0]
    assert path.read_bytes() == before


def test_a_file_that_is_still_to_be_migrated_is_no_problem(tmp_path: Path) -> None:
    al.run_migrations(tmp_path / "lab.db", to=3)
    assert al.validate_config(db_path=str(tmp_path / "lab.db"))["problems"] == []
    assert al.get_migration_status(tmp_path / "lab.db")["applied_count"] == 3


@pytest.mark.parametrize("preset", ["development", "testing", "production"])
def test_every_preset_is_valid(preset: str) -> None:
    assert al.validate_config(preset=preset)["valid"] is True


# Setting up


def stored_in(path: str) -> list[tuple[str, bytes]]:
    with al.open(path, embedding_model="hash-64", access_log=False) as lab:
        columns = lab._storage.columns("context_registry", ["id", "updated_at"], order_by=["id"])
    return [(str(name), at.tobytes()) for name, at in zip(columns["id"], columns["updated_at"], strict=True)]  # type: ignore[arg-type, union-attr]


def test_setting_up_makes_folder_file_schema_and_contents(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "lab.db"
    contents = [{"content": "Refunds need an approval.", "context_id": "refunds", "topic": "rules"}, "A plain text."]
    report = al.setup_database(path, contents=contents, embedding_model="hash-64")
    assert (report["ready"], report["problems"], report["created"]) == (True, [], True)
    assert (report["contexts_stored"], report["contexts"]) == (2, 2)
    assert report["migrations_applied"] == int(report["migrations"].split("/")[1]) > 5
    assert (report["embedding_model"], report["dimensions"], report["without_vectors"]) == ("hash-64@1", 64, 0)
    assert (report["journal_mode"], report["path"]) == ("wal", str(path))
    with al.open(path, embedding_model="hash-64") as lab:
        assert lab.search("refunds", topic="rules")[0].context.id == "refunds"


def test_setting_up_again_changes_nothing(place: Callable[[str], str]) -> None:
    path = place("lab.db")
    contents = [{"content": "Refunds need an approval.", "context_id": "refunds"}, "A plain text."]
    al.setup_database(path, contents=contents, embedding_model="hash-64")
    before = al.get_migration_status(path), stored_in(path)
    report = al.setup_database(path, contents=contents, embedding_model="hash-64")
    assert (report["ready"], report["created"], report["migrations_applied"]) == (True, False, 0)
    assert report["embedding_backend"] == "hash"
    assert (report["contexts_stored"], report["contexts"]) == (0, 2)
    assert (al.get_migration_status(path), stored_in(path)) == before


def test_setting_up_brings_an_older_file_up_to_date_with_what_it_holds(place: Callable[[str], str]) -> None:
    path = place("lab.db")
    with al.open(path, embedding_model="hash-64") as lab:
        lab.store_context("Kept.", context_id="kept")
    al.run_migrations(path, to=4)
    report = al.setup_database(path, embedding_model="hash-64")
    assert report["created"] is False
    assert report["migrations_applied"] == int(report["migrations"].split("/")[1]) - 4
    assert report["contexts"] == 1


def test_an_empty_file_counts_as_new(tmp_path: Path) -> None:
    (tmp_path / "lab.db").touch()
    assert al.setup_database(tmp_path / "lab.db", embedding_model="hash-64")["created"] is True


def test_a_model_that_cannot_be_loaded_is_a_problem_and_the_file_serves_by_text(place: Callable[[str], str]) -> None:
    with pytest.warns(al.PendingEmbeddingWarning):
        report = al.setup_database(place("lab.db"), embedding_model="no/such-model", contents=["A plain text."])
    assert report["ready"] is False
    assert len(report["problems"]) == 1
    assert report["problems"][0].startswith("no vectors, text search alone: embedding model 'no/such-model' cannot")
    assert (report["embedding_model"], report["contexts"]) == (None, 1)
    with al.open(place("lab.db")) as lab:
        assert len(lab.search("plain", method="text")) == 1


def test_a_folder_that_is_no_model_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    report = al.setup_database(tmp_path / "lab.db", embedding_model=str(tmp_path / "model"))
    assert "cannot be loaded" in report["problems"][0]


def test_risky_settings_are_problems_of_the_report(tmp_path: Path) -> None:
    report = al.setup_database(tmp_path / "lab.db", embedding_model="hash-64", synchronous="OFF")
    assert report["ready"] is False
    assert report["problems"][0].startswith("synchronous=OFF: use NORMAL or FULL")


def test_setting_up_where_no_lab_can_be_raises(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, and long enough to see it", encoding="utf-8")
    with pytest.raises(al.NotALab):
        al.setup_database(tmp_path / "file", embedding_model="hash-64")
    with pytest.raises(al.StorageError, match="cannot be made"):
        al.setup_database(tmp_path / "file" / "below" / "lab.db", embedding_model="hash-64")
    with pytest.raises(al.InvalidValue, match=r"row 0: content='' is empty"):
        al.setup_database(tmp_path / "lab.db", embedding_model="hash-64", contents=[""])
    with pytest.raises(al.ConfigurationError, match="cash_size"):
        al.setup_database(tmp_path / "lab.db", cash_size=5)


def test_a_configuration_object_is_enough(place: Callable[[str], str]) -> None:
    config = al.LabConfig.load(db_path=place("lab.db"), embedding_model="hash-64", cache_size=20_000)
    assert al.setup_database(config=config)["path"] == place("lab.db")
    with pytest.raises(al.InvalidValue, match="config and a path or settings are both given"):
        al.setup_database("other.db", config=config)
    with pytest.raises(al.InvalidValue, match="give one of the two"):
        al.setup_database(config=config, cache_size=5)


def test_setting_up_from_an_environment_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert al.setup_database_from_config("testing")["path"] == ":memory:"
    path = tmp_path / "database.yaml"
    path.write_text("database: {db_path: ./data/lab.db, embedding_model: hash-32}", encoding="utf-8")
    monkeypatch.chdir(tmp_path.parent)
    report = al.setup_database_from_config("production", config_path=path, contents=["A text."])
    assert (report["path"], report["dimensions"], report["contexts"]) == (str(tmp_path / "data" / "lab.db"), 32, 1)
    settings = {"database": {"db_path": str(tmp_path / "other.db"), "embedding_model": "hash-16"}}
    assert al.setup_database_from_config(settings=settings)["dimensions"] == 16
    with pytest.raises(al.ConfigurationError, match="unknown preset 'productoin'; did you mean 'production'"):
        al.setup_database_from_config("productoin")


def test_setting_up_leaves_the_current_lab_alone(lab: al.Lab, place: Callable[[str], str]) -> None:
    al.setup_database(place("other.db"), embedding_model="hash-64")
    assert al.current_lab() is lab


def test_the_same_functions_can_be_awaited(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "lab.db"
        assert (await al.aio.setup_database(path, embedding_model="hash-64"))["ready"] is True
        assert (await al.aio.setup_database_from_config("testing"))["ready"] is True
        assert (await al.aio.run_migrations(path))["pending"] == []
        assert (await al.aio.get_migration_status(path))["pending"] == []
        assert (await al.aio.validate_config())["valid"] is True
        assert (await al.aio.check_file(path)).empty
        assert (await al.aio.repair(path, to=tmp_path / "copy.db"))["lost"] == 0

    asyncio.run(main())
    for name in ("check_file", "repair", "setup_database", "run_migrations", "validate_config"):
        assert inspect.signature(getattr(al.aio, name)) == inspect.signature(getattr(al, name))


def test_a_server_is_asked_for_no_folder_and_no_cache(place: Callable[[str], str], backend: str) -> None:
    report = al.validate_config(db_path=place("lab.db"), synchronous="OFF", cache_size=10**9)
    # What is dangerous to a file means nothing to a server.
    assert {problem.partition("=")[0] for problem in report["problems"]} == (
        {"synchronous", "cache_size"} if backend == "sqlite" else set()
    )
    report = al.setup_database(place("lab.db"), embedding_model="hash-64", synchronous="OFF", contents=["A text."])
    assert (report["ready"], report["contexts"]) == (backend == "postgres", 1)
