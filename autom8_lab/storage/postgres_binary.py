"""Vectors, and lists of texts and numbers, in the server's own form: to write vectors in digits takes ten times as long.

pgvector's form is two 16-bit numbers, the dimensions and a zero, and then the big-endian float32s.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format

_SIZE, _BIGINT = struct.Struct(">i"), struct.Struct(">q")
BIGINT, TEXT = 20, 25  # their numbers among the types of every server


class Packed:
    """Bytes that are a value already; the statement says of which type (`%s::vector`)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> bytes:
        return obj.data


psycopg.adapters.register_dumper(Packed, _PackedDumper)


def packed_vector(vector: NDArray[Any]) -> Packed:
    """Return a vector as a parameter."""
    return Packed(struct.pack(">hh", len(vector), 0) + vector.astype(">f4").tobytes())


def packed_vectors(vectors: Iterable[NDArray[Any]], *, type_number: int) -> Packed:
    """Return vectors as a parameter of the type `vector[]`; `type_number` is `'vector'::regtype::oid` of the database."""
    return _array([packed_vector(vector).data for vector in vectors], type_number)


def packed_texts(texts: Iterable[str]) -> Packed:
    """Return texts as a parameter of the type `text[]`."""
    return _array([text.encode() for text in texts], TEXT)


def packed_integers(numbers: Iterable[int]) -> Packed:
    """Return numbers as a parameter of the type `bigint[]`."""
    return _array([_BIGINT.pack(number) for number in numbers], BIGINT)


def _array(cells: Sequence[bytes], type_number: int) -> Packed:
    parts = [struct.pack(">iiI", 1 if cells else 0, 0, type_number)]
    if cells:
        parts.append(struct.pack(">ii", len(cells), 1))
    for cell in cells:
        parts += (_SIZE.pack(len(cell)), cell)
    return Packed(b"".join(parts))


def unpacked_vectors(data: bytes, rows: int) -> NDArray[np.float32]:
    """Return vectors in pgvector's form, one after the other, as the rows of a matrix."""
    each = len(data) // rows
    return np.frombuffer(data, dtype=np.uint8).reshape(rows, each)[:, 4:].copy().view(">f4").astype(np.float32)


def vector_bytes(data: bytes | None) -> bytes | None:
    """Return a vector in pgvector's form as the bytes of little-endian float32."""
    return None if data is None else np.frombuffer(data, dtype=">f4", offset=4).astype("<f4").tobytes()
