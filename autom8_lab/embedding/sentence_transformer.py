"""The real embedding models, through sentence-transformers."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelUnavailable
from .model_files import find_model, model_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from .encoders import Vectors

SPECIAL_TOKENS = 2  # [CLS] and [SEP], which count towards the model's longest input


class SentenceTransformerEncoder:
    """A sentence-transformers model by name, by local folder, or from the offline package when it is installed.

    Raises `ModelUnavailable` where the libraries or the weights are missing, or the offline weights are not the
    published ones. No remote code is run.
    """

    backend = "torch"

    def __init__(self, name: str, *, device: str | None = None, cache: Path) -> None:
        self.name = name
        self.backend_reason = ""
        files = find_model(name, cache=cache)
        # What the hub's client has fetched is loaded by its name, so that the client may renew it.
        self.model = _load(name, files.folder if files and not files.fetched else None, device)
        if files is None or files.fetched:
            files = find_model(name, cache=cache)
        self.files = files
        self.model_id = model_id(name, files.weights_sha256 if files else None)
        self._lock = threading.Lock()
        self.dimensions = int(self.model.get_embedding_dimension() or 0)
        self.max_tokens = int(self.model.max_seq_length or 512) - SPECIAL_TOKENS
        self.tokenizer: Tokenizer | None = _own_copy(getattr(self.model.tokenizer, "backend_tokenizer", None))

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text, shape (len(texts), dimensions); batches are sorted by length inside."""
        with self._lock:
            vectors: Vectors = self.model.encode_document(list(texts), show_progress_bar=False)
        return vectors

    def encode_query(self, text: str) -> Vectors:
        """Return one vector, shape (dimensions,)."""
        with self._lock:
            vector: Vectors = self.model.encode_query(text, show_progress_bar=False)
        return vector


def _own_copy(tokenizer: Tokenizer | None) -> Tokenizer | None:
    # The model truncates through its tokenizer; counting and splitting need one that does not.
    if tokenizer is None:
        return None
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _load(name: str, location: Path | None, device: str | None) -> Any:
    try:
        from tqdm import TqdmWarning

        with warnings.catch_warnings():
            # It imports tqdm's notebook bar, which we do not use, and which warns where ipywidgets is missing.
            warnings.simplefilter("ignore", TqdmWarning)
            from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ImportError as exc:
        raise ModelUnavailable(
            f"embedding model {name!r} needs sentence-transformers ({exc}): pip install sentence-transformers"
        ) from exc
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(str(location or name), device=device, trust_remote_code=False)
    except Exception as exc:  # every kind of network, file and format error means the same to a user
        raise ModelUnavailable(
            f"embedding model {name!r} cannot be loaded ({type(exc).__name__}: {str(exc).splitlines()[0]}): "
            "check the name and the network, give a local folder, or pip install 'autom8_lab[offline-model]'"
        ) from exc
