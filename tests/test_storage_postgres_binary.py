"""What goes to the server in its own form arrives as what it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from backends import BACKENDS, server

if "postgres" not in BACKENDS:
    pytest.skip("PostgreSQL is not asked for", allow_module_level=True)

import psycopg

from autom8_lab.storage.postgres_binary import (
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
