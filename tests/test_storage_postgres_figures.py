"""Figures that the server makes: the frames are those of a file with the same calls, to the last digit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from backends import BACKENDS, database, server

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.records import Group
from autom8_lab.storage import postgres_figures

pytestmark = pytest.mark.skipif("postgres" not in BACKENDS, reason="PostgreSQL is not asked for")
START = datetime(2026, 3, 1, tzinfo=UTC)


def traffic() -> list[dict[str, Any]]:
    """Calls of models with many and with few calls, some without latency, time to first token, tokens or agent."""
    rng = np.random.default_rng(3)
    calls = []
    for number in range(1_500):
        latency_ms = float(rng.lognormal(6, 1)) if number % 11 else None
        output_tokens = int(rng.integers(0, 900)) if number % 13 else None
        ttft_ms = latency_ms * float(rng.uniform(0, 1)) if latency_ms and number % 3 else None
        calls.append(
            {
                "model": ("big", "big", "middle", "small")[number % 4] if number % 101 else f"rare {number % 5}",
                "operation": ("chat", "embed")[number % 7 == 0],
                "agent": ("one", "two", None)[number % 3],
                "at": START + timedelta(hours=number % 900),
                "latency_ms": (0.0 if number % 97 == 0 else round(latency_ms, 1)) if latency_ms else None,
                "ttft_ms": None if number % 97 == 0 else ttft_ms,
                "input_tokens": 5,
                "output_tokens": output_tokens,
                "reasoning_tokens": output_tokens // 4 if output_tokens and number % 5 == 0 else None,
                "quality_score": float(rng.uniform()) if number % 2 else None,
                "success": bool(number % 9),
                "cost_actual_usd": float(rng.uniform()) if number % 4 else None,
                "metadata": {"team": ("a", 7, None, ["x"])[number % 4]} if number % 6 else {},
            }
        )
    return calls


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Lab]]:
    """The same calls in a file and on the server."""
    with (
        database() as name,
        al.open(tmp_path_factory.mktemp("figures") / "lab.db", embedding_model="hash-16") as in_file,
        al.open(server().address(name), embedding_model="hash-16") as on_server,
    ):
        for lab in (in_file, on_server):
            lab.record_usages(traffic())
        yield in_file, on_server


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"by": []},
        {"by": "agent"},
        {"by": ["model", "operation"], "confidence": 0.5},
        {"by": "metadata.team"},
        {"by": ["success", "metadata.team"]},
        {"freq": "W"},
        {"by": [], "freq": "D", "since": "2026-03-03", "until": "2026-03-09"},
        {"by": "latency_ms"},
        {"model": "middle"},
        {"model": "nobody"},
        {"by": [], "model": "nobody"},
    ],
    ids=str,
)
def test_latencies_equal_those_of_a_file(both: tuple[Lab, Lab], options: dict[str, Any]) -> None:
    in_file, on_server = (lab.latency_df(**options) for lab in both)
    pd.testing.assert_frame_equal(on_server, in_file, check_exact=True)


@pytest.mark.parametrize("verb", ["usage_df", "cost_df", "model_performance_df"])
@pytest.mark.parametrize(
    "options", [{}, {"by": ["agent", "metadata.team"]}, {"freq": "W"}, {"since": "2026-03-20"}], ids=str
)
def test_other_frames_equal_those_of_a_file(both: tuple[Lab, Lab], verb: str, options: dict[str, Any]) -> None:
    in_file, on_server = (getattr(lab, verb)(**options) for lab in both)
    # Sums are added up in another order.
    pd.testing.assert_frame_equal(on_server, in_file, rtol=1e-9, atol=1e-9)
    comparisons = [lab.compare_models("big", "small") for lab in both]
    pd.testing.assert_frame_equal(*comparisons, rtol=1e-9, atol=1e-9)


def test_latencies_are_reckoned_in_the_server(both: tuple[Lab, Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    storage = both[1]._storage
    monkeypatch.setattr(storage, "columns", None)  # nothing is read row by row
    both[1].latency_df(by=["agent"], freq="h")
    monkeypatch.undo()
    # Where there are about as many groups as calls, it is the calls that are read.
    monkeypatch.setattr(postgres_figures, "MANY_GROUPS", 3)
    assert storage.ranked("usage_ledger", by=[Group("at")], values={"x": "latency_ms"}, ranks=lambda *_: [1]) is None
    pd.testing.assert_frame_equal(both[1].latency_df(by=["at"]), both[0].latency_df(by=["at"]))


def test_a_rate_that_no_number_can_hold_is_none(both: tuple[Lab, Lab]) -> None:
    for lab in both:
        lab.record_usage("odd", operation="x", output_tokens=10**9, latency_ms=1e-300)
        lab.record_usage("odd", operation="x", output_tokens=0, latency_ms=1e-300)
    in_file, on_server = (lab.latency_df(model="odd") for lab in both)
    pd.testing.assert_frame_equal(on_server, in_file, check_exact=True)
