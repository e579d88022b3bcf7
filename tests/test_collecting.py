"""The garbage collector while logs are imported or texts stored: looked for less often, and as before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from autom8_lab import Lab
from autom8_lab.collecting import SURPLUS, seldom_collected

USUAL = (700, 10, 10)
CALL = {"id": "1", "at": "2026-01-01", "model": "gpt-4o-mini", "input_tokens": 1, "output_tokens": 1}


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


def test_an_import_looks_for_garbage_less_often_and_then_as_before(lab: Lab) -> None:
    seen = []

    def rows() -> Iterator[dict[str, Any]]:
        seen.append(gc.get_threshold()[0])
        yield CALL

    assert lab.import_rows(rows(), mapping="guess")["new"] == 1
    assert (seen, gc.get_threshold()) == ([SURPLUS], USUAL)


def test_a_batch_that_is_stored_is_left_alone_too(lab: Lab) -> None:
    seen = []

    def texts() -> Iterator[str]:
        seen.append(gc.get_threshold()[0])
        yield "a text"

    lab.store_contexts(texts())
    assert (seen, gc.get_threshold()) == ([SURPLUS], USUAL)


def test_an_import_that_fails_leaves_the_thresholds_as_they_were(lab: Lab) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield CALL
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        lab.import_rows(rows(), mapping="guess")
    assert gc.get_threshold() == USUAL


def test_the_last_of_several_imports_restores_the_thresholds() -> None:
    first, second = seldom_collected(), seldom_collected()
    with first:
        second.__enter__()
    assert gc.get_threshold()[0] == SURPLUS
    second.__exit__(None, None, None)
    assert gc.get_threshold() == USUAL


@pytest.mark.parametrize("own", [(0, 10, 10), (50_000, 5, 5)])
def test_thresholds_that_are_off_or_higher_stay(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    with seldom_collected():
        assert gc.get_threshold() == own
    assert gc.get_threshold() == own


def test_thresholds_that_are_set_during_an_import_stay() -> None:
    with seldom_collected():
        gc.set_threshold(900, 9, 9)
    assert gc.get_threshold() == (900, 9, 9)
