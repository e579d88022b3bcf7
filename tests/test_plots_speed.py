"""The plot of a benchmark: what is drawn equals the frame, faster is always to the right, and every name is inside."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.errors import InvalidValue

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def frame() -> pd.DataFrame:
    rows = [
        ("store_contexts", "executemany", "higher", 0.58, 0.5, 0.6, "ratio", 0.5, True),
        ("exact engine", "a NumPy product", "lower", 2.0, 1.6, 2.5, "ratio", 1.3, False),
        ("hnsw engine", "sqlite-vec", "higher", 161.0, 140.0, 180.0, "ratio", 50.0, True),
        ("hnsw engine, recall", None, "higher", np.nan, np.nan, np.nan, "figure", 0.99, True),
        ("record_usage", "INSERT", "higher", 0.8, 0.7, 0.9, None, np.nan, None),
    ]
    names = ["what", "against", "better", "ratio", "ratio_low", "ratio_high", "bar_on", "bar", "held"]
    return pd.DataFrame(rows, columns=names).astype({"held": "boolean"})


def points(ax: plt.Axes, *, bars: bool = False) -> list[tuple[int, float]]:
    lines = [line for line in ax.lines if len(line.get_xdata()) == 1 and (line.get_marker() == "|") == bars]
    return sorted((int(line.get_ydata()[0]), float(line.get_xdata()[0])) for line in lines)


def test_faster_is_to_the_right_whatever_the_unit() -> None:
    assert points(al.plots.benchmark(frame())) == [(0, 0.58), (1, 0.5), (2, 161.0), (3, 0.8)]


def test_quartiles_are_the_lines_and_bars_of_ratios_stand_where_they_are_reached() -> None:
    ax = al.plots.benchmark(frame())
    spans = [sorted(segment[:, 0].tolist()) for lines in ax.collections for segment in lines.get_segments()]
    assert spans == [[0.5, 0.6], [1 / 2.5, 1 / 1.6], [140.0, 180.0], [0.7, 0.9]]
    assert points(ax, bars=True) == [(0, 0.5), (1, pytest.approx(1 / 1.3)), (2, 50.0)]


def test_each_row_has_its_name_what_it_is_compared_with_and_its_ratio() -> None:
    ax = al.plots.benchmark(frame())
    names = [label.get_text() for label in ax.get_yticklabels()]
    others = [label.get_text() for label in ax.get_yticklabels(minor=True)]
    assert names == ["store_contexts", "exact engine", "hnsw engine", "record_usage"]
    assert others == ["/ executemany", "/ a NumPy product", "/ sqlite-vec", "/ INSERT"]
    assert [text.get_text() for text in ax.texts] == ["0.58", "0.5", "161", "0.8"]
    assert ax.yaxis_inverted()
    assert ax.get_xscale() == "log"


def test_the_legend_tells_held_missed_and_what_is_left_out() -> None:
    def texts(shown: pd.DataFrame) -> list[str]:
        return [text.get_text() for text in al.plots.benchmark(shown).get_legend().get_texts()]

    assert texts(frame()) == ["bar held", "bar missed", "no bar", "the bar", "1 without alternative"]
    assert texts(frame().iloc[4:]) == ["no bar"]


@pytest.mark.parametrize("size", [(5, 3), (8, 4), (10, 8)])
@pytest.mark.parametrize("copies", [1, 5])
def test_every_name_is_inside_the_picture(size: tuple[int, int], copies: int) -> None:
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    assert al.plots.benchmark(pd.concat([frame()] * copies), ax=ax) is ax
    figure.canvas.draw()
    inside = figure.bbox.padded(1)
    shown = [*ax.get_yticklabels(), *ax.get_yticklabels(minor=True), *ax.get_legend().get_texts(), ax.xaxis.label]
    for text in [*shown, *ax.texts]:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0, text
        assert box.x1 <= inside.x1, text


def test_a_figure_of_its_own_grows_with_the_rows() -> None:
    few, many = (al.plots.benchmark(pd.concat([frame()] * copies)).figure for copies in (1, 6))
    assert few.get_figheight() == 4
    assert many.get_figheight() > 8


def test_without_alternatives_there_is_no_data() -> None:
    (text,) = al.plots.benchmark(frame().iloc[3:4]).texts
    assert text.get_text().startswith("no data: ")


def test_a_missing_column_is_named_with_the_verb_that_has_it() -> None:
    with pytest.raises(InvalidValue, match=r"benchmark needs the column 'ratio_low'.*give al\.benchmark\("):
        al.plots.benchmark(frame().drop(columns="ratio_low"))


def test_no_global_setting_and_no_frame_changes() -> None:
    settings, shown = dict(mpl.rcParams), frame()
    al.plots.benchmark(shown).figure.canvas.draw()
    assert dict(mpl.rcParams) == settings
    pd.testing.assert_frame_equal(shown, frame())
