"""Which weights rank best: all settings measured on the same judged queries, the best one told from what is in force."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue
from ..frames import frame
from ..recommendation import Binding, Evidence, Recommendation
from ..records import Fusion, Ranking
from .candidates import Candidates, Goal
from .evaluation import by_text
from .verdicts import Difference, best_of, more_needed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FOLDS = 5
FEWEST_QUERIES = 10
TEXT_WEIGHTS = tuple(step / 20 for step in range(21))
FUSIONS: tuple[Fusion, ...] = ("scores", "rrf")
DEPTHS = (50, 100, 200)
COLUMN_WEIGHTS = ({"topic": 0.0}, {"topic": 3.0}, {"summary": 0.0}, {"summary": 3.0}, {"topic": 3.0, "summary": 3.0})

SETTINGS_COLUMNS = {
    "setting": "str",
    "fusion": "str",
    "text_weight": "float64",
    "text_column_weights": "object",
    "candidates": "Int64",
    "chunk_tokens": "Int64",
    "mean": "float64",
    "better_by": "float64",
    "in_force": "bool",
}


def grid(in_force: Ranking, *, columns: Sequence[Mapping[str, float]]) -> list[Ranking]:
    """Return the rankings to compare, what is in force first; `columns` are column weights besides those in force."""
    depths = sorted({*DEPTHS, in_force.candidates})
    weights = sorted({*TEXT_WEIGHTS, in_force.text_weight})
    variants = [in_force.text_column_weights, *(own for own in columns if own != in_force.text_column_weights)]
    tried = [
        Ranking(fusion, weight, own, depth)
        for own, fusion, depth, weight in product(variants, FUSIONS, depths, weights)
    ]
    others = [ranking for ranking in tried if ranking != in_force]
    # Of rankings that are equally good the first is chosen: the one that changes the least.
    return [in_force, *sorted(others, key=lambda ranking: len(changes(ranking, in_force)))]


def changes(ranking: Ranking, in_force: Ranking) -> dict[str, Any]:
    """Return what a ranking changes, by the settings' names.

    >>> changes(Ranking(text_weight=0.6), Ranking())
    {'text_weight': 0.6}
    """
    old = plain(in_force)
    return {name: value for name, value in plain(ranking).items() if value != old[name]}


def measured(rankings: Sequence[Ranking], candidates: Mapping[str, Sequence[Candidates]], goal: Goal) -> Floats:
    """Return each ranking's measure for each query; `candidates` are the queries' by `column_key`."""
    import numpy as np

    rows: dict[int, Floats] = {}
    places = sorted(range(len(rankings)), key=lambda place: _searched(rankings[place]))
    for (columns, fusion, depth), group in groupby(places, key=lambda place: _searched(rankings[place])):
        own = list(group)
        weights = np.array([rankings[place].text_weight for place in own])
        queries = candidates[columns]
        values = [item.measure(item.scores(weights, fusion=fusion, depth=depth), goal) for item in queries]
        for place, row in zip(own, np.array(values).T, strict=True):
            rows[place] = row
    return np.array([rows[place] for place in range(len(rankings))])


def column_key(weights: Mapping[str, float]) -> str:
    """Return a name of column weights: the same weights have the same name."""
    return repr(sorted((name, float(value)) for name, value in weights.items() if value != 1.0))


def _searched(ranking: Ranking) -> tuple[str, str, int]:
    return column_key(ranking.text_column_weights), ranking.fusion, ranking.candidates


def recommend(
    settings: Sequence[Mapping[str, Any]],
    values: Floats,
    texts: Sequence[str],
    goal: Goal,
    *,
    bound_to: Binding,
    now: datetime,
    data_hash: str,
    confidence: float = 0.95,
    seed: int = 0,
    notes: Sequence[str] = (),
    hint: str = "",
) -> Recommendation:
    """Recommend one of the settings by their measures per query; the first is all of what is in force, others change it.

    The estimate is cross-validated: each fifth of the queries is measured with what the others choose. The interval
    holds for all settings at once (`verdicts.best_of`). Both have to be above zero. Queries of the same text count once.
    """
    import numpy as np

    distinct = np.array([by_text(texts, row) for row in values])
    n = distinct.shape[1]
    place, gain = best_of(distinct - distinct[0], confidence=confidence, seed=seed)
    held_out = cross_validated(distinct, seed) if n >= FEWEST_QUERIES else None
    table = _table(settings, distinct)
    chosen = {} if not place else dict(settings[place])
    verdict, because = _verdict(place, gain, held_out, n, goal)
    if verdict == "keep":
        chosen = {}
    in_force, best = float(distinct[0].mean()), float(distinct[place or 0].mean())
    details = {"in_force": in_force, "best_on_all_queries": best, "settings_tried": len(settings), "folds": FOLDS}
    known = held_out is not None and not math.isnan(gain.low)
    evidence = Evidence(
        sample_size=n,
        metric=f"{goal.name} gained",
        estimate=held_out,
        low=gain.low if known else None,
        high=gain.high if known else None,
        held_out=held_out is not None,
        data_hash=data_hash,
        details=details,
    )
    said = " ".join([because, *([hint] if hint and verdict == "recommend" else []), *(f"{note}." for note in notes)])
    tables = {"settings": table}
    return Recommendation("search", chosen, verdict, said, evidence, bound_to, created_at=now, tables=tables)


def _verdict(place: int | None, gain: Difference, held_out: float | None, n: int, goal: Goal) -> tuple[Any, str]:
    if held_out is None:
        return "cannot tell yet", f"{n} queries are too few: at least {FEWEST_QUERIES} with judgments are needed."
    if place is None:
        return "keep", f"no setting changes the {goal.name} of any query."
    found = f"on {n} queries it gains {held_out:.4f} {goal.name} out of fold, [{gain.low:.4f}, {gain.high:.4f}] over all tried"
    if gain.sign > 0 and held_out > 0:
        return "recommend", f"{found}."
    if held_out <= 0 or gain.mean <= 0:
        return "keep", f"out of fold the best setting gains {held_out:.4f} {goal.name} on {n} queries."
    more = more_needed(gain)
    return "cannot tell yet", f"{found}" + (f"; about {more:,} more judged queries would tell." if more else ".")


def cross_validated(values: Floats, seed: int) -> float:
    """Return the mean gain over the first row of what the other folds' queries choose."""
    import numpy as np

    n = values.shape[1]
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    gained = np.empty(n)
    for number in range(FOLDS):
        own = fold == number
        best = int(values[:, ~own].mean(axis=1).argmax())
        gained[own] = values[best, own] - values[0, own]
    return float(gained.mean())


def _table(settings: Sequence[Mapping[str, Any]], values: Floats) -> pd.DataFrame:
    means = values.mean(axis=1)
    rows = [
        {
            **settings[0],
            **own,
            "setting": _name(own) if place else "in force",
            "mean": mean,
            "better_by": mean - means[0],
            "in_force": place == 0,
        }
        for place, (own, mean) in enumerate(zip(settings, means.tolist(), strict=True))
    ]
    rows.sort(key=lambda row: (-row["mean"], not row["in_force"], row["setting"]))
    return frame(rows, SETTINGS_COLUMNS)


def _name(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def plain(ranking: Ranking) -> dict[str, Any]:
    """Return a ranking as settings by name."""
    return asdict(ranking)


def refuse_without(grades: Sequence[Mapping[str, int]]) -> None:
    """Raise `InvalidValue` where no query has anything relevant."""
    if not any(grade > 0 for own in grades for grade in own.values()):
        raise InvalidValue("none of the queries has a relevant context: judge some with al.judge(), grade 1 or higher")
