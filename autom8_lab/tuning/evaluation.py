"""How good searches are: measures per query and overall, with intervals, and the differences between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue
from ..frames import frame
from ..statistics import bootstrap_mean_interval
from .judged import Judgments, Queries, data_hash
from .metrics import measure_names, ordered, ranking_measures
from .verdicts import difference_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Arrays = Mapping[tuple[str, str], NDArray[np.float64]]

Run = Mapping[str, Mapping[str, float]]  # the scores of the results, by query and context

OVERALL_COLUMNS = {
    "method": "str",
    "measure": "str",
    "queries": "int64",
    "mean": "float64",
    "low": "float64",
    "high": "float64",
}
DIFFERENCE_COLUMNS = {
    "method": "str",
    "against": "str",
    "measure": "str",
    "queries": "int64",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "verdict": "str",
}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How good some ways of searching are on judged queries.

    `overall` has a row per method and measure with a 95 % bootstrap interval over queries; `differences` a row per pair
    of methods and measure, the queries resampled in pairs; `per_query` the measures of each query. `notes` say what
    was left out. A method is the better one where the interval of the difference leaves out 0 and at least
    six queries differ.
    """

    overall: pd.DataFrame
    differences: pd.DataFrame
    per_query: pd.DataFrame
    k: int
    queries: int
    data_hash: str
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return the means, a row per method and a column per measure."""
        order = list(dict.fromkeys(self.overall["method"]))
        return self.overall.pivot(index="method", columns="measure", values="mean").loc[order, measure_names(self.k)]

    def __repr__(self) -> str:
        return "\n".join([self.table().round(4).to_string(), f"{self.queries} queries", *self.notes])

    def _repr_html_(self) -> str:
        import html

        table = self.table().round(4).to_html()
        return table + "".join(f"<p>{html.escape(line)}</p>" for line in (f"{self.queries} queries", *self.notes))


def evaluate(
    runs: Mapping[str, Run],
    queries: Queries,
    judgments: Judgments,
    *,
    k: int = 10,
    confidence: float = 0.95,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Judge runs: for each method the scores of its results by query and context.

    Queries without judgments are left out; a query without results counts with 0. Queries of the same text count
    once in the intervals.
    """
    import numpy as np

    judged = [query_id for query_id in queries if judgments.get(query_id)]
    if not judged:
        raise InvalidValue("none of the queries has a graded context: queries and judgments need the same query_ids")
    hopeless = sum(max(judgments[name].values()) <= 0 for name in judged)
    notes = [
        *notes,
        *_left_out(len(queries) - len(judged), "queries without judgments are left out"),
        *_left_out(hopeless, "queries have nothing relevant and count with 0"),
    ]
    values = {
        method: [ranking_measures(ordered(run.get(name, {})), judgments[name], k=k) for name in judged]
        for method, run in runs.items()
    }
    texts = [queries[name] for name in judged]
    arrays = {
        (method, measure): np.array([found[measure] for found in own])
        for method, own in values.items()
        for measure in measure_names(k)
    }
    return Evaluation(
        overall=_overall(arrays, texts, confidence),
        differences=_differences(arrays, texts, confidence),
        per_query=_per_query(runs, values, {name: queries[name] for name in judged}, k),
        k=k,
        queries=len(judged),
        data_hash=data_hash({name: [queries[name], judgments[name]] for name in judged}),
        notes=tuple(notes),
    )


def _per_query(
    runs: Mapping[str, Run], values: Mapping[str, Sequence[Mapping[str, float]]], queries: Queries, k: int
) -> pd.DataFrame:
    columns = {"query_id": "str", "query": "str", "method": "str", "results": "int64"}
    rows = [
        {"query_id": name, "query": text, "method": method, "results": len(run.get(name, {})), **found}
        for method, run in runs.items()
        for (name, text), found in zip(queries.items(), values[method], strict=True)
    ]
    return frame(rows, columns | dict.fromkeys(measure_names(k), "float64"))


def _overall(arrays: Arrays, texts: Sequence[str], confidence: float) -> pd.DataFrame:
    rows = [
        {"method": method, "measure": measure, **_mean(values, texts, confidence)}
        for (method, measure), values in arrays.items()
    ]
    return frame(rows, OVERALL_COLUMNS)


def _differences(arrays: Arrays, texts: Sequence[str], confidence: float) -> pd.DataFrame:
    methods, measures = (list(dict.fromkeys(names)) for names in zip(*arrays, strict=True))
    rows = [
        {
            "method": a,
            "against": b,
            "measure": measure,
            **_compared(arrays[a, measure] - arrays[b, measure], texts, confidence, a, b),
        }
        for a, b in combinations(methods, 2)
        for measure in measures
    ]
    return frame(rows, DIFFERENCE_COLUMNS)


def by_text(texts: Sequence[str], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values, those of queries of the same text averaged: they are no independent observations."""
    import numpy as np

    places: dict[str, list[float]] = {}
    for text, value in zip(texts, values.tolist(), strict=True):
        places.setdefault(text.strip().lower(), []).append(value)
    return np.array([sum(own) / len(own) for own in places.values()])


def _mean(values: NDArray[np.float64], texts: Sequence[str], confidence: float) -> dict[str, Any]:
    low, high = bootstrap_mean_interval(by_text(texts, values), confidence=confidence)
    return {"queries": values.size, "mean": float(values.mean()), "low": low, "high": high}


def _compared(
    differences: NDArray[np.float64], texts: Sequence[str], confidence: float, a: str, b: str
) -> dict[str, Any]:
    found = difference_of(by_text(texts, differences), confidence=confidence)
    verdict = {1: f"{a} better", -1: f"{b} better", 0: "cannot tell yet"}[found.sign]
    bounds = {"low": found.low, "high": found.high, "verdict": verdict}
    return {"queries": differences.size, "difference": float(differences.mean()), **bounds}


def _left_out(count: int, what: str) -> list[str]:
    return [f"{count} {what}"] if count else []
