"""What goes to the server in its own form arrives as what it was."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from backends import BACKENDS, server

if "postgres" not in BACKENDS:
    pytest.skip("PostgreSQL is not asked for", allow_module_level=True)

import psycopg

from autom8_lab.storage.postgres_binary import (
    copy_rows,
    packed_integers,
    packed_texts,
    packed_vector,
    packed_vectors,
    unpacked_vectors,
    vector_bytes,
)


@pytest.fixture
def connection() -> Iterator[psycopg.Connection]:
    with psycopg.connect(server().address("empty_lab"), autocommit=True) as opened:
        yield opened


@pytest.mark.parametrize("texts", [[], ["a"], ["", "Zürich 東京", 'quote " back \\ {brace}', "NULL", "🙂" * 1_000]])
def test_texts_arrive_as_they_are(connection: psycopg.Connection, texts: list[str]) -> None:
    assert connection.execute("SELECT %s::text[]", [packed_texts(texts)]).fetchone() == (texts,)


@pytest.mark.parametrize("numbers", [[], [0], [-(2**63), -1, 7, 2**63 - 1]])
def test_numbers_arrive_as_they_are(connection: psycopg.Connection, numbers: list[int]) -> None:
    assert connection.execute("SELECT %s::bigint[]", [packed_integers(numbers)]).fetchone() == (numbers,)


def test_vectors_arrive_as_they_are_and_come_back(connection: psycopg.Connection) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    (number,) = connection.execute("SELECT 'vector'::regtype::oid::bigint").fetchone() or (0,)
    sql = "SELECT vector_send(v), v::text FROM unnest(%s::vector[]) v"
    for given in (vectors, [vectors[0], vectors[1, :3]]):  # also of different lengths
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(sql, [packed_vectors(given, type_number=number)]).fetchall()
        assert [vector_bytes(data) for data, _ in rows] == [vector.tobytes() for vector in given]
        assert [np.array(text[1:-1].split(","), dtype="f4").tolist() for _, text in rows] == [v.tolist() for v in given]
    one = connection.execute("SELECT %s::vector::text", [packed_vector(vectors[0])]).fetchone() or ("",)
    assert np.array(one[0][1:-1].split(","), dtype="f4").tolist() == vectors[0].tolist()
    with connection.cursor(binary=True) as cursor:
        data = cursor.execute(sql, [packed_vectors(vectors, type_number=number)]).fetchall()
    assert np.array_equal(unpacked_vectors(b"".join(cells for cells, _ in data), 5), vectors)
    assert vector_bytes(None) is None


@pytest.mark.parametrize("odd", [[], [{"number": np.int64(1)}], [{"number": "7", "document": "[1]"}]])
def test_columns_are_copied_in_as_they_are_with_a_cell_of_another_type_too(
    connection: psycopg.Connection, odd: list[dict[str, object]]
) -> None:
    kinds = {"name": "text", "number": "bigint", "share": "double precision", "flag": "boolean", "document": "jsonb"}
    kinds["at"] = "timestamp with time zone"
    given = {
        "name": ["", "Zürich 東京\t\\N \n\r", None],
        "number": [-(2**63), 2**63 - 1, None],
        "share": [0.1 + 0.2, float("inf"), None],
        "flag": [True, False, None],
        "document": ['{"a": 1.0, "b": "\\t"}', "{}", None],
        "at": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), None],
    }
    columns = [[*cells, *(row.get(name) for row in odd)] for name, cells in given.items()]
    definition = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    connection.execute(f"CREATE TEMPORARY TABLE taken (place serial, {definition})")  # type: ignore[call-overload]
    with connection.cursor() as cursor:
        copy_rows(cursor, f"taken ({', '.join(kinds)})", columns, list(kinds.values()))
    connection.execute("SET TimeZone = 'UTC'")
    found = connection.execute(
        "SELECT name, number, share, flag, document::text, extract(year FROM at)::integer FROM taken ORDER BY place"
    ).fetchall()
    assert found[0] == ("", -(2**63), 0.1 + 0.2, True, '{"a": 1.0, "b": "\\t"}', 1)
    assert found[1] == ("Zürich 東京\t\\N \n\r", 2**63 - 1, float("inf"), False, "{}", 9999)
    assert found[2] == (None,) * 6
    assert [row[1] for row in found[3:]] == [int(str(row["number"])[0]) for row in odd]


def test_what_does_not_fit_is_left_to_the_server_to_refuse(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TEMPORARY TABLE taken (number bigint)")
    for number in (2**63, 1.5, "one"):
        with pytest.raises(psycopg.DataError), connection.cursor() as cursor:
            copy_rows(cursor, "taken (number)", [[1, number]], ["bigint"])
