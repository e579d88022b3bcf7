"""Embedding models of the `llm` command line's plugins, so that vectors imported from it can be searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .encoders import Vectors

PREFIX = "llm/"


class LlmEncoder:
    """An embedding model that `llm` knows by a name, here "llm/name".

    Raises `ModelUnavailable` where `llm` or the model's plugin or key is missing.
    """

    backend = "llm"
    backend_reason = "a plugin of llm"
    max_tokens: int = 8_000
    tokenizer: Any = None

    def __init__(self, name: str) -> None:
        self.name = self.model_id = name
        wanted = name.removeprefix(PREFIX)
        try:
            import llm
        except ImportError as exc:
            raise ModelUnavailable(f"the model {name!r} needs llm: pip install llm") from exc
        try:
            self._model: Any = llm.get_embedding_model(wanted)  # type: ignore[no-untyped-call, unused-ignore]
        except llm.UnknownModelError as exc:
            raise ModelUnavailable(
                f"llm has no embedding model {wanted!r}: install its plugin (`llm embed-models` lists what is there)"
            ) from exc
        self.dimensions = len(self._embedded(["dimensions"])[0])

    def _embedded(self, texts: Sequence[str]) -> list[list[float]]:
        try:
            return list(self._model.embed_multi(list(texts)))
        except Exception as exc:  # of any plugin: a missing key, a network that is not there
            raise ModelUnavailable(f"{self.name!r} cannot embed ({type(exc).__name__}: {exc}): see `llm keys`") from exc

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text, shape (len(texts), dimensions)."""
        import numpy as np

        found = self._embedded(texts) if len(texts) else []
        return np.array(found, dtype=np.float32).reshape(len(found), self.dimensions)

    def encode_query(self, text: str) -> Vectors:
        """Return one vector, shape (dimensions,)."""
        import numpy as np

        return np.array(self._embedded([text])[0], dtype=np.float32)
