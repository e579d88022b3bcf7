"""Encoders: what turns texts into vectors, and how one is found by name."""

from __future__ import annotations

import hashlib
import re
import threading
from typing import TYPE_CHECKING, Protocol

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    Vectors = npt.NDArray[np.float32]

HASH_NAME = re.compile(r"hash(?:-(\d+))?")


class Encoder(Protocol):
    """Turns texts into float32 vectors of `dimensions` numbers.

    `model_id` names the weights, not only the model: vectors of two ids are never compared. `max_tokens` is the
    longest text, in tokens without special ones, that is encoded whole. `tokenizer` counts and splits.
    """

    name: str
    model_id: str
    dimensions: int
    max_tokens: int
    tokenizer: Tokenizer | None

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text, shape (len(texts), dimensions)."""

    def encode_query(self, text: str) -> Vectors:
        """Return one vector, shape (dimensions,)."""


class HashEncoder:
    """A deterministic bag of hashed words for tests and demonstrations: it knows no meaning.

    Signed feature hashing (Weinberger et al. 2009, arXiv:0902.2206), normalised to length 1.

    >>> encoder = HashEncoder(dimensions=8)
    >>> encoder.encode_query("two words").shape
    (8,)
    """

    max_tokens: int = 1_000_000
    tokenizer: Tokenizer | None = None

    def __init__(self, *, dimensions: int = 384) -> None:
        if dimensions < 1:
            raise ConfigurationError(f"dimensions={dimensions}: a hash encoder needs at least 1")
        self.dimensions = dimensions
        self.name = f"hash-{dimensions}"
        self.model_id = f"hash-{dimensions}@1"

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text, shape (len(texts), dimensions)."""
        import numpy as np

        return (
            np.stack([self.encode_query(text) for text in texts])
            if len(texts)
            else np.empty((0, self.dimensions), dtype=np.float32)
        )

    def encode_query(self, text: str) -> Vectors:
        """Return one vector, shape (dimensions,)."""
        import numpy as np

        vector = np.zeros(self.dimensions, dtype=np.float64)
        for word in re.findall(r"\w+", text.lower()) or [text]:
            digest = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "big")
            vector[(digest >> 1) % self.dimensions] += 1.0 if digest & 1 else -1.0
        if not vector.any():  # words that cancel out must not leave a zero vector
            vector[0] = 1.0
        return (vector / np.linalg.norm(vector)).astype(np.float32)


_loaded: dict[tuple[str, str | None], Encoder] = {}
_loading = threading.Lock()


def canonical_name(name: str) -> str:
    """Return the one name that a model has here: "hash" is "hash-384", and the hub's organisation is left out."""
    hashed = HASH_NAME.fullmatch(name)
    return f"hash-{hashed[1] or 384}" if hashed else name.removeprefix("sentence-transformers/")


def load_encoder(name: str, *, device: str | None = None) -> Encoder:
    """Load an encoder by name, once per process: "hash", "hash-64", a sentence-transformers name or a local folder.

    "llm/name" is an embedding model of the `llm` command line.

    Raises `ModelUnavailable` with the remedy when the model cannot be loaded; nothing is put in its place.
    """
    name = canonical_name(name)
    with _loading:
        key = (name, device)
        if key not in _loaded:
            hashed = HASH_NAME.fullmatch(name)
            if hashed:
                _loaded[key] = HashEncoder(dimensions=int(hashed[1]))
            elif name.startswith("llm/"):
                from .llm_encoder import LlmEncoder

                _loaded[key] = LlmEncoder(name)
            else:
                from .sentence_transformer import SentenceTransformerEncoder

                _loaded[key] = SentenceTransformerEncoder(name, device=device)
        return _loaded[key]
