"""Rows to DataFrames with fixed columns and dtypes, also when there are no rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import pandas as pd

TIME = "datetime64[us, UTC]"
PLAIN = ("int64", "bool")


def frame(
    rows: Sequence[Mapping[str, Any]], dtypes: Mapping[str, str], *, attrs: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Build a frame of exactly the columns in `dtypes`, in that order and of those dtypes.

    Keys that `dtypes` does not name are left out; a missing key becomes a missing value.

    >>> frame([], {"context_id": "str", "score": "float64"}).dtypes.astype(str).to_dict()
    {'context_id': 'str', 'score': 'float64'}
    """
    import pandas as pd

    columns = {name: _array([row.get(name) for row in rows], dtype) for name, dtype in dtypes.items()}
    result = pd.DataFrame(columns, copy=False)
    result.attrs.update(attrs or {})
    return result


def column_frame(
    columns: Mapping[str, Any], dtypes: Mapping[str, str], *, attrs: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Do what `frame` does for columns: arrays, lists or pandas categoricals; times are aware, or UTC without a zone.

    >>> column_frame({"model": ["m"], "calls": [1]}, {"calls": "int64", "model": "str"}).columns.tolist()
    ['calls', 'model']
    """
    import pandas as pd

    length = max((len(column) for column in columns.values()), default=0)
    result = pd.DataFrame(
        {name: _column(columns[name] if name in columns else [None] * length, dtypes[name]) for name in dtypes}
    )
    result.attrs.update(attrs or {})
    return result


def _column(values: Any, dtype: str) -> pd.Series[Any]:
    import pandas as pd

    if isinstance(values, list | tuple):
        return pd.Series(_array(list(values), dtype))
    series: pd.Series[Any] = pd.Series(values).reset_index(drop=True)
    if dtype == TIME and not isinstance(series.dtype, pd.DatetimeTZDtype):
        return series.astype("datetime64[us]").dt.tz_localize("UTC")
    if dtype == "boolean" and series.dtype.kind == "f":
        return series.astype("Float64").astype("boolean")
    return series.astype(cast("Any", dtype))


def _array(values: list[Any], dtype: str) -> Any:
    """Return the values as an array of a dtype, without the detours of a Series: a search makes twenty of them."""
    import numpy as np
    import pandas as pd

    if dtype == "object":
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    if dtype == TIME:
        if all(value is None or (isinstance(value, datetime) and value.tzinfo is UTC) for value in values):
            # What the lab returns; pandas takes four times as long to find out.
            naive = [None if value is None else value.replace(tzinfo=None) for value in values]
            return pd.DatetimeIndex(np.array(naive, dtype="datetime64[us]"), tz="UTC").array
        return pd.to_datetime(pd.Series(values, dtype="object"), utc=True).astype(cast("Any", TIME)).array
    if dtype == "float64":
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.array(values, dtype) if dtype in PLAIN else pd.array(cast("Any", values), dtype=_dtype(dtype))


@cache
def _dtype(name: str) -> Any:
    """Return pandas' dtype of a name, which it would parse anew for each column."""
    import pandas as pd

    return pd.api.types.pandas_dtype(name)
