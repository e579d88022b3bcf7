"""`al.benchmark`: one frame of fixed columns, in files of its own, that says on what it was measured."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.diagnostics.benchmark import PARTS, markdown_table
from autom8_lab.diagnostics.figures.material import SIZES
from autom8_lab.diagnostics.figures.rounds import COLUMNS
from autom8_lab.errors import InvalidValue, ModelUnavailable

TINY = {"contexts": 20, "batch": 20, "vectors": 150, "connections": [1], "operations": 4, "calls": 2, "repeats": 1}


@pytest.fixture(scope="module")
def figures() -> pd.DataFrame:
    return al.benchmark("quick", **TINY, encoder="hash-16", seed=7)


def test_every_part_has_its_figures_in_order(figures: pd.DataFrame) -> None:
    assert list(dict.fromkeys(figures["part"])) == list(PARTS)
    assert not figures.duplicated(["part", "what", "against"]).any()
    assert (figures["figure"] > 0).all()
    assert (figures["figure_low"] <= figures["figure"]).all()
    assert figures.loc[figures["against"].notna(), "ratio"].gt(0).all()


def test_the_frame_has_its_columns_and_dtypes_also_when_it_is_empty(figures: pd.DataFrame) -> None:
    for made in (figures, al.benchmark("quick", parts=[], encoder="hash-16")):
        assert made.dtypes.astype(str).to_dict() == COLUMNS


def test_nothing_failed_and_nothing_was_lost(figures: pd.DataFrame) -> None:
    assert figures["errors"].fillna(0).eq(0).all()
    assert figures["lost"].fillna(0).eq(0).all()


def test_the_frame_says_on_what_it_was_measured(figures: pd.DataFrame) -> None:
    attrs = figures.attrs
    assert attrs["sizes"] == {**TINY, "connections": (1,)}
    assert (attrs["seed"], attrs["encoder"], attrs["encoder_reason"]) == (
        7,
        "hash-16@1",
        "asked for; hash: hashed words, no model",
    )
    assert attrs["machine"]["cores"] >= 1
    assert attrs["machine"]["versions"]["autom8_lab"] == al.__version__
    assert attrs["seconds"] > 0


def test_bars_are_set_for_the_sizes_that_they_are_meant_for(figures: pd.DataFrame) -> None:
    barred = figures.dropna(subset=["bar"])["what"].tolist()
    assert "store_context" in barred
    assert "store_contexts" not in barred


def test_nothing_of_the_benchmark_is_left_and_no_lab_of_the_user_is_touched(tmp_path: Path, lab: al.Lab) -> None:
    place = tmp_path / "benchmark"
    place.mkdir()
    before = sorted(tmp_path.iterdir())
    al.benchmark("quick", parts=["read"], contexts=5, calls=1, repeats=1, encoder="hash-8", folder=place)
    assert not list(place.iterdir())
    assert sorted(tmp_path.iterdir()) == before
    assert al.current_lab() is lab
    assert lab.stats()["contexts"] == 0


def test_a_model_that_cannot_be_loaded_is_replaced_visibly_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTOM8_EMBEDDING_MODEL", "no-such-model")
    made = al.benchmark("quick", parts="encode", calls=1, repeats=1)
    assert made.attrs["encoder"] == "hash-384@1"
    assert "no-such-model" in made.attrs["encoder_reason"]
    assert made["how"].tolist() == ["short, hash-384"]
    with pytest.raises(ModelUnavailable):
        al.benchmark("quick", parts="encode", encoder="no-such-model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "size='huge'"),
        ({"parts": "serach"}, "no part 'serach'; did you mean 'search'"),
        ({"repeats": 0}, "repeats"),
        ({"vectors": -5}, "vectors"),
        ({"vector": 5}, "no number 'vector'; did you mean 'vectors'"),
        ({"connections": 4}, r"connections=4: give numbers of processes, such as \(1, 4, 20\)"),
        ({"connections": []}, "connections="),
        ({"connections": [0]}, "connections"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        al.benchmark(**{"encoder": "hash-8", **arguments})


def test_the_full_size_is_the_one_that_the_bars_are_meant_for() -> None:
    full = SIZES["full"]
    assert (full.contexts, full.batch, full.vectors, full.connections) == (5_000, 10_000, 100_000, (1, 4, 20, 50))


def test_the_table_shows_every_figure_with_its_unit_bar_and_verdict() -> None:
    row = {"what": "get_context", "how": "5 contexts", "figure": 12_345.6, "unit": "/s", "against": "SELECT by id"}
    row |= {"ratio": 0.3051, "bar_on": "figure", "bar": 10_000.0, "held": True}
    alone = {"what": "recall", "how": None, "figure": 0.9961, "unit": "recall@10", "against": None}
    alone |= {"ratio": None, "bar_on": None, "bar": None, "held": None}
    slow = {**row, "what": "exact engine", "figure": 9.876, "unit": "ms", "ratio": 1.4, "bar_on": "ratio", "bar": 1.3}
    table = markdown_table(pd.DataFrame([row, alone, {**slow, "held": False}]))
    assert table.splitlines()[2:] == [
        "| `get_context`: 5 contexts | 12,300/s | SELECT by id | 0.305 | at least 10,000/s | yes |",
        "| recall | 0.996 recall@10 |  |  |  |  |",
        "| exact engine: 5 contexts | 9.88 ms | SELECT by id | 1.4 | at most 1.3 | no |",
    ]
