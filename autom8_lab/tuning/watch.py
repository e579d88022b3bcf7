"""Watching one lab: what its ledger and its searches measure now and before, and which applied thresholds that touches."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from ..access import AccessLog
from ..applied import AppliedSettings
from ..errors import InvalidValue, did_you_mean
from ..ledger import COST, CallFilters, conditions, groups
from ..ledger import TABLE as LEDGER
from ..recommendation import Binding
from ..records import Condition
from ..storage.base import Coded
from ..validation import moment, shortened
from .drift import Sample, drift

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..storage import Storage

MEASURES = ("cost_usd", "latency_ms", "quality", "similarity", "success_rate")
COLUMNS_OF = {
    "latency_ms": ("latency_ms",),
    "quality": ("quality_score",),
    "success_rate": ("success",),
    "cost_usd": COST,
}
SEARCHES = "searches"
FEWEST_SEARCHES = 50
MOST_SEARCHES = 1_000
# Kolmogorov and Smirnov's critical value for one false alarm in a thousand looks.
CRITICAL = 1.95


class DriftFilters(TypedDict, total=False):
    """Which calls are looked at, whenever they were: see `CallFilters`."""

    provider: str | Sequence[str] | None
    model: str | Sequence[str] | None
    operation: str | Sequence[str] | None
    agent: str | Sequence[str] | None
    source: str | Sequence[str] | None
    metadata: Mapping[str, Any] | None


class Watch:
    """Reads one lab's measures over time."""

    def __init__(
        self, storage: Storage, access: AccessLog, applied: AppliedSettings, *, clock: Callable[[], datetime]
    ) -> None:
        self._storage = storage
        self._access = access
        self._applied = applied
        self._clock = clock

    def drift(
        self, since: Any, *, reference: Any, measures: Sequence[str], by: str | None, filters: Mapping[str, Any]
    ) -> pd.DataFrame:
        """See `Lab.drift_df`."""
        now = self._clock()
        start = moment(since, "since", now=now)
        begin = None if reference is None else moment(reference, "reference", now=now)
        if begin is not None and begin >= start:
            raise InvalidValue(
                f"reference={shortened(reference)} is not before since={shortened(since)}: give an earlier time"
            )
        wanted = [measures] if isinstance(measures, str) else list(measures)
        for name in wanted:
            if name not in MEASURES:
                raise InvalidValue(f"measure {name!r}{did_you_mean(str(name), MEASURES)}")
        samples = self._calls([name for name in wanted if name != "similarity"], begin, by, filters)
        if "similarity" in wanted and not filters:
            samples += self._searches(begin)
        return drift(samples, since=start)

    def _calls(
        self, measures: Sequence[str], begin: datetime | None, by: str | None, filters: Mapping[str, Any]
    ) -> list[Sample]:
        import numpy as np

        if not measures:
            return []
        asked = dict(filters) if begin is None else {**filters, "since": begin}
        where = conditions(now=self._clock(), filters=asked, known=CallFilters.__annotations__)
        chosen = groups(by, None) if by else []
        keys = [group for group in chosen if group.key is not None]
        plain = [group.column for group in chosen if group.key is None]
        names = dict.fromkeys(["at", *(column for name in measures for column in COLUMNS_OF[name]), *plain])
        found = self._storage.columns(LEDGER, list(names), keys=keys, where=where, order_by=["at"])
        times: Any = found["at"]
        groups_of_rows = _groups(found[chosen[0].label]) if chosen else {"all": np.ones(len(times), dtype=bool)}
        samples = []
        for name in measures:
            columns: list[Any] = [found[column] for column in COLUMNS_OF[name]]
            values = columns[0]
            for other in columns[1:]:
                values = np.where(np.isnan(values), other, values)
            for label, rows in groups_of_rows.items():
                own = rows & ~np.isnan(values)
                if own.any():
                    samples.append(Sample(name, label, times[own], values[own]))
        return samples

    def _searches(self, begin: datetime | None) -> list[Sample]:
        times, values = self._top_similarities([] if begin is None else [Condition("at", ">=", begin)])
        return [Sample("similarity", SEARCHES, times, values)] if len(values) else []

    def _top_similarities(self, where: Sequence[Condition], *, limit: int | None = None) -> tuple[Any, Any]:
        self._access.flush()
        searches = [Condition("kind", "=", "search"), Condition("top_similarity", "is not null"), *where]
        found = self._storage.columns(
            "access_log", ["at", "top_similarity"], where=searches, order_by=["-at"], limit=limit
        )
        return found["at"][::-1], found["top_similarity"][::-1]

    def to_tune_again(self) -> list[str]:
        """Return a sentence for each applied setting that no longer fits: other vectors, or searches unlike its labels.

        Quick: it reads at most the last thousand searches. A search threshold that was tuned on judged searches is
        compared with the distribution of their scores; one that was tuned on anything else, with the searches before.
        """
        now, remarks = self._applied.binding(), []
        for name, entry in sorted(self._applied.in_force().items()):
            meant = Binding(**entry["evidence"]["bound_to"])
            if meant.embedding_model is not None and now not in (meant, Binding()):
                remarks.append(f"{name} was chosen for {meant}, and the lab's vectors are {now}")
            elif name == "similarity_threshold" and (told := self._moved(entry)):
                remarks.append(f"{name}: {told}")
        return remarks

    def _moved(self, entry: Mapping[str, Any]) -> str | None:
        since = Condition("at", ">", entry["at"])
        recent = sorted(self._top_similarities([since], limit=MOST_SEARCHES)[1])
        details = entry["evidence"]["evidence"]["details"]
        if details.get("origin") == "searches":
            before, n, what = details["score_quantiles"], int(details["labels"]), "those it was tuned on"
        else:
            earlier = Condition("at", "<=", entry["at"])
            before = sorted(self._top_similarities([earlier], limit=MOST_SEARCHES)[1])
            n, what = len(before), "those before"
        if min(len(recent), n) < FEWEST_SEARCHES:
            return None
        apart = _distance(before, recent)
        if apart <= CRITICAL * math.sqrt((n + len(recent)) / (n * len(recent))):
            return None
        middle = [part[len(part) // 2] for part in (recent, before)]
        return (
            f"the last {len(recent)} searches are not like {what} (median similarity {middle[0]:.2f} against "
            f"{middle[1]:.2f}, distance {apart:.2f})"
        )


def _groups(column: Any) -> dict[str, NDArray[np.bool_]]:
    """Return the rows of each value of a column of texts, by value; rows without one belong to none."""
    if isinstance(column, Coded):
        return {
            column.values[code]: column.codes == code
            for code in sorted(range(len(column.values)), key=column.values.__getitem__)
        }
    return {
        str(value): column == value for value in sorted({item for item in column.tolist() if item is not None}, key=str)
    }


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest difference of two distribution functions, given ascending values; without NumPy, for `health`.

    >>> _distance([1.0, 2.0], [2.0, 3.0])
    0.5
    """
    places = [*one, *other]
    return max(abs(bisect_right(one, x) / len(one) - bisect_right(other, x) / len(other)) for x in places)
