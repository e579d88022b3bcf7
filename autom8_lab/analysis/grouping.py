"""Groups of calls: which rows belong together, and figures per group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidValue, did_you_mean
from ..frames import TIME
from ..ledger import LEDGER_COLUMNS
from ..records import Group, Measure

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


class Grouped:
    """Calls and what they are grouped by: `codes` has each call's group, `keys` columns of a value per group."""

    def __init__(self, calls: pd.DataFrame, groups: Sequence[Group]) -> None:
        import numpy as np

        self.calls = calls
        self.codes = np.zeros(len(calls), dtype=np.int64)
        self.count = min(len(calls), 1)
        self.keys: dict[str, Any] = {}
        for group in groups:
            codes, values = _coded(_key_column(calls, group))
            occupied, self.codes = _renumbered(self.codes * len(values) + codes, self.count * len(values))
            self.keys = {name: column.take(occupied // len(values)) for name, column in self.keys.items()}
            self.keys[group.label] = values.take(occupied % len(values))
            self.count = len(occupied)

    def figure(self, measure: Measure) -> FloatArray:
        """Return a measure of each group; the sum of nothing is NaN."""
        import numpy as np

        taking = np.ones(len(self.calls), dtype=bool)
        if measure.given:
            taking &= ~np.isnan(numbers(self.calls, measure.given))
        values = np.ones(len(self.calls))
        if measure.columns:
            values = numbers(self.calls, measure.columns[0])
            for name in measure.columns[1:]:
                values = np.where(np.isnan(values), numbers(self.calls, name), values)
            taking &= ~np.isnan(values)
        counts = np.bincount(self.codes[taking], minlength=self.count)
        if measure.function == "count":
            return counts.astype(np.float64)
        sums = np.bincount(self.codes[taking], weights=values[taking], minlength=self.count)
        return np.where(counts > 0, sums, np.nan)

    def parts(self, values: FloatArray) -> list[FloatArray]:
        """Return each group's values in ascending order, without those that are missing."""
        import numpy as np

        known = ~np.isnan(values)
        codes, values = self.codes[known], values[known]
        if self.count < 2**15:
            codes = codes.astype(np.int16)  # of which NumPy's stable sort is a radix sort
        values = values[np.argsort(codes, kind="stable")]
        ends = np.cumsum(np.bincount(codes, minlength=self.count))
        return [np.sort(part) for part in np.split(values, ends[:-1])] if self.count else []


def numbers(calls: pd.DataFrame, name: str) -> FloatArray:
    """Return a column as float64, NaN for nothing; a frame need not have every column."""
    import numpy as np

    if name not in calls:
        return np.full(len(calls), np.nan)
    column = calls[name]
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return cast("FloatArray", column.to_numpy(dtype=np.float64))
    return cast("FloatArray", column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))


def frame_dtypes(groups: Sequence[Group], figures: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of a frame, first what the groups become, with their dtypes. Raises `InvalidValue`."""
    for group in groups:
        if group.label in figures:
            raise InvalidValue(f"by={group.label!r} is a figure of the frame itself: group by another column")
    keys = {
        group.label: TIME if group.freq else "str" if group.key is not None else LEDGER_COLUMNS[group.column]
        for group in groups
    }
    return {**keys, **figures}


def ordered(frame: pd.DataFrame, groups: Sequence[Group], *, first: Mapping[str, bool] | None = None) -> pd.DataFrame:
    """Sort by `first` (column: ascending), then by the groups, what is missing last; the index counts from 0."""
    names = {**(first or {}), **{group.label: True for group in groups}}
    if not names:
        return frame
    return frame.sort_values(list(names), ascending=list(names.values()), ignore_index=True, kind="stable")


def _key_column(calls: pd.DataFrame, group: Group) -> Any:
    if group.label in calls:
        return calls[group.label]
    if group.column not in calls:
        raise InvalidValue(f"the frame has no column {group.column!r}{did_you_mean(group.column, calls.columns)}")
    column = calls[group.column]
    return _periods(column, str(group.freq)) if group.freq else column.map(lambda values: _json_text(values, group.key))


def _periods(at: Any, freq: str) -> Any:
    import pandas as pd

    times = at.dt.tz_convert("UTC")
    if freq == "h":
        return times.dt.floor("h")
    days = times.dt.normalize()
    if freq == "D":
        return days
    back = days.dt.day_of_week if freq == "W" else days.dt.day - 1
    return days - pd.to_timedelta(back, unit="D").astype("timedelta64[us]")


def _json_text(values: Any, key: str | None) -> str | None:
    value = values.get(key) if isinstance(values, Mapping) else None
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _coded(column: Any) -> tuple[NDArray[np.int64], Any]:
    """Return a code per row, and the values they stand for, the last of them what is missing."""
    import numpy as np
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(dtype=np.int64), pd.Series(column.cat.categories)
    else:
        codes, found = pd.factorize(column)
        codes, values = codes.astype(np.int64), pd.Series(found)
    values = values.astype("boolean") if values.dtype == bool else values
    values = values.reindex(range(len(values) + 1))
    return np.where(codes < 0, len(values) - 1, codes), values.array


def _renumbered(codes: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes that occur, ascending, and for each row the place of its own among them."""
    import numpy as np

    if size > 10_000_000:
        occupied, places = np.unique(codes, return_inverse=True)
        return occupied, places
    occurs = np.bincount(codes, minlength=size) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[codes]
