"""How fast a lab answers hybrid queries, against FTS5 and a matrix product joined by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...frames import frame
from ...retrieval import query_terms
from ...storage.bare import BareFile
from .material import Bench, PreparedEncoder
from .rounds import Row, in_turns, rates, row, seconds_each

if TYPE_CHECKING:
    import pandas as pd

    from ...embedding import Encoder
    from ...lab import Lab

PART = "search"
CANDIDATES, K = 100, 10
BY_HAND = "FTS5 and a NumPy product joined by hand"


class ByHand:
    """What one would write without the lab: BM25's best and the nearest vectors, averaged, as a DataFrame."""

    def __init__(self, bare: BareFile, encoder: Encoder) -> None:
        self._bare, self._encoder = bare, encoder
        self._keys, vectors = bare.vectors()
        self._matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self._place = {key: place for place, key in enumerate(self._keys.tolist())}

    def search_df(self, query: str, *, k: int = K) -> pd.DataFrame:
        """Return the k best contexts, best first: the mean of both scores, each over the query's best."""
        matched = dict(self._bare.matches(query_terms(query), CANDIDATES))
        closeness = self._matrix @ self._encoder.encode_query(query)
        size = min(CANDIDATES, len(closeness))
        nearest = np.argpartition(-closeness, size - 1)[:size]
        keys = list({**matched, **dict.fromkeys(self._keys[nearest].tolist())})
        near = np.maximum(closeness[[self._place[key] for key in keys]], 0)
        text = np.array([matched.get(key, 0.0) for key in keys])
        scores = text / max(text.max(initial=0.0), 1e-9) / 2 + near / max(near.max(initial=0.0), 1e-9) / 2
        best = np.argsort(-scores, kind="stable")[:k]
        found = {item[0]: item for item in self._bare.rows([keys[place] for place in best])}
        rows = [(found[keys[place]][1:], scores[place]) for place in best]
        names = ("context_id", "topic", "content", "created_at")
        return frame(
            [{**dict(zip(names, cells, strict=True)), "score": float(score)} for cells, score in rows],
            {**dict.fromkeys(names, "str"), "score": "float64"},
        )


def search_figures(bench: Bench) -> Iterator[Row]:
    """Measure hybrid `search_df`: queries never asked before, and the same ones again."""
    count = bench.sizes.contexts
    vectors = PreparedEncoder(bench.vectors)
    with bench.lab("search", encoder=vectors) as lab:
        lab.store_contexts(bench.texts(count, part=10), progress=False)
        yield _figure(bench, lab, vectors, "distinct queries", part=11)
    if bench.is_model:
        model = bench.as_model()
        with bench.lab("search-model", encoder=model) as lab:
            lab.store_contexts(bench.texts(count, part=10), progress=False)
            yield _figure(bench, lab, model, "distinct queries, encoded", part=12)
            yield _figure(bench, lab, model, "repeated queries, encoded", part=13, again=True)
    else:
        with bench.lab("search", encoder=vectors) as lab:
            yield _figure(bench, lab, vectors, "repeated queries", part=13, again=True)


def _figure(bench: Bench, lab: Lab, encoder: Encoder, what: str, *, part: int, again: bool = False) -> Row:
    bare = BareFile(lab.config.db_path)
    by_hand = ByHand(bare, encoder)
    asked = _asked(bench, part=part, again=again)
    timings = in_turns(
        bench.sizes.repeats,
        lambda number: seconds_each(lab.search_df, asked[number]),
        lambda number: seconds_each(by_hand.search_df, asked[number]),
    )
    bare.close()
    count = bench.sizes.contexts
    return row(
        PART,
        f"search_df, {what}",
        "/s",
        rates(timings.ours),
        how=f"hybrid, {count:,} contexts, k = {K}",
        against=BY_HAND,
        others=rates(timings.theirs),
    )


def _asked(bench: Bench, *, part: int, again: bool) -> Sequence[Sequence[str]]:
    calls, rounds = bench.sizes.calls, bench.sizes.repeats + 1
    if again:
        return [bench.queries(calls, part=part)] * rounds
    drawn = bench.queries(calls * rounds, part=part)
    return [drawn[number * calls : (number + 1) * calls] for number in range(rounds)]
