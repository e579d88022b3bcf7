"""How likely a result is relevant, and from which probability on it is worth showing: nothing may be an answer.

A fused score is relative to the query's best and says nothing across queries. Similarity, BM25 per term of the query
and the fused score together do: a logistic regression over judged results, measured on queries that it has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ..frames import frame
from ..recommendation import Binding, Evidence, Recommendation
from ..records import Ranking
from .calibration import FOLDS, expected_calibration_error, folds_of, logistic, reliability
from .candidates import Candidates
from .evaluation import by_text
from .ranking import FEWEST_QUERIES, cross_validated, plain
from .verdicts import Difference, best_of, more_needed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEATURES = ("similarity", "text_score_per_term", "score")
MEASURE = "F1 per query gained"
MOST_CUTOFFS = 100
FEWEST_OF_A_KIND = 10

CUTOFF_COLUMNS = {
    "cutoff": "float64",
    "shown_per_query": "float64",
    "precision": "float64",
    "recall": "float64",
    "empty_when_nothing": "float64",
    "empty_when_something": "float64",
    "f1_per_query": "float64",
}


class Results(NamedTuple):
    """The first k results of judged queries: features, whether relevant, the query's place, and how many there are."""

    features: Floats
    right: NDArray[np.bool_]
    query: NDArray[np.int64]
    relevant: NDArray[np.int64]  # of each query, found or not


def results_of(candidates: Sequence[Candidates], ranking: Ranking, k: int) -> Results:
    """Return what a ranking shows first for each query."""
    import numpy as np

    rows, right, query = [], [], []
    for place, item in enumerate(candidates):
        if not len(item.ids):
            continue
        weight = np.array([ranking.text_weight])
        scores = item.scores(weight, fusion=ranking.fusion, depth=ranking.candidates)[0]
        for best in np.argsort(-scores, kind="stable")[:k]:
            if np.isfinite(scores[best]):
                rows.append((item.near[best], item.text[best] / item.terms, scores[best]))
                right.append(item.gains[best] > 0)
                query.append(place)
    relevant = np.array([len(item.ideal) for item in candidates], dtype=np.int64)
    features = np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES))
    return Results(features, np.array(right, dtype=bool), np.array(query, dtype=np.int64), relevant)


def fit(features: Floats, right: NDArray[np.bool_]) -> dict[str, float]:
    """Return the intercept and the weight of each feature, of a lightly penalised logistic regression."""
    import numpy as np

    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = logistic((features - centre) / spread, right, strength=10.0)
    weights = model.coef_[0] / spread
    intercept = float(model.intercept_[0]) - float(weights @ centre)
    return {"intercept": intercept, **dict(zip(FEATURES, weights.tolist(), strict=True))}


def probabilities(features: Floats, model: Mapping[str, float]) -> Floats:
    """Return how likely each result is relevant; the same as `records.Relevance.probability` one by one."""
    import numpy as np

    logits = model["intercept"] + features @ np.array([model[name] for name in FEATURES])
    result: Floats = 1 / (1 + np.exp(-logits))
    return result


def recommend_cutoff(
    candidates: Sequence[Candidates],
    texts: Sequence[str],
    ranking: Ranking,
    *,
    k: int,
    bound_to: Binding,
    now: datetime,
    data_hash: str,
    confidence: float = 0.95,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Recommendation:
    """Recommend from which probability on results are shown, against showing the first k of every query.

    The measure is F1 of what is shown, per query: 1 for nothing where nothing is relevant. All probabilities are out of
    fold by query, and so is the gain, the cutoff chosen on the other queries; the interval holds for all cutoffs at once. Tables: "cutoffs", "reliability".
    """
    import numpy as np

    results = results_of(candidates, ranking, k)
    refusal = _useless(results, len(set(texts)))
    if refusal:
        evidence = Evidence(len(texts), MEASURE, None, None, None, held_out=False, data_hash=data_hash)
        return Recommendation("search", {}, "cannot tell yet", refusal, evidence, bound_to, created_at=now)
    predicted = _out_of_fold(results, texts, seed)
    cutoffs = np.concatenate([[0.0], np.unique(np.quantile(predicted, np.linspace(0, 1, MOST_CUTOFFS)))])
    each = np.array([_f1_per_query(predicted >= cutoff, results) for cutoff in cutoffs])
    distinct = np.array([by_text(texts, row) for row in each])
    place, gain = best_of(distinct - distinct[0], confidence=confidence, seed=seed)
    table = _cutoff_table(cutoffs, predicted, results, each)
    held_out = cross_validated(distinct, seed)
    verdict, because = _verdict(table, place, gain, held_out)
    chosen = {**fit(results.features, results.right), "cutoff": float(cutoffs[place or 0]), "ranking": plain(ranking)}
    evidence = Evidence(
        sample_size=gain.n,
        metric=MEASURE,
        estimate=held_out,
        low=None if math.isnan(gain.low) else gain.low,
        high=None if math.isnan(gain.high) else gain.high,
        held_out=True,
        data_hash=data_hash,
        details={
            "ece": expected_calibration_error(predicted, results.right),
            "auc": _auc(predicted, results.right),
            "queries_with_nothing_relevant": int((results.relevant == 0).sum()),
            "results_per_query": k,
        },
    )
    tables = {"cutoffs": table, "reliability": reliability(predicted, results.right, method="logistic")}
    values = {} if verdict == "keep" else {"relevance": chosen}
    said = " ".join([because, *(f"{note}." for note in notes)])
    return Recommendation("search", values, verdict, said, evidence, bound_to, created_at=now, tables=tables)


def _useless(results: Results, queries: int) -> str | None:
    positives = int(results.right.sum())
    fewest = min(positives, results.right.size - positives)
    if queries < FEWEST_QUERIES:
        return f"{queries} queries are too few: at least {FEWEST_QUERIES} with judgments are needed."
    if fewest < FEWEST_OF_A_KIND:
        return f"{positives} of {results.right.size} results are relevant: at least {FEWEST_OF_A_KIND} of each kind are needed."
    return None


def _out_of_fold(results: Results, texts: Sequence[str], seed: int) -> Floats:
    """Return each result's probability from a fit that has not seen its query."""
    import numpy as np

    units = [texts[place].strip().lower() for place in results.query]
    fold = folds_of(results.right, units=units, seed=seed)
    predicted = np.empty(results.right.size)
    for number in range(FOLDS):
        model = fit(results.features[fold != number], results.right[fold != number])
        predicted[fold == number] = probabilities(results.features[fold == number], model)
    return predicted


def _per_query(chosen: NDArray[np.bool_], results: Results) -> Floats:
    import numpy as np

    return np.bincount(results.query[chosen], minlength=results.relevant.size).astype(np.float64)


def _f1_per_query(shown: NDArray[np.bool_], results: Results) -> Floats:
    """Return F1 of what is shown, per query; where nothing is relevant 1 for showing nothing, else 0."""
    import numpy as np

    total, right = _per_query(shown, results), _per_query(shown & results.right, results)
    something = total + results.relevant
    return np.where(something > 0, 2 * right / np.maximum(something, 1), 1.0)


def _cutoff_table(cutoffs: Floats, predicted: Floats, results: Results, each: Floats) -> pd.DataFrame:
    import numpy as np

    nothing = results.relevant == 0
    rows = []
    for cutoff, f1 in zip(cutoffs.tolist(), each, strict=True):
        shown = predicted >= cutoff
        total, right = _per_query(shown, results), _per_query(shown & results.right, results)
        with np.errstate(invalid="ignore"):
            shares = {
                "shown_per_query": total.mean(),
                "precision": np.divide(right.sum(), total.sum()),
                "recall": np.divide(right.sum(), results.relevant.sum()),
                "empty_when_nothing": np.divide((total[nothing] == 0).sum(), nothing.sum()),
                "empty_when_something": np.divide((total[~nothing] == 0).sum(), (~nothing).sum()),
            }
        rows.append({"cutoff": cutoff, "f1_per_query": float(f1.mean()), **shares})
    return frame(rows, CUTOFF_COLUMNS)


def _verdict(table: pd.DataFrame, place: int | None, gain: Difference, held_out: float) -> tuple[Any, str]:
    row, first = table.iloc[place or 0], table.iloc[0]
    found = f"F1 per query is {row['f1_per_query']:.3f} with the cutoff and {first['f1_per_query']:.3f} without"
    if not place or gain.mean <= 0 or held_out <= 0:
        return "keep", "no cutoff is better than none."
    bounds = f"{held_out:.3f} more out of fold, [{gain.low:.3f}, {gain.high:.3f}] over all tried"
    empty = f"{row['empty_when_something']:.0%} of the queries with an answer come back empty"
    if not math.isnan(row["empty_when_nothing"]):
        empty = f"{row['empty_when_nothing']:.0%} of the queries without one, and {empty}"
    if gain.sign > 0:
        return "recommend", f"{found}: {bounds}; {empty}."
    more = more_needed(gain)
    return "cannot tell yet", f"{found}: {bounds}" + (
        f"; about {more:,} more judged queries would tell." if more else "."
    )


def _auc(predicted: Floats, right: NDArray[np.bool_]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(right, predicted))
