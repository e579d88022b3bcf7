"""Sentence encoders run by onnxruntime and tokenizers, without torch."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    from .encoders import Vectors

Pooling = Literal["mean", "cls"]
BATCH_TOKENS = 1_024  # padded tokens of a batch: more are no faster on a CPU, and take more memory
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, as microseconds of CPU time in a period
HIDDEN_STATES = ("last_hidden_state", "token_embeddings")


@dataclass(frozen=True)
class Facts:
    """What a model does around its graph; lengths are in tokens, special ones included."""

    dimensions: int
    longest: int
    special_tokens: int
    pad_id: int
    pooling: Pooling
    normalize: bool
    query_prompt: str
    document_prompt: str


class OnnxEncoder:
    """A sentence-transformers model as a graph: tokenize, run, pool, normalise; threads and forks may share one.

    The tokenizer cuts texts off at the model's longest.
    """

    backend = "onnx"

    def __init__(self, name: str, model_id: str, *, graph: Path, tokenizer: Tokenizer, facts: Facts) -> None:
        self.name = name
        self.model_id = model_id
        self.backend_reason = ""
        self.facts = facts
        self.dimensions = facts.dimensions
        self.max_tokens = facts.longest - facts.special_tokens
        self._tokenizer = tokenizer
        self._graph = graph
        self._opening = threading.Lock()
        self._session: InferenceSession | None = open_session(graph)
        self._output = _hidden_state(self._session)
        self._inputs = [item.name for item in self._session.get_inputs()]
        _living.add(self)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """A copy that cuts nothing off, to count and split with; a search has no use for it."""
        copy = type(self._tokenizer).from_str(self._tokenizer.to_str())
        copy.no_truncation()
        return copy

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text, shape (len(texts), dimensions); texts of like length are encoded together."""
        result = np.empty((len(texts), self.dimensions), dtype=np.float32)
        if not len(texts):
            return result
        prompted = [self.facts.document_prompt + text for text in texts]
        tokens = [item.ids for item in self._tokenizer.encode_batch_fast(prompted)]
        for places in batches_by_length([len(ids) for ids in tokens]):
            result[places] = self._vectors([tokens[place] for place in places])
        return result

    def encode_query(self, text: str) -> Vectors:
        """Return one vector, shape (dimensions,)."""
        vectors = self._vectors([self._tokenizer.encode(self.facts.query_prompt + text).ids])
        return vectors.reshape(self.dimensions)

    def _vectors(self, tokens: list[list[int]]) -> Vectors:
        ids, mask = _padded(tokens, self.facts.pad_id)
        given = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            given["token_type_ids"] = np.zeros_like(ids)
        hidden = self._open().run([self._output], given)[0]
        vectors = hidden[:, 0] if self.facts.pooling == "cls" else _mean(hidden, mask)
        if self.facts.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return np.asarray(vectors, dtype=np.float32)

    def _open(self) -> InferenceSession:
        session = self._session
        if session is None:
            with self._opening:
                session = self._session = self._session or open_session(self._graph)
        return session

    def _after_fork(self) -> None:
        # The child has none of the session's threads: running it may hang, and so does its destructor, even at exit.
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        self._session = None
        self._opening = threading.Lock()


_living: weakref.WeakSet[OnnxEncoder] = weakref.WeakSet()


def _forget_sessions() -> None:
    for encoder in list(_living):
        encoder._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_sessions)


def open_session(graph: Path) -> InferenceSession:
    """Return a session on the CPU that leaves the cores alone between calls, and tells nobody about them."""
    onnxruntime = _without_telemetry()
    options = onnxruntime.SessionOptions()
    # Threads that spin make the next call of one process a little quicker and every other process slower.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 3  # errors come as exceptions; warnings of the optimizer are not the user's
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _without_telemetry() -> Any:
    """Return onnxruntime, which sends events about models and sessions to its maker unless it is told not to.

    Its threads for that also keep a forked process from ending. ORT_DISABLE_TELEMETRY=0 in the environment allows it.
    """
    chosen = os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    if chosen != "0":
        onnxruntime.disable_telemetry_events()  # where it was imported before
    return onnxruntime


def usable_cores(quota: Path = CPU_QUOTA) -> int:
    """Return how many cores this process may keep busy; onnxruntime itself would count all of the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = map(int, quota.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # not in a container, or in one without a limit, which says "max"
        return cores
    return max(1, min(cores, math.ceil(allowed / period)))


def batches_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places of all texts, the longest together first, at most `BATCH_TOKENS` with padding at a time."""
    batch: list[int] = []
    for place in np.argsort([-length for length in lengths], kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _padded(tokens: list[list[int]], pad_id: int) -> tuple[Any, Any]:
    longest = max(map(len, tokens))
    ids = np.full((len(tokens), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, own in enumerate(tokens):
        ids[row, : len(own)] = own
        mask[row, : len(own)] = 1
    return ids, mask


def _mean(hidden: Any, mask: Any) -> Any:
    weights = mask.astype(np.float32)
    total = np.matmul(weights[:, None, :], hidden)[:, 0]
    return total / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def _hidden_state(session: InferenceSession) -> str:
    names = [item.name for item in session.get_outputs()]
    return next((name for name in HIDDEN_STATES if name in names), names[0])
