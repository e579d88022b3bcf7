"""How fast a short query becomes a vector, against onnxruntime and tokenizers called by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .material import Bench
from .rounds import Row, alone, in_turns, milliseconds, row, seconds_each

if TYPE_CHECKING:
    from ...embedding.onnx_encoder import OnnxEncoder
    from ...vectors.similarity import Array32

PART = "encode"
WHAT = "one query encoded"


class BareModel:
    """The same graph in a session of its own: tokenize, run, pool, normalise, and nothing else."""

    def __init__(self, encoder: OnnxEncoder) -> None:
        from ...embedding.onnx_encoder import open_session

        self._facts, self._tokenizer = encoder.facts, encoder._tokenizer
        # The same options: threads of this session that spin would slow the other one down.
        self._session = open_session(encoder._graph)
        self._inputs = {item.name for item in self._session.get_inputs()}

    def encode(self, text: str) -> Array32:
        """Return the vector of a text."""
        ids = np.array([self._tokenizer.encode(self._facts.query_prompt + text).ids], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {name: given[name] for name in self._inputs})[0][0]
        vector: Array32 = hidden[0] if self._facts.pooling == "cls" else hidden.mean(axis=0)
        return vector / np.linalg.norm(vector) if self._facts.normalize else vector


def encode_figures(bench: Bench) -> Iterator[Row]:
    """Measure one short query, through the graph where the encoder has one."""
    calls, rounds = bench.sizes.calls, bench.sizes.repeats
    drawn = bench.queries(calls * (rounds + 1), part=51)
    asked = [drawn[number * calls : (number + 1) * calls] for number in range(rounds + 1)]
    how = f"short, {bench.encoder.name}"
    if getattr(bench.encoder, "backend", None) != "onnx":
        taken = alone(rounds, lambda number: seconds_each(bench.encoder.encode_query, asked[number]))
        yield row(PART, WHAT, "ms", milliseconds(taken), how=how)
        return
    bare = BareModel(bench.encoder)  # type: ignore[arg-type]  # its backend says what it is
    timings = in_turns(
        rounds,
        lambda number: seconds_each(bench.encoder.encode_query, asked[number]),
        lambda number: seconds_each(bare.encode, asked[number]),
    )
    ours, others = milliseconds(timings.ours), milliseconds(timings.theirs)
    yield row(PART, WHAT, "ms", ours, how=how, against="onnxruntime and tokenizers", others=others)
