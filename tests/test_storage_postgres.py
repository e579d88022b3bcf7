"""What only a server can do to a lab: refuse it, go away and come back, be written to by many, tell a secret."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backends import BACKENDS, TEMPLATE, database, server
from postgres_server import PASSWORD, PostgresServer

import autom8_lab as al
from autom8_lab.addresses import Address
from autom8_lab.config import LabConfig
from autom8_lab.storage import Storage, open_storage

pytestmark = pytest.mark.skipif("postgres" not in BACKENDS, reason="PostgreSQL is not asked for")


@pytest.fixture
def own() -> Iterator[str]:
    """The name of a database of its own, an empty lab."""
    with database() as name:
        yield name


@pytest.fixture
def bare() -> Iterator[str]:
    """The name of an empty database, without pgvector."""
    with database(template="template0") as name:
        yield name


def opened(address: str) -> al.Lab:
    return al.open(address, embedding_model="hash-16", deadline_seconds=5)


# What is refused, and the remedy


def test_a_wrong_password_is_told_with_the_remedy(own: str) -> None:
    with pytest.raises(al.StorageError, match=r"password authentication failed.*PGPASSWORD or ~/\.pgpass"):
        opened(server().address(own, password="wrong word"))


def test_a_role_or_a_database_that_is_not_there_is_told_with_the_remedy(own: str) -> None:
    with pytest.raises(al.StorageError, match=r"nobody.*CREATE ROLE"):
        opened(server().address(own, user="nobody"))
    with pytest.raises(al.LabNotFound, match=r"nowhere.*CREATE DATABASE"):
        opened(server().address("nowhere"))


def test_a_server_that_is_not_there_is_told_with_the_remedy() -> None:
    with pytest.raises(al.StorageError, match="host and port"):
        opened("postgresql://agent:hidden@127.0.0.1:1/lab")


def test_a_role_without_rights_is_told_what_to_grant(own: str) -> None:
    server().execute("DROP ROLE IF EXISTS poor")
    server().execute("CREATE ROLE poor LOGIN")
    with pytest.raises(al.StorageError, match=r"permission denied.*GRANT"):
        opened(server().address(own, user="poor")).stats()
    server().execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO poor", database=own)
    with al.open(server().address(own, user="poor"), read_only=True, embedding_model="hash-16") as lab:
        assert lab.stats()["contexts"] == 0
        with pytest.raises(al.ReadOnlyLab):
            lab.record_usage("m")
    with opened(server().address(own, user="poor")) as lab, pytest.raises(al.StorageError, match=r"denied.*GRANT"):
        lab.record_usage("m")
    server().execute("DROP OWNED BY poor", database=own)
    server().execute("DROP ROLE poor")


def test_a_missing_extension_is_told_with_the_remedy(bare: str) -> None:
    server().execute("DROP ROLE IF EXISTS builder")
    server().execute(f"CREATE ROLE builder LOGIN; GRANT ALL ON DATABASE {bare} TO builder")
    server().execute("GRANT ALL ON SCHEMA public TO builder", database=bare)
    server().execute(f"ALTER DATABASE {bare} SET extension_control_path = '/nowhere'")
    with pytest.raises(al.StorageError, match=r"no pgvector: install it.*CREATE EXTENSION vector"):
        opened(server().address(bare))
    server().execute(f"ALTER DATABASE {bare} RESET extension_control_path")
    server().execute(f"REVOKE CREATE ON DATABASE {bare} FROM builder, PUBLIC")
    with pytest.raises(al.StorageError, match="administrator run CREATE EXTENSION vector"):
        opened(server().address(bare, user="builder"))
    server().execute(f"DROP OWNED BY builder; REVOKE ALL ON DATABASE {bare} FROM builder", database=bare)
    server().execute("DROP ROLE builder")


def test_an_old_extension_is_told_with_the_remedy(own: str) -> None:
    server().execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'", database=own)
    with pytest.raises(al.StorageError, match=r"pgvector 0\.7\.4.*0\.8.*ALTER EXTENSION vector UPDATE"):
        opened(server().address(own))


def test_a_database_of_another_program_is_refused_and_left_alone(bare: str) -> None:
    server().execute("CREATE TABLE theirs (id int)", database=bare)
    with pytest.raises(al.NotALab, match=r"theirs.*schema of its own"):
        opened(server().address(bare))
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert server().execute(tables, database=bare) == [(1,)]
    server().execute("CREATE SCHEMA lab_a", database=bare)
    with opened(f"{server().address(bare)}&options=-csearch_path%3Dlab_a") as lab:
        lab.store_context("In a schema of its own.", context_id="a")
        assert lab.search("schema")[0].context.id == "a"
    assert server().execute(tables, database=bare) == [(1,)]


def test_a_newer_schema_is_refused_and_left_alone(own: str) -> None:
    server().execute("INSERT INTO autom8_migrations (name) VALUES ('m999_later')", database=own)
    with pytest.raises(al.NewerSchema, match=r"m999_later.*pip install -U"):
        opened(server().address(own))


def test_the_schema_goes_back_and_forth_by_the_names_of_the_steps(own: str) -> None:
    address = server().address(own)
    with opened(address) as lab:
        lab.store_context("Stays.", context_id="a")
    assert al.run_migrations(address, to="m003_text_index")["applied_count"] == 3
    assert al.run_migrations(address, to=2)["pending"][0] == "m003_text_index"
    status = al.run_migrations(address)
    assert (status["pending"], al.get_migration_status(address)["applied_count"]) == ([], status["total_migrations"])
    with opened(address) as lab:
        assert [hit.context.id for hit in lab.search("stays")] == ["a"]
    assert al.run_migrations(address, to=0)["applied_count"] == 0


# Secrets


def test_a_password_is_nowhere_to_be_read(own: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = PASSWORD.replace(" ", "%20")
    address = server().address(own, password=PASSWORD)
    assert secret in address
    with al.open(address, embedding_model="hash-16") as lab:
        shown = [repr(lab), repr(lab.config), str(lab.config), str(lab.stats()), str(lab.health())]
        shown += [lab.config_df().to_string(), repr(lab._storage), repr(vars(lab._storage._pool))]  # type: ignore[attr-defined]
        with pytest.raises(al.StorageError) as refused, lab.connection() as connection:
            connection.execute("SELECT nonsense")
        shown.append("".join(traceback.format_exception(refused.value)))
    for odd in (address.replace(own, "nowhere"), address.replace("127.0.0.1", "no.such.host.invalid")):
        with pytest.raises(al.LabError) as failed:
            opened(odd)
        shown.append("".join(traceback.format_exception(failed.value)))
    with pytest.raises(al.ConfigurationError) as unknown:
        al.open(address, vector_engine="sqlite-vec")
    shown += ["".join(traceback.format_exception(unknown.value)), caplog.text]
    for text in shown:
        assert PASSWORD not in text
        assert secret not in text


@pytest.mark.parametrize(
    ("text", "shown", "password"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql://u@h:5432/d", "p"),
        ("postgresql://u:p%40ss@h/d", "postgresql://u@h/d", "p@ss"),
        ("postgresql://u:p@ss@h/d?sslmode=require", "postgresql://u@h/d?sslmode=require", "p@ss"),
        ("postgresql://u:p/s@h/d", "postgresql://u@h/d", "p/s"),
        ("postgresql://u:p?s@h/d", "postgresql://u@h/d", "p?s"),
        ("postgresql://h/d?user=u&password=p&sslmode=require", "postgresql://h/d?user=u&sslmode=require", "p"),
        ("postgresql://h/d", "postgresql://h/d", None),
        ("postgresql://u@/d?host=/tmp/x&port=5", "postgresql://u@/d?host=/tmp/x&port=5", None),
        ("postgresql://h:5432/d?user=a@b", "postgresql://h:5432/d?user=a%40b", None),
    ],
)
def test_an_address_is_shown_without_its_password(text: str, shown: str, password: str | None) -> None:
    address = Address.of(text)
    assert (str(address), address.secrets.get("password")) == (shown, password)
    config = LabConfig.load(db_path=text)
    assert config.db_path == shown
    assert LabConfig.load(db_path=config.db_path).db_path.secrets == address.secrets  # type: ignore[attr-defined]


# A server that goes away


@pytest.fixture(scope="module")
def restarted() -> Iterator[PostgresServer]:
    """A server that the tests stop and start."""
    own_server = PostgresServer(durable=True).start()
    own_server.execute("CREATE DATABASE lab")
    yield own_server
    own_server.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_lab_goes_on_when_its_server_was_away(restarted: PostgresServer, mode: str) -> None:
    with al.open(restarted.address("lab"), embedding_model="hash-16", deadline_seconds=20) as lab:
        lab.store_context(f"Before {mode}.", context_id=f"before {mode}")
        restarted.stop(mode)
        coming = threading.Timer(1.0, restarted.start)
        coming.start()
        assert lab.get_context(f"before {mode}").content == f"Before {mode}."
        assert lab.record_usage("m", operation=mode) > 0
        coming.join()
        with lab.transaction():
            lab.store_context(f"Within {mode}.", context_id=f"within {mode}")
            lab.record_usage("n", operation=mode)
            restarted.stop(mode)
            restarted.start()
            lab.pin_context(f"within {mode}")
        assert lab.get_context(f"within {mode}").pinned
        assert lab.usage_df(by=["model"], since="2026-01-01")["calls"].sum() >= 2
        counts = [len(lab.ledger_df(model=model, operation=mode)) for model in ("m", "n")]
        assert counts == [1, 1]
        stats = lab.stats()
        assert stats["connection_waits"] + stats["connection_retries"] > 0


def test_a_server_that_stays_away_is_a_clear_error_at_the_deadline(restarted: PostgresServer) -> None:
    with al.open(restarted.address("lab"), embedding_model="hash-16", deadline_seconds=2, access_log=False) as lab:
        restarted.stop()
        started = time.monotonic()
        try:
            with pytest.raises(al.StorageError, match="host and port, and whether the server runs"):
                lab.record_usage("m")
            assert 1.5 < time.monotonic() - started < 8
        finally:
            restarted.start()
        assert lab.record_usage("back") > 0


WRITER = """
import sys
import autom8_lab as al

address, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
lab = al.open(address, embedding_model="hash-16", deadline_seconds=60, access_log=False)
import time
until, number = time.monotonic() + seconds, 0
while time.monotonic() < until:
    lab.record_usage("m", source=name, source_id=str(number), input_tokens=1, output_tokens=1)
    print(number, flush=True)
    if number % 10 == 0:
        lab.store_context(f"text {number} of {name}", context_id=f"{name}-{number}")
        print(f"context {name}-{number}", flush=True)
    number += 1
lab.close()
"""


def test_no_acknowledged_write_is_lost_when_the_server_is_stopped_under_several_processes(
    restarted: PostgresServer, tmp_path: Path
) -> None:
    address, names = restarted.address("lab"), [f"w{number}" for number in range(4)]
    command = [sys.executable, "-c", WRITER, address]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    files = [tmp_path / name for name in names]
    writers = []
    for name, file in zip(names, files, strict=True):
        with file.open("wb") as out:
            arguments = [*command, name, "4"]
            writers.append(subprocess.Popen(arguments, stdout=out, stderr=subprocess.PIPE, env=environment))
    until = time.monotonic() + 60
    while time.monotonic() < until and not all(file.stat().st_size for file in files):
        time.sleep(0.1)  # until all are at work
    time.sleep(1)
    restarted.stop("immediate")
    restarted.start()
    errors = [writer.communicate(timeout=90)[1] for writer in writers]
    assert [error.decode() for error in errors] == [""] * len(names)
    with al.open(address, embedding_model="hash-16", access_log=False) as lab:
        ledger = lab.ledger_df()
        contexts = set(lab.contexts_df()["context_id"])
        for name, file in zip(names, files, strict=True):
            lines = file.read_text().splitlines()
            numbers = [int(line) for line in lines if line.isdigit()]
            assert len(numbers) > 5
            assert sorted(map(int, ledger.loc[ledger["source"] == name, "source_id"])) == numbers  # none twice
            assert {line.removeprefix("context ") for line in lines if not line.isdigit()} <= contexts


# Many at once


def test_writers_of_one_step_do_not_wait_for_a_transaction(own: str) -> None:
    with opened(server().address(own)) as one, opened(server().address(own)) as other:
        with one.transaction():
            one.store_context("Not yet there.", context_id="a")
            assert other.record_usage("m") > 0
            assert other.contexts_df().empty
            with pytest.raises(al.LabBusy), other._storage.transaction(waiting=False):
                pass
        assert other.contexts_df()["context_id"].tolist() == ["a"]


def test_threads_that_store_the_same_text_store_it_once(own: str) -> None:
    with opened(server().address(own)) as lab:
        threads = [threading.Thread(target=lab.store_context, args=("One text.",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(lab.contexts_df()) == 1


def test_what_one_process_writes_another_finds_by_words_and_by_vectors(own: str) -> None:
    with opened(server().address(own)) as one, opened(server().address(own)) as other:
        one.store_contexts([{"content": f"number {n} of many", "context_id": str(n)} for n in range(40)])
        assert len(other.search("number", k=50, method="text")) == 40
        assert len(other.search("number 7 of many", k=50, method="semantic")) == 40
        with one.transaction():  # an older transaction that ends after a younger one
            one._storage.insert("care_log", [{"at": one._clock(), "kind": "test", "details": {}}])
            other.record_usage("m")
            one.store_context("the latest number of all", context_id="late")
        one.update_context("7", content="another text altogether")
        one.delete_context("8")
        for method in ("text", "semantic"):
            found = [hit.context.id for hit in other.search("number", k=60, method=method)]  # type: ignore[arg-type]
            assert "late" in found
            assert "8" not in found
        assert "7" not in [hit.context.id for hit in other.search("number", k=60, method="text")]


# What is in the server


def test_a_row_goes_to_its_month_and_a_delete_frees_its_source(own: str) -> None:
    with opened(server().address(own)) as lab:
        for at in ("1969-07-20", "2026-02-28T23:59:59.999999Z", "2026-03-01T00:00:00Z"):
            lab.record_usage("m", at=at, source="log", source_id=at)
        tables = "SELECT tableoid::regclass::text FROM usage_ledger ORDER BY at"
        found = [row[0] for row in server().execute(tables, database=own)]
        assert found == ["usage_ledger_other", "usage_ledger_2026_02", "usage_ledger_2026_03"]
        assert lab.health()["months"] >= 6
        lab._storage.delete("usage_ledger", [])
        assert server().execute("SELECT count(*) FROM usage_sources", database=own) == [(0,)]


def test_the_hnsw_index_finds_what_the_exact_engine_finds_also_behind_a_filter(own: str) -> None:
    with opened(server().address(own)) as lab:
        rows = [{"content": f"alpha{n % 53} beta{n % 101} gamma{n}", "topic": f"t{n % 2}"} for n in range(400)]
        lab.store_contexts(rows, progress=False)
        facts = lab.build_vector_index(progress=False)
        assert facts["vectors"] == 400
        assert facts["recall_at_10"] > 0.9
    with al.open(server().address(own), embedding_model="hash-16", vector_engine="hnsw") as lab:
        found = [hit.context.id for hit in lab.search("alpha7 beta9", method="semantic", k=10, topic="t1")]
        assert (len(found), lab.health()["vector_engine"]) == (10, "hnsw")
        with al.open(server().address(own), embedding_model="hash-16", vector_engine="exact") as exact:
            wanted = [hit.context.id for hit in exact.search("alpha7 beta9", method="semantic", k=10, topic="t1")]
        assert len(set(found) & set(wanted)) >= 8


def test_check_finds_what_another_program_broke(own: str) -> None:
    with opened(server().address(own)) as lab:
        lab.store_context("As it was.", context_id="a")
        assert lab.check().empty
        server().execute("UPDATE context_registry SET content = 'changed'", database=own)
        found = lab.check()
        assert "content does not fit its hash" in found["finding"].tolist()
        assert "a" in found["key"].tolist()


def test_what_only_a_file_has_is_refused_with_what_to_do_instead(own: str, tmp_path: Path) -> None:
    with opened(server().address(own)) as lab:
        with pytest.raises(al.InvalidValue, match=r"pg_dump.*copy_lab"):
            lab.backup(tmp_path / "copy.db")
        assert not (tmp_path / "copy.db").exists()


def test_the_empty_lab_of_the_tests_has_everything(place: Callable[[str], str]) -> None:
    storage: Storage = open_storage(LabConfig.load(db_path=server().address(TEMPLATE), read_only=True))
    file = open_storage(LabConfig.load(db_path=place("lab.db")))
    try:
        assert storage.tables().keys() == file.tables().keys()
        for table, shape in file.tables().items():
            assert storage.tables()[table].columns == shape.columns, table
            assert storage.tables()[table].key == shape.key, table
    finally:
        storage.close()
        file.close()
