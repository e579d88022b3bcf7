"""Whether what the file derives from the ledger agrees with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..entries import TOKENS
from ..frames import frame
from ..ledger import COST
from .grouping import Grouped, numbers

if TYPE_CHECKING:
    from ..storage import Storage

VIEW = "model_performance"
DIFFERENCE_COLUMNS = {"model": "str", "operation": "str", "figure": "str", "view": "object", "ledger": "object"}


def view_differences(storage: Storage) -> Any:
    """Return where the view `model_performance` differs from what the ledger's rows add up to: no rows if nowhere."""
    from ..ledger import groups
    from .of_lab import calls_frame

    names = ["at", "success", *TOKENS[:2], *COST, "latency_ms", "quality_score"]
    by = groups(["model", "operation"], None)
    grouped = Grouped(calls_frame(storage, names, by, ()), by)
    ledger = {name: place for place, name in enumerate(zip(*grouped.keys.values(), strict=True))}
    figures = _figures(grouped)
    view = {(row["model"], row["operation"]): row for row in storage.rows(VIEW)}
    found = []
    for name in sorted(ledger.keys() | view.keys()):
        for figure, values in figures.items():
            derived = view[name][figure] if name in view else None
            counted = values[ledger[name]] if name in ledger else None
            if not _equal(derived, counted):
                row = {"model": name[0], "operation": name[1], "figure": figure, "view": derived, "ledger": counted}
                found.append(row)
    return frame(found, DIFFERENCE_COLUMNS)


def _figures(grouped: Grouped) -> dict[str, Any]:
    import numpy as np

    calls = grouped.calls.groupby(grouped.codes)
    cost = np.where(
        np.isnan(numbers(grouped.calls, COST[0])), numbers(grouped.calls, COST[1]), numbers(grouped.calls, COST[0])
    )
    costs = grouped.calls.assign(cost=cost).groupby(grouped.codes)["cost"]
    return {
        "calls": calls.size().tolist(),
        "success_rate": calls["success"].mean().tolist(),
        **{name: calls[name].sum(min_count=1).tolist() for name in TOKENS[:2]},
        "cost_usd": costs.sum(min_count=1).tolist(),
        "unpriced_calls": (calls.size() - costs.count()).tolist(),
        "latency_ms_mean": calls["latency_ms"].mean().tolist(),
        "quality_mean": calls["quality_score"].mean().tolist(),
        "first_at": calls["at"].min().tolist(),
        "last_at": calls["at"].max().tolist(),
    }


def _equal(a: Any, b: Any) -> bool:
    missing = [value is None or value != value for value in (a, b)]
    if any(missing):
        return all(missing)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return bool(a == b)
