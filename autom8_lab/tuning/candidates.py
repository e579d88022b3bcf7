"""The candidates of judged queries as arrays: joined anew for any weights without searching again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidValue, did_you_mean
from ..retrieval import RRF_K
from .metrics import MEASURES, discounted_gain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..retrieval import Found

    Floats = NDArray[np.float64]

NOT_RANKED = 10**9


class Goal(NamedTuple):
    """The measure that a ranking is chosen by: one of `metrics.MEASURES`, at k."""

    measure: str = "nDCG"
    k: int = 10

    @property
    def name(self) -> str:
        """The measure's name in reports."""
        return self.measure if self.measure in MEASURES[3:] else f"{self.measure}@{self.k}"


def goal_of(measure: str, k: int) -> Goal:
    """Return a goal from a measure's name, with or without "@k". Raises `InvalidValue`.

    >>> goal_of("nDCG@20", 10)
    Goal(measure='nDCG', k=20)
    """
    name, _, cut = str(measure).partition("@")
    if name not in MEASURES or (cut and not cut.isdigit()) or (cut and int(cut) < 1):
        raise InvalidValue(f"measure={measure!r}{did_you_mean(name, MEASURES)}")
    return Goal(name, int(cut) if cut else k)


@dataclass(frozen=True)
class Candidates:
    """What both rankers know about one query's candidates, ids in descending order, which is how ties go.

    `text` and `near` are the scores, 0 for none; the ranks are `NOT_RANKED` where a ranker did not have the candidate.
    """

    ids: Sequence[str]
    text: Floats
    near: Floats
    text_ranks: NDArray[np.int64]
    near_ranks: NDArray[np.int64]
    gains: Floats
    ideal: Sequence[int]  # the grades of all relevant contexts, best first
    terms: int

    @classmethod
    def of(cls, found: Found, grades: Mapping[str, int]) -> Candidates:
        """Return the candidates of a hybrid search with the grades of the query."""
        import numpy as np

        ids = sorted(found.text.keys() | found.near.keys(), reverse=True)
        texts, nears = [found.text.get(name) for name in ids], [found.near.get(name) for name in ids]
        ranks = [match.rank if match and match.rank <= found.depth else NOT_RANKED for match in texts]
        return cls(
            ids=ids,
            text=np.array([match.score if match else 0.0 for match in texts]),
            near=np.array([item.similarity if item else 0.0 for item in nears]),
            text_ranks=np.array(ranks, dtype=np.int64),
            near_ranks=np.array([found.semantic_ranks.get(name, NOT_RANKED) for name in ids], dtype=np.int64),
            gains=np.array([max(0, grades.get(name, 0)) for name in ids], dtype=np.float64),
            ideal=sorted((grade for grade in grades.values() if grade > 0), reverse=True),
            terms=max(1, len(found.terms)),
        )

    def scores(self, text_weights: Floats, *, fusion: str, depth: int) -> Floats:
        """Return the fused scores, a row per weight; -inf for what no ranker has among its first `depth`.

        The same as `retrieval.fused` gives one by one.
        """
        import numpy as np

        inside = (self.text_ranks <= depth) | (self.near_ranks <= depth)
        if fusion == "rrf":
            parts = [
                np.where(ranks <= depth, (RRF_K + 1) / (RRF_K + ranks), 0.0)
                for ranks in (self.text_ranks, self.near_ranks)
            ]
        else:
            parts = [
                np.maximum(values, 0.0) / max(values[inside].max(initial=0.0), 1e-300)
                for values in (self.text, self.near)
            ]
        weights = text_weights[:, None]
        joined: Floats = np.where(inside, weights * parts[0] + (1 - weights) * parts[1], -np.inf)
        return joined

    def measure(self, scores: Floats, goal: Goal) -> Floats:
        """Return the measure of each row of scores, in trec_eval's order."""
        import numpy as np

        if not self.ideal or not len(self.ids):
            return np.zeros(len(scores))
        order = np.argsort(-scores.astype(np.float32), axis=1, kind="stable")
        shown = np.isfinite(np.take_along_axis(scores, order, axis=1))
        gains = np.where(shown, self.gains[order], 0.0)
        places = np.arange(1, gains.shape[1] + 1)
        top = gains[:, : goal.k]
        if goal.measure == "nDCG":
            discounts = 1 / np.log2(places[: goal.k] + 1)
            value = (top * discounts[: top.shape[1]]).sum(axis=1) / discounted_gain(self.ideal[: goal.k])
        elif goal.measure in ("recall", "precision"):
            value = (top > 0).sum(axis=1) / (len(self.ideal) if goal.measure == "recall" else goal.k)
        elif goal.measure == "MRR":
            value = ((gains > 0) / places).max(axis=1)
        else:
            value = ((gains > 0) * np.cumsum(gains > 0, axis=1) / places).sum(axis=1) / len(self.ideal)
        return np.asarray(value, dtype=np.float64)
