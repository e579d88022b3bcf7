"""Vectors, and lists of texts and numbers, in the server's own form: to write vectors in digits takes ten times as long.

pgvector's form is two 16-bit numbers, the dimensions and a zero, and then the big-endian float32s.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format

_SIZE = struct.Struct(">i")
BIGINT, TEXT = 20, 25  # their numbers among the types of every server
# Of which cells the driver makes the binary form; that takes it a sixth of the time of the texts, and the server half.
COPIED: dict[str, type] = {
    "text": str,
    "bigint": int,
    "double precision": float,
    "boolean": bool,
    "timestamp with time zone": datetime,
    "jsonb": str,
}


class Packed:
    """Bytes that are a value already; the statement says of which type (`%s::vector`)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> bytes | bytearray:
        return obj.data


psycopg.adapters.register_dumper(Packed, _PackedDumper)


def packed_vector(vector: NDArray[Any]) -> Packed:
    """Return a vector as a parameter."""
    return Packed(_vector(vector))


def _vector(vector: NDArray[Any]) -> bytes:
    return struct.pack(">hh", len(vector), 0) + vector.astype(">f4").tobytes()


def packed_vectors(vectors: Iterable[NDArray[Any]], *, type_number: int) -> Packed:
    """Return vectors as a parameter of the type `vector[]`; `type_number` is `'vector'::regtype::oid` of the database."""
    if not isinstance(vectors, np.ndarray):  # they may differ in their dimensions
        return _array([_vector(vector) for vector in vectors], type_number)
    dimensions = vectors.shape[1]
    data, cells = _same_sized(len(vectors), [("head", ">i2", 2), ("vector", ">f4", dimensions)], type_number)
    cells["head"], cells["vector"] = (dimensions, 0), vectors
    return Packed(data)


def packed_texts(texts: Iterable[str]) -> Packed:
    """Return texts as a parameter of the type `text[]`."""
    return _array([text.encode() for text in texts], TEXT)


def packed_integers(numbers: Iterable[int]) -> Packed:
    """Return numbers as a parameter of the type `bigint[]`."""
    given = list(numbers)
    data, cells = _same_sized(len(given), [("number", ">i8")], BIGINT)
    cells["number"] = given
    return Packed(data)


def _array(cells: Sequence[bytes], type_number: int) -> Packed:
    parts = [_head(len(cells), type_number)]
    for cell in cells:
        parts += (_SIZE.pack(len(cell)), cell)
    return Packed(b"".join(parts))


def _same_sized(count: int, fields: list[Any], type_number: int) -> tuple[bytearray, NDArray[Any]]:
    """Return an array whose cells are all of the same fields, and the cells in it, which are to be filled."""
    head, cell = _head(count, type_number), np.dtype([("size", ">i4"), *fields])
    data = bytearray(len(head) + count * cell.itemsize)
    data[: len(head)] = head
    cells = np.ndarray(count, dtype=cell, buffer=data, offset=len(head))
    cells["size"] = cell.itemsize - _SIZE.size
    return data, cells


def _head(cells: int, type_number: int) -> bytes:
    head = struct.pack(">iiI", 1 if cells else 0, 0, type_number)
    return head + struct.pack(">ii", cells, 1) if cells else head


def copy_rows(cursor: psycopg.Cursor[Any], into: str, columns: Sequence[Sequence[Any]], kinds: Sequence[str]) -> None:
    """Copy columns of encoded cells in, in binary form unless the server has something to refuse or to read."""
    binary = all(map(_is_plain, columns, kinds))
    if binary:
        # JSONB's form is its version, 1, and then the text.
        columns = [
            [None if cell is None else f"\x01{cell}" for cell in column] if kind == "jsonb" else column
            for column, kind in zip(columns, kinds, strict=True)
        ]
    with cursor.copy(f"COPY {into} FROM STDIN{' (FORMAT BINARY)' if binary else ''}".encode()) as copy:
        if binary:
            copy.set_types(["text" if kind == "jsonb" else kind for kind in kinds])
        for row in zip(*columns, strict=True):
            copy.write_row(row)


def _is_plain(cells: Sequence[Any], kind: str) -> bool:
    types = set(map(type, cells)) - {type(None)}
    if types != {int}:
        return kind in COPIED and types <= {COPIED[kind]}
    numbers = [number for number in cells if number is not None]
    return kind == "bigint" and min(numbers) >= -(2**63) and max(numbers) < 2**63


def unpacked_vectors(data: bytes, rows: int) -> NDArray[np.float32]:
    """Return vectors in pgvector's form, one after the other, as the rows of a matrix."""
    each = len(data) // rows
    return np.frombuffer(data, dtype=np.uint8).reshape(rows, each)[:, 4:].copy().view(">f4").astype(np.float32)


def vector_bytes(data: bytes | None) -> bytes | None:
    """Return a vector in pgvector's form as the bytes of little-endian float32."""
    return None if data is None else np.frombuffer(data, dtype=">f4", offset=4).astype("<f4").tobytes()
