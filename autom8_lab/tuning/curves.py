"""What a router achieves at every threshold: its path from the cheapest model to the dearest, and PGR, APGR, CPT.

Definitions: RouteLLM (Ong et al. 2024, arXiv:2406.18665), section 2. The sums are over prompts with weights, so that one
pass over an array of bootstrap weights gives every resample's figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..errors import InvalidValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

Ties = Literal["pooled", "order"]
BINS = 10


@dataclass(frozen=True)
class Path:
    """The switches of prompts to dearer models as a router's threshold falls, the highest threshold first.

    A row per switch: which `prompt`, the `threshold` at which it happens, the model `before` and `after`, and whether
    it is the last of its threshold (`ends`); between two of equal score nothing but chance could decide.
    """

    prompt: IntArray
    threshold: FloatArray
    before: IntArray
    after: IntArray
    ends: NDArray[np.bool_]


class Curve(NamedTuple):
    """A router's points, from all prompts at the cheapest model on; the last axis runs over the thresholds.

    `threshold` is infinite at the first point. `share` is of prompts that left the cheapest model; `cost` is NaN where
    costs are not known.
    """

    threshold: FloatArray
    share: FloatArray
    cost: FloatArray
    quality: FloatArray


def path_of(scores: ArrayLike, *, expense: ArrayLike = (0.0, 1.0), ties: Ties = "pooled") -> Path:
    """Return the path of a router by its scores: a prompt goes to the model with the best score - threshold × expense.

    `scores` has a row per prompt: one number (how much the prompt needs the dearer of two models), or one per model.
    `expense` has a number per model, 0 for the cheapest. With two models the threshold falls without end, so that
    the path ends with all prompts at the dearer one; with more it ends at 0, with the best score. With `ties="order"`
    prompts of equal score switch one after the other as they come, as RouteLLM's sorting does.
    Raises `InvalidValue`.
    """
    import numpy as np

    table, slopes = _scores(scores), np.asarray(expense, dtype=np.float64)
    if table.shape[1] != len(slopes):
        raise InvalidValue(f"scores have {table.shape[1]} columns, but there are {len(slopes)} models")
    end = -np.inf if len(slopes) == 2 else 0.0
    rows = np.arange(len(table))
    current = np.full(len(table), int(slopes.argmin()))
    found: list[tuple[IntArray, FloatArray, IntArray, IntArray]] = []
    for _ in range(len(slopes) - 1):
        dearer = slopes[None, :] - slopes[current][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            reached = np.where(dearer > 0, (table - table[rows, current][:, None]) / dearer, -np.inf)
        # Of models that are reached at once the dearest wins, as the others would be left at the same threshold.
        order = np.argsort(slopes, kind="stable")[::-1]
        following = order[reached[:, order].argmax(axis=1)]
        at = reached[rows, following]
        moves = (at >= end) & (dearer[rows, following] > 0)
        found.append((rows[moves], at[moves], current[moves], following[moves]))
        current = np.where(moves, following, current)
    prompt, threshold, before, after = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(-threshold, kind="stable")
    threshold = threshold[order]
    ends = np.ones(len(order), dtype=bool)
    if ties == "pooled" and len(order):
        ends[:-1] = threshold[1:] != threshold[:-1]
    return Path(prompt[order], threshold, before[order], after[order], ends)


def _scores(scores: ArrayLike) -> FloatArray:
    import numpy as np

    table = np.asarray(scores, dtype=np.float64)
    if table.ndim == 1:
        table = np.column_stack([np.zeros(len(table)), table])
    if table.ndim != 2:
        raise InvalidValue(
            f"scores have the shape {table.shape}: give a number per prompt, or one per prompt and model"
        )
    if not np.isfinite(table).all():
        raise InvalidValue(f"{int((~np.isfinite(table)).any(axis=1).sum())} prompts have a score that is not finite")
    return table


def curve_of(
    path: Path, quality: FloatArray, cost: FloatArray, *, start: int, weights: FloatArray | None = None
) -> Curve:
    """Return the points of a path: mean quality and cost per prompt, given arrays of shape (prompts, models).

    `start` is the model that all prompts begin with. `weights`, shape (resamples, prompts), gives a curve per row;
    without them there is one curve, and its arrays have one axis.
    """
    import numpy as np

    rows = np.ones((1, len(quality))) if weights is None else weights
    total = rows.sum(axis=1, keepdims=True)
    moved = rows[:, path.prompt]

    def along(values: FloatArray) -> FloatArray:
        steps = moved * (values[path.prompt, path.after] - values[path.prompt, path.before])
        begin = (rows * values[:, start]).sum(axis=1, keepdims=True)
        points: FloatArray = np.concatenate([begin, begin + steps.cumsum(axis=1)[:, path.ends]], axis=1) / total
        return points

    left = np.where(path.before == start, moved, 0.0).cumsum(axis=1)[:, path.ends] / total
    share = np.concatenate([np.zeros_like(total), left], axis=1)
    points = [share, along(cost), along(quality)]
    if weights is None:
        points = [values[0] for values in points]
    return Curve(np.concatenate([[np.inf], path.threshold[path.ends]]), *points)


def pgr(quality: FloatArray) -> FloatArray:
    """Return the performance gap recovered at each point of a curve's quality; it may exceed 1. NaN without a gap."""
    import numpy as np

    gap = quality[..., -1:] - quality[..., :1]
    with np.errstate(divide="ignore", invalid="ignore"):
        recovered: FloatArray = np.where(gap == 0, np.nan, (quality - quality[..., :1]) / gap)
    return recovered


def apgr(share: FloatArray, quality: FloatArray) -> FloatArray:
    """Return the average PGR: its integral over the share of prompts at the dearer model, by trapezoids.

    A router that draws lots has 0.5. (The sum over ten shares that the paper prints would give it 0.55; its program
    and its tables use trapezoids.) A value per curve.

    >>> import numpy as np
    >>> float(apgr(np.array([0, 0.5, 1]), np.array([0.6, 0.7, 0.8]))).__round__(6)
    0.5
    """
    import numpy as np

    return np.asarray(np.trapezoid(pgr(quality), share, axis=-1), dtype=np.float64)


def cpt(share: FloatArray, quality: FloatArray, target: float) -> FloatArray:
    """Return the call-performance threshold: the least share of prompts at the dearer model with PGR >= `target`.

    The first point of the curve that reaches the target counts, whatever the curve does later; NaN where none does.
    """
    import numpy as np

    recovered = pgr(quality)
    # A sum of many small gains may miss the target by a rounding.
    reached = recovered >= target - 1e-12
    first = np.take_along_axis(share, reached.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    crossing: FloatArray = np.where(reached.any(axis=-1), first, np.nan)
    return crossing


def binned_curve(scores: ArrayLike, quality: FloatArray, *, bins: int = BINS) -> Curve:
    """Return RouteLLM's curve: the points at the edges of `bins` bins of equal size, equal edges once.

    At each edge the prompts with at least that score go to the stronger model, at the last one those above it. `quality`
    has shape (prompts, 2), the weaker model first. With few distinct scores there are fewer points. Source: `evals/benchmarks.py` of lm-sys/RouteLLM.
    """
    import numpy as np

    needs = _scores(scores)
    values = needs[:, 1] - needs[:, 0]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    routed = values[None, :] >= edges[:, None]
    routed[-1] = values > edges[-1]
    routed = routed[::-1]
    means = np.where(routed, quality[:, 1], quality[:, 0]).mean(axis=1)
    return Curve(edges[::-1], routed.mean(axis=1), np.full(len(edges), np.nan), means)


def cpt_interpolated(share: FloatArray, quality: FloatArray, target: float) -> float:
    """Return the call-performance threshold as RouteLLM computes it: the share interpolated at the target's quality.

    NaN where quality falls anywhere along the curve, because the interpolation then means nothing.
    """
    import numpy as np

    if not (np.diff(quality) >= 0).all() or quality[-1] == quality[0]:
        return float("nan")
    return float(np.interp(target, pgr(quality), share))
