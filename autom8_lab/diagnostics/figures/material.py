"""What a benchmark works on: texts, queries and vectors from a seed, and labs that hold them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from ...config import LabConfig
from ...lab import Lab
from ...retrieval import STOP_WORDS
from ...storage.bare import BareFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ...embedding import Encoder
    from ...vectors.similarity import Array32

TEXT_BYTES = 400
COMMON, RARE = slice(0, 30), slice(1_500, None)  # ranks of words: in one text of five and more, and in one of 200
WORDS_OF_A_QUERY = 5
LATENT = 32  # directions in which sentence vectors differ most
FEW_VECTORS = 1_000


@cache
def vocabulary() -> list[str]:
    """Return the words of Python's language reference that a search looks for, the most frequent first."""
    from pydoc_data.topics import topics

    counts = Counter(re.findall(r"[a-z]{3,}", " ".join(topics.values()).lower()))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if word not in STOP_WORDS]


def texts(count: int, *, seed: int, length: int = TEXT_BYTES) -> list[str]:
    """Return texts of `length` bytes, each word drawn as often as Zipf and Mandelbrot say for its rank."""
    words = vocabulary()
    weights = 1 / (np.arange(len(words)) + 2.7)
    per_text = length // 4 + 1  # no word is shorter than three letters and its space
    drawn = np.random.default_rng(seed).choice(len(words), size=(count, per_text), p=weights / weights.sum())
    return [" ".join(words[place] for place in row)[:length] for row in drawn.tolist()]


def queries(count: int, *, seed: int, ranks: slice = slice(None)) -> list[str]:
    """Return queries of different words between two ranks, no two alike."""
    words, rng = vocabulary()[ranks], np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(words[place] for place in rng.choice(len(words), WORDS_OF_A_QUERY, replace=False))] = None
    return list(found)


def clustered_vectors(count: int, *, dimensions: int, seed: int, block: int = 100_000) -> Array32:
    """Return unit vectors that lie as a model's do: in clusters, most of their spread in a few directions.

    A graph finds its way among these as among real ones; among independent normal ones it would not.
    """
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(LATENT, dimensions)).astype(np.float32)
    centres = rng.normal(size=(max(1, count // 100), LATENT)).astype(np.float32)
    result = np.empty((count, dimensions), dtype=np.float32)
    for start in range(0, count, block):
        size = min(block, count - start)
        latent = centres[rng.integers(0, len(centres), size)] + 0.7 * rng.normal(size=(size, LATENT)).astype("f4")
        rows = latent @ directions + 1.5 * rng.normal(size=(size, dimensions)).astype("f4")
        result[start : start + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def few_vectors(dimensions: int, *, seed: int) -> Array32:
    """Return the vectors of labs in which how near they are does not matter."""
    return clustered_vectors(FEW_VECTORS, dimensions=dimensions, seed=seed)


def query_vectors(vectors: Array32, count: int, *, seed: int) -> Array32:
    """Return vectors near stored ones but none of them: with noise of half their length."""
    rng = np.random.default_rng(seed)
    chosen = vectors[rng.integers(0, len(vectors), count)]
    noise = rng.normal(size=chosen.shape).astype(np.float32)
    moved = chosen + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    found: Array32 = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return found


def recall(found: Sequence[Sequence[int]], queries: Array32, vectors: Array32) -> float:
    """Return the share of the true nearest (cosine) that was found, over all queries.

    As many count as a query has answers; one that is as near as the last of them is as good as it. `vectors` are of
    length 1, and `found` are their row numbers.
    """
    hits = wanted = 0
    for start in range(0, len(queries), 64):
        closeness = vectors @ queries[start : start + 64].T
        for column, numbers in enumerate(found[start : start + 64]):
            own, k = closeness[:, column], len(numbers)
            last = np.partition(own, len(own) - k)[len(own) - k]
            hits += int((own[list(set(numbers))] >= last - 1e-6).sum())
            wanted += k
    return hits / wanted


class PreparedEncoder:
    """Gives texts vectors that are there already: what is left of storing and searching when encoding costs nothing.

    A text that was not named gets one by its checksum. It bears a real model's name where a lab is to go on with that.
    """

    max_tokens = 1_000_000
    tokenizer: Tokenizer | None = None
    backend = "prepared"
    backend_reason = "vectors made before the measurement"

    def __init__(
        self,
        vectors: Array32,
        *,
        texts: Sequence[str] = (),
        name: str = "prepared",
        model_id: str = "prepared@1",
        queries_by: Encoder | None = None,
    ) -> None:
        self.name, self.model_id, self.dimensions = name, model_id, vectors.shape[1]
        self._vectors = vectors
        self._places = {text: place for place, text in enumerate(texts)}
        self._queries_by = queries_by

    def encode_documents(self, texts: Sequence[str]) -> Array32:
        """Return one row per text, shape (len(texts), dimensions)."""
        return self._vectors[[self._place(text) for text in texts]]

    def encode_query(self, text: str) -> Array32:
        """Return one vector, shape (dimensions,)."""
        if self._queries_by is not None:
            return self._queries_by.encode_query(text)
        found: Array32 = self._vectors[self._place(text)]
        return found

    def _place(self, text: str) -> int:
        place = self._places.get(text)
        return crc32(text.encode()) % len(self._vectors) if place is None else place


def plain_lab(path: str | os.PathLike[str], *, encoder: Encoder | None = None, **settings: Any) -> Lab:
    """Open a lab with every setting at its default but the given ones, whatever environment and files say.

    It does not become the current lab.
    """
    defaults = {name: field.get_default(call_default_factory=True) for name, field in LabConfig.model_fields.items()}
    # Made directly: no source of settings is even read.
    return Lab(LabConfig.model_construct(**{**defaults, "db_path": str(path), **settings}), encoder=encoder)


@dataclass(frozen=True)
class Sizes:
    """How much a benchmark does: contexts of the lab that is read, texts of a batch, vectors, and so on.

    `connections` are the numbers of processes at one file, `operations` what all of them do together in a round.
    """

    contexts: int = 5_000
    batch: int = 10_000
    vectors: int = 20_000
    connections: tuple[int, ...] = (1, 4, 20, 50)
    operations: int = 1_000
    calls: int = 100
    repeats: int = 7


SIZES = {
    "quick": Sizes(contexts=500, batch=1_000, vectors=2_000, connections=(1, 4), operations=200, calls=20, repeats=3),
    "standard": Sizes(),
    "full": Sizes(vectors=100_000, operations=2_000, repeats=11),
}


@dataclass
class Bench:
    """What the parts of a benchmark share.

    A folder, sizes, the seed, the encoder of queries with the settings that it was loaded with, and how durable a
    commit is.
    """

    folder: Path
    sizes: Sizes
    seed: int
    encoder: Encoder
    is_model: bool
    synchronous: str = "FULL"
    settings: dict[str, Any] = field(default_factory=dict)
    vectors: Array32 = field(init=False)

    def __post_init__(self) -> None:
        self.vectors = few_vectors(self.encoder.dimensions, seed=self.seed)

    def prepared(self) -> PreparedEncoder:
        """Return an encoder that costs nothing."""
        return PreparedEncoder(self.vectors)

    def as_model(self) -> PreparedEncoder:
        """Return an encoder under the model's name: its own queries, documents that cost nothing."""
        return PreparedEncoder(
            self.vectors, name=self.encoder.name, model_id=self.encoder.model_id, queries_by=self.encoder
        )

    def texts(self, count: int, *, part: int) -> list[str]:
        """Return texts that no other part has."""
        return texts(count, seed=self.seed * 1_000 + part)

    def queries(self, count: int, *, part: int, ranks: slice = slice(None)) -> list[str]:
        """Return queries that no other part has."""
        return queries(count, seed=self.seed * 1_000 + part, ranks=ranks)

    def path(self, name: str) -> Path:
        """Return where a file of this name lies."""
        return self.folder / f"{name}.db"

    def lab(self, name: str, *, encoder: Encoder | None = None, **settings: Any) -> Lab:
        """Open a lab of the benchmark's folder; without an encoder with one that costs nothing."""
        settings = {"synchronous": self.synchronous, **settings}
        return plain_lab(self.path(name), encoder=encoder or self.prepared(), **settings)

    def bare(self, name: str) -> BareFile:
        """Open the same file for bare statements."""
        return BareFile(self.path(name), synchronous=self.synchronous)
