"""Measures of a ranking against graded judgments, as trec_eval defines them.

Results are ordered by score as trec_eval does it: in single precision, ties by id in descending order; a rank that came
with them is not looked at. What is not judged is not relevant, a grade of at least 1 is, gains are the grades, and a
query without a relevant context has 0 throughout. Sources: trec_eval 9.0 (github.com/usnistgov/trec_eval); Järvelin &
Kekäläinen 2002, ACM TOIS 20 (nDCG, with gain / log2(rank + 1)).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

MEASURES = ("nDCG", "recall", "precision", "MRR", "MAP")


def measure_names(k: int) -> list[str]:
    """Return the measures' names in reports.

    >>> measure_names(10)
    ['nDCG@10', 'recall@10', 'precision@10', 'MRR', 'MAP']
    """
    return [*(f"{name}@{k}" for name in MEASURES[:3]), *MEASURES[3:]]


def ordered(scores: Mapping[str, float]) -> list[str]:
    """Return the ids of scored results, best first.

    >>> ordered({"a": 0.5, "b": 0.5, "c": 0.9})
    ['c', 'b', 'a']
    """
    return sorted(scores, key=lambda name: (_single(scores[name]), name), reverse=True)


def _single(value: float) -> float:
    number: float = struct.unpack("f", struct.pack("f", value))[0]
    return number


def discounted_gain(gains: Sequence[int]) -> float:
    """Return the discounted cumulative gain of results in this order."""
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1) if gain > 0)


def ranking_measures(ids: Sequence[str], grades: Mapping[str, int], *, k: int) -> dict[str, float]:
    """Return the measures of one query's results, best first: nDCG, recall and precision at k, and of all of them
    the reciprocal rank (MRR is its mean) and the average precision (MAP).

    >>> ranking_measures(["b", "a"], {"a": 2, "c": 1}, k=10)["MRR"]
    0.5
    """
    gains = [max(0, grades.get(name, 0)) for name in ids]
    relevant = [rank for rank, gain in enumerate(gains, 1) if gain > 0]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    if not ideal:
        return dict.fromkeys(measure_names(k), 0.0)
    found = sum(rank <= k for rank in relevant)
    values = (
        discounted_gain(gains[:k]) / discounted_gain(ideal[:k]),
        found / len(ideal),
        found / k,
        1 / relevant[0] if relevant else 0.0,
        sum(place / rank for place, rank in enumerate(relevant, 1)) / len(ideal),
    )
    return dict(zip(measure_names(k), values, strict=True))
