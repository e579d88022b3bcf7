"""The cost-quality plane: what no model beats in both, what mixing reaches, and the average quality over cost (AIQ)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..errors import InvalidValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

Normalisation = Literal["paper", "code"]


def pareto_frontier(cost: ArrayLike, quality: ArrayLike) -> list[int]:
    """Return the positions of the points that no other beats in one and equals in the other, the cheapest first.

    Of equal points the first counts. Raises `InvalidValue` for missing values.

    >>> pareto_frontier([1, 2, 3, 3], [0.5, 0.4, 0.9, 0.8])
    [0, 2]
    """
    return _frontier(*_points(cost, quality))


def _frontier(costs: FloatArray, qualities: FloatArray) -> list[int]:
    import numpy as np

    best, kept, heights = -np.inf, [], qualities.tolist()
    for place in np.lexsort((-qualities, costs)).tolist():
        if heights[place] > best:
            best = heights[place]
            kept.append(place)
    return kept


def non_decreasing_hull(cost: ArrayLike, quality: ArrayLike) -> FloatArray:
    """Return the corners (cost, quality) of the non-decreasing upper convex hull, shape (corners, 2), cheapest first.

    Drawing lots between two points reaches every point between them, so this is what a set of models or policies can
    do at each cost. Source: RouterBench (Hu et al. 2024, arXiv:2403.12031), section 3; monotone chain (Andrew 1979).

    >>> non_decreasing_hull([0, 1, 2, 4], [0.2, 0.3, 0.8, 0.6]).tolist()
    [[0.0, 0.2], [2.0, 0.8]]
    """
    import numpy as np

    costs, qualities = _points(cost, quality)
    corners: list[tuple[float, float]] = []
    for place in _frontier(costs, qualities):
        x, y = float(costs[place]), float(qualities[place])
        # A corner below the line from the one before it to the new point is no corner.
        while len(corners) > 1 and _rises_more(corners[-2], corners[-1], (x, y)):
            corners.pop()
        corners.append((x, y))
    return np.array(corners, dtype=np.float64)


def _rises_more(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (c[1] - b[1]) * (b[0] - a[0]) >= (b[1] - a[1]) * (c[0] - b[0])


def hull_area(hull: FloatArray, low: float, high: float) -> float:
    """Return the integral of a hull over costs from `low` to `high`; after its last corner it goes on flat.

    NaN where `low` lies before its first corner: no mixture is that cheap.
    """
    import numpy as np

    if low < hull[0, 0] - 1e-12 * max(1.0, abs(low)) or high < low:
        return float("nan")
    inner = hull[(hull[:, 0] > low) & (hull[:, 0] < high), 0]
    costs = np.concatenate([[low], inner, [high]])
    heights = np.interp(costs, hull[:, 0], hull[:, 1])
    return float((costs[1:] - costs[:-1]) @ (heights[1:] + heights[:-1])) / 2


def aiq(
    cost: ArrayLike,
    quality: ArrayLike,
    *,
    normalise: Normalisation = "paper",
    cost_range: tuple[float, float] | None = None,
) -> float:
    """Return the average improvement in quality, AIQ: the mean height of the hull of a router's points over cost.

    "paper" divides the integral over the cost range by its length; "code" is what RouterBench's program computes: the
    integral from the router's own cheapest point to the range's end, divided by that end. `cost_range` (low, high)
    makes several routers comparable; without it, it is that of the points. NaN where the range has no length.
    Raises `InvalidValue`. Source: RouterBench (Hu et al. 2024, arXiv:2403.12031), section 3, and its repository.

    >>> aiq([0, 2], [0.0, 1.0]), aiq([1, 2], [0.5, 1.0], normalise="code")
    (0.5, 0.375)
    """
    costs, qualities = _points(cost, quality)
    if normalise not in ("paper", "code"):
        raise InvalidValue(f"normalise={normalise!r}: give 'paper' or 'code'")
    low, high = (costs.min(), costs.max()) if cost_range is None else cost_range
    return aiq_of_hull(non_decreasing_hull(costs, qualities), float(low), float(high))[normalise == "code"]


def aiq_of_hull(hull: FloatArray, low: float, high: float) -> tuple[float, float]:
    """Return the AIQ of a hull over costs from `low` to `high`, as the paper normalises it and as its program does."""
    missing = float("nan")
    paper = hull_area(hull, low, high) / (high - low) if high > low else missing
    return paper, hull_area(hull, float(hull[0, 0]), high) / high if high > 0 else missing


def _points(cost: ArrayLike, quality: ArrayLike) -> tuple[FloatArray, FloatArray]:
    import numpy as np

    costs, qualities = np.asarray(cost, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if costs.ndim != 1 or costs.shape != qualities.shape or not costs.size:
        raise InvalidValue(f"cost and quality have the shapes {costs.shape} and {qualities.shape}: give one of each")
    if not (np.isfinite(costs).all() and np.isfinite(qualities).all()):
        raise InvalidValue("cost or quality has a value that is not finite: leave such points out")
    return costs, qualities
