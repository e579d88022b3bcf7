"""Rows to DataFrames with fixed columns and dtypes, also when there are no rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import pandas as pd

TIME = "datetime64[us, UTC]"


def frame(
    rows: Sequence[Mapping[str, Any]], dtypes: Mapping[str, str], *, attrs: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Build a frame of exactly the columns in `dtypes`, in that order and of those dtypes.

    Keys that `dtypes` does not name are left out; a missing key becomes a missing value.

    >>> frame([], {"context_id": "str", "score": "float64"}).dtypes.astype(str).to_dict()
    {'context_id': 'str', 'score': 'float64'}
    """
    import pandas as pd

    columns = {name: _series([row.get(name) for row in rows], dtype) for name, dtype in dtypes.items()}
    result = pd.DataFrame(columns)
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
        return _series(list(values), dtype)
    series: pd.Series[Any] = pd.Series(values).reset_index(drop=True)
    if dtype == TIME and not isinstance(series.dtype, pd.DatetimeTZDtype):
        return series.astype("datetime64[us]").dt.tz_localize("UTC")
    if dtype == "boolean" and series.dtype.kind == "f":
        return series.astype("Float64").astype("boolean")
    return series.astype(cast("Any", dtype))


def _series(values: list[Any], dtype: str) -> pd.Series[Any]:
    import pandas as pd

    series: pd.Series[Any] = pd.Series(values, dtype="object")
    if dtype == TIME:
        series = pd.to_datetime(series, utc=True)
    return series.astype(cast("Any", dtype))
