"""The plots of tuning: what is drawn equals the frame."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.tuning.calibration import CALIBRATION_COLUMNS, RELIABILITY_COLUMNS, calibration
from autom8_lab.tuning.curve import CURVE_COLUMNS, curve
from autom8_lab.tuning.evaluation import OVERALL_COLUMNS

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


OVERALL = pd.DataFrame(
    {
        "method": ["text", "text", "hybrid", "hybrid"],
        "measure": ["nDCG@10", "MRR"] * 2,
        "mean": [0.6, 0.5, 0.7, 0.65],
        "low": [0.55, 0.4, 0.65, float("nan")],
        "high": [0.66, 0.6, 0.76, float("nan")],
    }
)


def labels(n: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    scores = generator.random(n)
    return scores, generator.random(n) < scores


def test_each_method_has_a_point_and_an_interval_per_measure() -> None:
    ax = al.plots.measures_by_method(OVERALL)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["nDCG\n@10", "MRR"]
    heights = {bars.get_label(): bars.lines[0].get_ydata().tolist() for bars in ax.containers}
    assert heights == {"text": [0.6, 0.5], "hybrid": [0.7, 0.65]}
    intervals = ax.containers[0].lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in intervals] == [[0.55, 0.66], [0.4, 0.6]]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["text", "hybrid"]


def test_the_measures_can_be_chosen_and_an_unknown_one_is_refused() -> None:
    assert len(al.plots.measures_by_method(OVERALL, measures=["MRR"]).get_xticklabels()) == 1
    with pytest.raises(al.InvalidValue, match=r"'nDCG@5'.*nDCG@10, MRR"):
        al.plots.measures_by_method(OVERALL, measures=["nDCG@5"])


def test_rates_and_their_bounds_are_those_of_the_curve() -> None:
    found = curve(*labels(60))
    ax = al.plots.rates_by_threshold(found, threshold=0.5, max_false_hit_rate=0.1)
    ordered = found.sort_values("threshold")
    assert ax.lines[0].get_ydata().tolist() == ordered["precision"].tolist()
    assert ax.lines[1].get_xdata().tolist() == ordered["threshold"].tolist()
    band = ax.collections[0].get_paths()[0].vertices
    assert {round(value, 9) for value in ordered["precision_low"]} <= {round(float(value), 9) for value in band[:, 1]}
    assert ax.lines[2].get_ydata() == [0.9, 0.9]
    assert ax.lines[3].get_xdata() == [0.5, 0.5]
    assert al.plots.rates_by_threshold(found, rates=["false_hit_rate"], max_false_hit_rate=0.1).lines[
        1
    ].get_ydata() == [0.1, 0.1]


def test_a_long_curve_is_thinned_and_keeps_both_ends() -> None:
    found = curve(*labels(3_000))
    drawn = al.plots.rates_by_threshold(found).lines[0].get_xdata()
    assert len(drawn) == 400
    assert (drawn[0], drawn[-1]) == (found["threshold"].min(), found["threshold"].max())


def test_the_reliability_diagram_shows_every_bin_with_its_interval_and_size() -> None:
    bins = calibration(*labels(500))[1]
    ax = al.plots.reliability_diagram(bins)
    points = ax.containers[0]
    assert points.lines[0].get_xdata().tolist() == bins["predicted"].tolist()
    assert points.lines[0].get_ydata().tolist() == bins["observed"].tolist()
    ends = [segment[:, 1].tolist() for segment in points.lines[2][0].get_segments()]
    assert np.allclose(ends, bins[["observed_low", "observed_high"]])
    heights = [bar.get_height() for bar in ax.patches]
    assert np.allclose(np.array(heights) / max(heights), bins["labels"] / bins["labels"].max())


@pytest.mark.parametrize(
    ("plot", "columns"),
    [
        (al.plots.measures_by_method, OVERALL_COLUMNS),
        (al.plots.rates_by_threshold, CURVE_COLUMNS),
        (al.plots.reliability_diagram, RELIABILITY_COLUMNS),
    ],
)
def test_an_empty_frame_says_so_and_a_wrong_one_names_the_verb(plot, columns) -> None:  # type: ignore[no-untyped-def]
    from autom8_lab.frames import frame

    assert "no data" in plot(frame([], columns)).texts[0].get_text()
    with pytest.raises(al.InvalidValue, match="which the frame does not have: give"):
        plot(frame([], CALIBRATION_COLUMNS).drop(columns=["labels"]))


def test_an_unknown_rate_is_refused() -> None:
    with pytest.raises(al.InvalidValue, match="rates has 'accuracy'"):
        al.plots.rates_by_threshold(curve(*labels(10)), rates=["accuracy"])
