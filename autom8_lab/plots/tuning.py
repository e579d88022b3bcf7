"""Pictures of what tuning finds: measures with intervals, thresholds with bounds, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InvalidValue
from .drawing import GREY, MARKERS, PALETTE, SMALL, axes_of, finish, legend, no_data, require

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RATES = {"precision": PALETTE[0], "recall": PALETTE[1], "false_hit_rate": PALETTE[3], "hit_rate": PALETTE[2]}
STEPS = 400  # rows of a curve that are drawn


def measures_by_method(frame: pd.DataFrame, *, measures: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw each method's measures with their 95 % intervals, a group per measure.

    Takes `al.evaluate_search(…).overall`: method, measure, mean, low, high. Overlapping intervals do not say that two
    methods cannot be told apart: the queries are the same, and `differences` compares them in pairs.

    >>> import pandas as pd
    >>> rows = {"method": ["text", "hybrid"], "measure": "nDCG@10", "mean": [0.6, 0.7], "low": [0.5, 0.6], "high": 0.8}
    >>> measures_by_method(pd.DataFrame(rows)).get_ylabel()
    'Mean, 95 % interval'
    """
    import numpy as np

    require(frame, ["method", "measure", "mean", "low", "high"], "measures_by_method", "al.evaluate_search(…).overall")
    ax = axes_of(ax)
    shown = list(dict.fromkeys(frame["measure"])) if measures is None else list(measures)
    if missing := [name for name in shown if name not in set(frame["measure"])]:
        raise InvalidValue(f"measures has {missing[0]!r}: the frame has {', '.join(dict.fromkeys(frame['measure']))}")
    methods = list(dict.fromkeys(frame["method"]))
    looks = {name: place % 8 for place, name in enumerate(sorted(methods))}
    if not shown:
        return no_data(ax, "no measures")
    width = 0.7 / max(len(methods), 1)
    for number, method in enumerate(methods):
        own = frame[frame["method"] == method].set_index("measure").reindex(shown)
        at = np.arange(len(shown)) + (number - (len(methods) - 1) / 2) * width
        bars = np.nan_to_num(np.array([own["mean"] - own["low"], own["high"] - own["mean"]], dtype=float))
        look = {"color": PALETTE[looks[method]], "marker": MARKERS[looks[method]], "label": method}
        ax.errorbar(at, own["mean"].to_numpy(), yerr=np.maximum(bars, 0), linestyle="", capsize=3, markersize=6, **look)
    ax.set_xticks(range(len(shown)), [name.replace("@", "\n@") for name in shown])
    ax.set_xlim(-0.5, len(shown) - 0.5)
    ax.set_ylabel("Mean, 95 % interval")
    finish(ax, grid="y")
    return legend(ax, ax.get_legend_handles_labels()[0], above=True)


def rates_by_threshold(
    frame: pd.DataFrame,
    *,
    rates: Sequence[str] = ("precision", "recall"),
    threshold: float | None = None,
    max_false_hit_rate: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw precision, recall or other rates of a threshold against it, with their exact bounds.

    Takes the table "curve" of `al.tune_threshold(…)`. `rates` are of "precision", "recall", "false_hit_rate" and
    "hit_rate"; `threshold` marks the one that was chosen, `max_false_hit_rate` the budget.
    """
    import numpy as np

    names = [f"{rate}{bound}" for rate in rates for bound in ("", "_low", "_high")]
    verb = 'al.tune_threshold(…).tables["curve"]'
    if unknown := [rate for rate in rates if rate not in RATES]:
        raise InvalidValue(f"rates has {unknown[0]!r}: give some of {', '.join(RATES)}")
    require(frame, ["threshold", *names], "rates_by_threshold", verb)
    ax = axes_of(ax)
    if frame.empty:
        return no_data(ax, "no labels")
    ordered = frame.sort_values("threshold")
    kept = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), STEPS)).round().astype(int))
    drawn = ordered.iloc[kept]
    at = drawn["threshold"].to_numpy(dtype=float)
    for rate in rates:
        low, high = (drawn[f"{rate}_{bound}"].to_numpy(dtype=float) for bound in ("low", "high"))
        ax.plot(at, drawn[rate], color=RATES[rate], label=rate.replace("_", " "), linewidth=1.5)
        ax.fill_between(at, low, high, color=RATES[rate], alpha=0.18, linewidth=0)
    if max_false_hit_rate is not None:
        budget = max_false_hit_rate if "false_hit_rate" in rates else 1 - max_false_hit_rate
        ax.axhline(budget, color=GREY, linestyle=":", linewidth=1.2, label=f"budget {max_false_hit_rate:.3g}")
    if threshold is not None:
        ax.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"threshold {threshold:.3g}")
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("Threshold: a score of at least this is a hit")
    ax.set_ylabel("Rate, 95 % bounds")
    finish(ax, grid="both")
    return legend(ax, ax.get_legend_handles_labels()[0], above=True)


def reliability_diagram(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how often what was predicted happened, in tenths of the prediction, with exact 95 % intervals.

    Takes the table "reliability" of `al.tune_threshold(…)` or `al.tune_search(what="cutoff")`: predicted, observed,
    observed_low, observed_high, labels. On the dashed line a prediction means what it says; the bars below show how
    many predictions there are.
    """
    import numpy as np

    columns = ["predicted", "observed", "observed_low", "observed_high", "labels", "bin_low", "bin_high"]
    require(frame, columns, "reliability_diagram", 'al.tune_threshold(…).tables["reliability"]')
    ax = axes_of(ax)
    if frame.empty:
        return no_data(ax, "too few labels of a kind")
    line = ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as predicted")
    below, above = frame["observed"] - frame["observed_low"], frame["observed_high"] - frame["observed"]
    points = ax.errorbar(
        frame["predicted"].to_numpy(),
        frame["observed"].to_numpy(),
        yerr=np.maximum(np.array([below, above], dtype=float), 0),
        color=PALETTE[0],
        marker=MARKERS[0],
        markersize=6,
        capsize=3,
        linestyle="",
        label="observed, 95 % interval",
    )
    most = frame["labels"].max()
    shares = 0.12 * frame["labels"].to_numpy() / most
    widths = (frame["bin_high"] - frame["bin_low"]).to_numpy()
    ax.bar(frame["bin_low"].to_numpy(), shares, widths, bottom=-0.16, align="edge", color="0.8", edgecolor="white")
    ax.text(1.0, -0.03, f"predictions per bin, at most {most:,}", ha="right", **{**SMALL, "va": "bottom"})
    ax.axhline(0, color="0.8", linewidth=0.8)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.17, 1.03)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_xlabel("Predicted probability")
    ax.set_ylabel("Share that was right")
    finish(ax, grid="both")
    return legend(ax, [*line, points], above=True)
