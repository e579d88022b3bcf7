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


def _series(values: list[Any], dtype: str) -> pd.Series[Any]:
    import pandas as pd

    series: pd.Series[Any] = pd.Series(values, dtype="object")
    if dtype == TIME:
        series = pd.to_datetime(series, utc=True)
    return series.astype(cast("Any", dtype))
