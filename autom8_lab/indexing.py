"""The index of meaning: which model's vectors serve, and how texts get theirs."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import (
    ConfigurationError,
    EmbeddingModelWarning,
    InvalidValue,
    ModelUnavailable,
    PendingEmbeddingWarning,
)
from .records import Chunk, Condition, EmbeddingSet, Report
from .validation import progress_value, text_value

if TYPE_CHECKING:
    from .config import LabConfig
    from .embedding import Encoder
    from .storage import Storage
    from .vectors.similarity import Array32

PASS_CONTEXTS = 1_000  # contexts chunked and encoded in one pass
QUERY_VECTORS = 1_024  # of the latest queries, which agents and dashboards like to repeat
REMEMBERED_CHARACTERS = 2_000  # a longer query is encoded each time, so that the memory is bounded in bytes too
QUIET_TEXTS = 256  # fewer texts than this are encoded without a progress bar


@dataclass
class Indexed:
    """A text's tokens, chunks and new vectors, ready to be written; `into` is None where no model was there."""

    into: EmbeddingSet | None = None
    token_count: int | None = None
    chunks: list[Chunk] = field(default_factory=list)
    vectors: dict[str, Array32] = field(default_factory=dict)


class _Elsewhere(NamedTuple):
    """A model that was at work elsewhere."""

    name: str
    model_id: str
    dimensions: int


class Index:
    """Chunks and encodes texts for the active embedding set, never inside a transaction.

    The active set answers searches. Another model gets a set of its own, built beside it, and takes its place only
    when it is complete.
    """

    def __init__(
        self, storage: Storage, config: LabConfig, *, encoder: Encoder | None, clock: Callable[[], datetime]
    ) -> None:
        self._storage = storage
        self._config = config
        self._given = encoder
        self._clock = clock
        self._warned = False
        self._refusals: dict[str, str] = {}
        self._presumed: EmbeddingSet | None = None
        self._encoded_query = lru_cache(QUERY_VECTORS)(self._encode_query)
        from .embedding import canonical_name

        active = self.active_set()
        wanted = encoder.name if encoder else canonical_name(config.embedding_model)
        chosen = encoder is not None or "embedding_model" in config.model_fields_set
        if active and chosen and wanted != active.model_name:
            warnings.warn(
                f"the vectors in {storage.path} come from {active.model_name!r}, which goes on serving; "
                f"al.embed_contexts(model={wanted!r}) changes to the configured model",
                EmbeddingModelWarning,
                stacklevel=4,
            )

    def active_set(self) -> EmbeddingSet | None:
        """Return the set that answers searches, or None while nothing has been embedded."""
        found = self._storage.remember("active set", lambda: self._set(Condition("state", "=", "active")))
        self._presumed = found
        return found

    def _set(self, *where: Condition) -> EmbeddingSet | None:
        names = list(EmbeddingSet.__dataclass_fields__)
        rows = self._storage.rows("embedding_sets", where=where, columns=names, limit=1)
        return EmbeddingSet(**rows[0]) if rows else None

    def encoder(self, name: str | None = None) -> Encoder:
        """Return the encoder of that name, or the configured one. Raises `ModelUnavailable` with the remedy."""
        if self._given is not None and name in (None, self._given.name):
            return self._of_wanted_size(self._given)
        name = name or self._config.embedding_model
        if name in self._refusals:
            raise ModelUnavailable(self._refusals[name])
        from .embedding import load_encoder

        try:
            encoder = load_encoder(name, **self._how_to_load())
        except ModelUnavailable as exc:
            # Remembered, because finding out takes seconds and every search would ask again.
            self._refusals[name] = str(exc)
            raise
        return self._of_wanted_size(encoder)

    def _how_to_load(self) -> dict[str, Any]:
        config = self._config
        return {
            "device": config.embedding_device,
            "backend": config.embedding_backend,
            "cache_dir": config.cache_dir,
        }

    def backend(self) -> tuple[str | None, str]:
        """Return what runs the active model in this process, and why; None while it has not been needed."""
        from .embedding import loaded_encoder

        active, given = self.active_set(), self._given
        if given is not None and (active is None or active.model_name == given.name):
            return getattr(given, "backend", type(given).__name__), getattr(given, "backend_reason", "a given encoder")
        name = active.model_name if active else self._config.embedding_model
        encoder = loaded_encoder(name, **self._how_to_load())
        if encoder is None:
            return None, self._refusals.get(name, "no text was embedded or searched by meaning in this process")
        return encoder.backend, encoder.backend_reason

    def _of_wanted_size(self, encoder: Encoder) -> Encoder:
        wanted = self._config.embedding_dimensions
        if wanted is not None and encoder.dimensions != wanted:
            raise ConfigurationError(
                f"embedding_dimensions={wanted}, but {encoder.name!r} has {encoder.dimensions}: leave the setting out"
            )
        return encoder

    def encoder_of(self, embedding_set: EmbeddingSet) -> Encoder:
        """Return the encoder whose vectors the set holds; other weights under the same name do not count."""
        encoder = self.encoder(embedding_set.model_name)
        if encoder.model_id != embedding_set.model_id:
            raise ModelUnavailable(
                f"the vectors come from {embedding_set.model_id}, but {embedding_set.model_name!r} is now "
                f"{encoder.model_id}: al.embed_contexts() embeds the contexts with it"
            )
        return encoder

    def serving_encoder(self) -> Encoder:
        """Return the encoder whose vectors answer searches; in a lab without vectors the configured one."""
        active = self.active_set()
        return self.encoder_of(active) if active else self.encoder()

    def query_vector(self, query: str) -> tuple[EmbeddingSet, Array32] | None:
        """Return the active set and the query's vector in it, or None in an empty lab. Raises `ModelUnavailable`."""
        active = self.active_set()
        if active is None:
            if not self._storage.count("context_registry"):
                return None
            if self._storage.in_transaction:
                raise ModelUnavailable("the texts of this transaction get their vectors when it ends")
            try:
                self.encoder()
            except ModelUnavailable as exc:
                raise ModelUnavailable(f"{exc}; then al.embed_contexts() adds the vectors") from exc
            raise ModelUnavailable("no context has a vector yet: al.embed_contexts() adds them")
        encode = self._encoded_query if len(query) <= REMEMBERED_CHARACTERS else self._encoded_query.__wrapped__
        self.encoder_of(active)  # refuses other weights under the same name
        return active, encode(active.model_name, active.model_id, active.dimensions, query)

    def _encode_query(self, model_name: str, model_id: str, dimensions: int, query: str) -> Array32:
        from .vectors.similarity import checked

        encoded = self.encoder(model_name).encode_query(query)
        vector = checked(encoded, dimensions=dimensions, what="the query's vector").reshape(dimensions)
        vector.setflags(write=False)  # every search for the same words shares it
        return vector

    def prepare(self, texts: Sequence[str], *, progress: bool | None = False, presuming: bool = False) -> list[Indexed]:
        """Chunk and encode texts for the active set, which the first call creates.

        Without a model the texts get no vectors, and a `PendingEmbeddingWarning` says so once per lab. `presuming` that
        the set which was active last still is spares a question: `write_first` answers it.
        """
        try:
            active = (self._presumed if presuming else None) or self.active_set()
            encoder = self.encoder_of(active) if active else self.encoder()
            active = active or self._ensure_set(encoder, "active")
        except ModelUnavailable as exc:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"stored without vectors, text search finds them: {exc}. Later, al.embed_contexts() adds them",
                    PendingEmbeddingWarning,
                    stacklevel=4,
                )
            return [Indexed() for _ in texts]
        return self._indexed(texts, active, encoder, progress=progress)

    def set_for(self, *, model: str, dimensions: int) -> EmbeddingSet:
        """Return the set of a model whose vectors come from elsewhere; it serves where no other does."""
        return self._ensure_set(_Elsewhere(model, model, dimensions), "building" if self.active_set() else "active")

    def _ensure_set(
        self, encoder: Encoder | _Elsewhere, state: str, chunking: Mapping[str, int] | None = None
    ) -> EmbeddingSet:
        identity = {
            "model_id": encoder.model_id,
            "chunk_tokens": self._config.chunk_tokens,
            "chunk_overlap_tokens": self._config.chunk_overlap_tokens,
            **(chunking or {}),
        }
        where = [Condition(name, "=", value) for name, value in identity.items()]
        with self._storage.transaction():
            existing = self._set(*where) or (self.active_set() if state == "active" else None)
            if existing is None:
                row = {
                    **identity,
                    "model_name": encoder.name,
                    "dimensions": encoder.dimensions,
                    "state": state,
                }
                self._storage.insert("embedding_sets", [{**row, "created_at": self._clock()}])
                existing = self._set(*where)
        assert existing is not None
        return existing

    def _indexed(
        self, texts: Sequence[str], into: EmbeddingSet, encoder: Encoder, *, progress: bool | None
    ) -> list[Indexed]:
        from .embedding.chunking import chunk_text, count_tokens

        counts = count_tokens(texts, encoder)
        result = [
            Indexed(
                into,
                count,
                chunk_text(
                    text,
                    encoder,
                    token_count=count,
                    chunk_tokens=into.chunk_tokens,
                    overlap_tokens=into.chunk_overlap_tokens,
                    format=self._config.chunk_format,
                ),
            )
            for text, count in zip(texts, counts, strict=True)
        ]
        pieces = {
            chunk.chunk_hash: text[chunk.start : chunk.end]
            for text, item in zip(texts, result, strict=True)
            for chunk in item.chunks
        }
        known = self._storage.known_vectors(encoder.model_id, list(pieces))
        missing = [name for name in pieces if name not in known]
        vectors = known | dict(
            zip(missing, encode_in_batches([pieces[name] for name in missing], encoder, progress), strict=True)
        )
        for item in result:
            item.vectors = {chunk.chunk_hash: vectors[chunk.chunk_hash] for chunk in item.chunks}
        return result

    def write(self, indexed: Mapping[str, Indexed], *, content_changed: bool = False) -> None:
        """Write what one `prepare` returned, by context id, inside the caller's transaction."""
        if indexed:
            into, chunks, vectors = _joined(indexed)
            set_key = into.set_key if into else None
            self._storage.put_chunks(chunks, set_key=set_key, vectors=vectors, content_changed=content_changed)

    def write_first(self, indexed: Mapping[str, Indexed]) -> bool:
        """Do what `write` does for new contexts; False where their set is another by now, and they are to be prepared anew.

        The caller takes his transaction back then.
        """
        into, chunks, vectors = _joined(indexed)
        if into is None or self._storage.add_chunks(chunks, into=into, vectors=vectors):
            return True
        self._presumed = None
        return False

    def embed_contexts(
        self, *, model: str | None, progress: bool | None, chunking: Mapping[str, int] | None = None
    ) -> Report:
        """See `Lab.embed_contexts`; `chunking` stands for the configured chunk_tokens and chunk_overlap_tokens."""
        started = time.perf_counter()
        progress_value(progress)
        encoder = self.encoder(None if model is None else text_value(model, "model", max_chars=4_096))
        target = self._ensure_set(encoder, "building" if self.active_set() else "active", chunking)
        total = self._storage.count_without_chunks(target.set_key)
        embedded = 0
        with progress_bar(total, "contexts", progress) as bar:
            while rows := self._storage.contexts_without_chunks(target.set_key, limit=PASS_CONTEXTS):
                done = self._indexed([row["content"] for row in rows], target, encoder, progress=False)
                with self._storage.transaction():
                    same = {row["id"]: item for row, item in zip(rows, done, strict=True) if self._is_same(row, item)}
                    self.write(same)
                    embedded += len(same)
                bar.update(len(rows))
            self._activate(target)
        return Report(
            model=encoder.model_id,
            contexts_embedded=embedded,
            contexts_without_vectors=self._storage.count_without_chunks(target.set_key),
            seconds=round(time.perf_counter() - started, 3),
        )

    def build_vector_index(self, *, progress: bool | None) -> Report:
        """See `Lab.build_vector_index`."""
        active = self.active_set()
        if active is None:
            raise InvalidValue("no context has a vector yet: al.embed_contexts() adds them")
        total = self._storage.count("context_chunks", where=[Condition("set_key", "=", active.set_key)])
        with progress_bar(total, "vectors", progress) as bar:
            return Report(self._storage.build_vector_index(active.set_key, progress=bar.update))

    def drop_retired(self) -> None:
        """Delete the vectors of models that no longer serve, inside the caller's transaction."""
        self._storage.delete("embedding_sets", [Condition("state", "=", "retired")])

    def _is_same(self, row: dict[str, Any], item: Indexed) -> bool:
        # Between reading the text and writing its vectors another process may have changed or deleted it.
        same = [Condition("id", "=", row["id"]), Condition("content", "=", row["content"])]
        return self._storage.update("context_registry", same, {"token_count": item.token_count}) > 0

    def _activate(self, target: EmbeddingSet) -> None:
        with self._storage.transaction():
            active = self.active_set()
            if active == target or self._storage.count_without_chunks(target.set_key):
                return
            if active:
                where = [Condition("set_key", "=", active.set_key)]
                self._storage.update("embedding_sets", where, {"state": "retired"})
            changes = {"state": "active", "activated_at": self._clock()}
            self._storage.update("embedding_sets", [Condition("set_key", "=", target.set_key)], changes)
        self._presumed = None


def _joined(
    indexed: Mapping[str, Indexed],
) -> tuple[EmbeddingSet | None, dict[str, list[Chunk]], dict[str, Array32]]:
    """Return the set that one `prepare` was for, the chunks by context id, and their vectors by chunk hash."""
    into = next((item.into for item in indexed.values()), None)
    vectors = {name: vector for item in indexed.values() for name, vector in item.vectors.items()}
    return into, {context_id: item.chunks for context_id, item in indexed.items()}, vectors


def encode_in_batches(texts: Sequence[str], encoder: Encoder, progress: bool | None) -> Iterator[Array32]:
    """Yield a vector per text, in order, the longest texts encoded together.

    Sorting over all texts keeps padding, which is wasted work, small.
    """
    import numpy as np

    if not texts:
        return iter(())
    from .vectors.similarity import checked

    if len(texts) == 1:
        return iter(checked(encoder.encode_documents(texts), dimensions=encoder.dimensions, count=1))
    order = np.argsort([-len(text) for text in texts], kind="stable")
    result = np.empty((len(texts), encoder.dimensions), dtype=np.float32)
    with progress_bar(len(texts), "chunks", progress) as bar:
        for start in range(0, len(texts), QUIET_TEXTS):
            places = order[start : start + QUIET_TEXTS]
            vectors = encoder.encode_documents([texts[place] for place in places])
            result[places] = checked(vectors, dimensions=encoder.dimensions, count=len(places))
            bar.update(len(places))
    return iter(result)


class _NoBar:
    """The bar that is not shown: tqdm is not even imported, which warns in notebooks without ipywidgets."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int) -> None:
        pass


def progress_bar(total: int, unit: str, shown: bool | None) -> Any:
    """Return a tqdm bar; None shows it for long work in a notebook or on a terminal. Raises `InvalidValue`."""
    if progress_value(shown) is None:
        shown = total >= QUIET_TEXTS and ("ipykernel" in sys.modules or sys.stderr.isatty())
    if not shown:
        return _NoBar()
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=unit, leave=False)
