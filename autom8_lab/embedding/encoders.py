"""Encoders: what turns texts into vectors, and how one is found by name."""

from __future__ import annotations

import hashlib
import logging
import re
from typing import TYPE_CHECKING, Protocol

from ..errors import ConfigurationError, ModelUnavailable
from ..forking import new_lock
from ..records import EmbeddingBackend

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    Vectors = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)
HASH_NAME = re.compile(r"hash(?:-(\d+))?")


class Encoder(Protocol):
    """Turns texts into float32 vectors of `dimensions` numbers.

    `model_id` names the weights, not only the model: vectors of two ids are never compared. `max_tokens` is the
    longest text, in tokens without special ones, that is encoded whole. `tokenizer` counts and splits. An encoder may
    say in `backend` and `backend_reason` what runs it and why; `health()` shows both.
    """

    name: str
    model_id: str
    dimensions: int
    max_tokens: int

    @property
    def tokenizer(self) -> Tokenizer | None:
        """A tokenizer that cuts nothing off, or None for an encoder that counts words."""

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text, shape (len(texts), dimensions)."""

    def encode_query(self, text: str) -> Vectors:
        """Return one vector, shape (dimensions,)."""


class LoadedEncoder(Encoder, Protocol):
    """An encoder that was loaded by its name, and that says what runs it and why."""

    backend: str
    backend_reason: str


class HashEncoder:
    """A deterministic bag of hashed words for tests and demonstrations: it knows no meaning.

    Signed feature hashing (Weinberger et al. 2009, arXiv:0902.2206), normalised to length 1.

    >>> encoder = HashEncoder(dimensions=8)
    >>> encoder.encode_query("two words").shape
    (8,)
    """

    backend = "hash"
    backend_reason = "hashed words, no model"
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


Key = tuple[str, str | None, EmbeddingBackend, str | None]
_loaded: dict[Key, LoadedEncoder] = {}
_loading = new_lock()


def canonical_name(name: str) -> str:
    """Return the one name that a model has here: "hash" is "hash-384", and the hub's organisation is left out."""
    hashed = HASH_NAME.fullmatch(name)
    return f"hash-{hashed[1] or 384}" if hashed else name.removeprefix("sentence-transformers/")


def load_encoder(
    name: str, *, device: str | None = None, backend: EmbeddingBackend = "auto", cache_dir: str | None = None
) -> LoadedEncoder:
    """Load an encoder by name, once per process: "hash", "hash-64", a sentence-transformers name or a local folder.

    "llm/name" is an embedding model of the `llm` command line. For a model of sentence-transformers the backend "auto"
    is onnxruntime where it gives the model's vectors, with a graph that is exported once into the cache, and else torch;
    the encoder's `backend_reason` says why. Raises `ModelUnavailable` with the remedy when the model cannot be loaded;
    nothing is put in its place.
    """
    key = (canonical_name(name), device, backend, cache_dir)
    if key in _loaded:
        return _loaded[key]
    with _loading:
        if key not in _loaded:
            _loaded[key] = _load(*key)
        return _loaded[key]


def loaded_encoder(
    name: str, *, device: str | None = None, backend: EmbeddingBackend = "auto", cache_dir: str | None = None
) -> LoadedEncoder | None:
    """Return the encoder that `load_encoder` has loaded, or None; nothing is loaded."""
    return _loaded.get((canonical_name(name), device, backend, cache_dir))


def _load(name: str, device: str | None, backend: EmbeddingBackend, cache_dir: str | None) -> LoadedEncoder:
    if hashed := HASH_NAME.fullmatch(name):
        return HashEncoder(dimensions=int(hashed[1]))
    if name.startswith("llm/"):
        from .llm_encoder import LlmEncoder

        return LlmEncoder(name)
    from .model_files import cache_folder

    return _load_model(name, device, backend, cache_folder(cache_dir))


def _load_model(name: str, device: str | None, backend: EmbeddingBackend, cache: Path) -> LoadedEncoder:
    from .onnx_export import export, find_exported
    from .onnx_graph import NotExportable

    on_cpu, gpu_first = device in (None, "cpu"), device is None and backend == "auto"
    if backend != "torch" and on_cpu and (exported := find_exported(name, cache, gpu_first=gpu_first)):
        return exported
    from .sentence_transformer import SentenceTransformerEncoder

    encoder = SentenceTransformerEncoder(name, device=device, cache=cache)
    if backend == "torch":
        encoder.backend_reason = "embedding_backend='torch'"
    elif not on_cpu:
        encoder.backend_reason = f"embedding_device={device!r}"
    else:
        try:
            return export(encoder, cache, gpu_first=gpu_first)
        except Exception as exc:  # of six libraries and the file system: whatever it is, torch answers as before
            encoder.backend_reason = str(exc) if isinstance(exc, NotExportable) else f"{type(exc).__name__}: {exc}"
            logger.info("%s runs on torch: %s", name, encoder.backend_reason)
    if backend == "onnx":
        raise ModelUnavailable(
            f"embedding model {name!r} cannot run on onnxruntime ({encoder.backend_reason}): "
            "embedding_backend='auto' runs it on torch"
        )
    return encoder
