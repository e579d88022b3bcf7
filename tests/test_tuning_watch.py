"""A lab is watched: its calls, its searches, and the thresholds that no longer fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import autom8_lab as al
from autom8_lab.lab import Lab
from autom8_lab.recommendation import Evidence, Recommendation
from autom8_lab.tuning.drift import DRIFT_COLUMNS, distance
from autom8_lab.tuning.watch import _distance

BOTH_BACKENDS = True
NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(place: Callable[[str], str], clock: Clock) -> Iterator[Lab]:
    with al.open(place("lab.db"), embedding_model="hash-64", synchronous="OFF", clock=clock) as lab:
        yield lab


@pytest.fixture
def busy(timed: Lab) -> Lab:
    """A lab in which one of two models became slower and worse ten days ago."""
    generator = np.random.default_rng(1)
    rows = []
    for hour in range(30 * 24):
        for model in ("steady", "moving"):
            moved = model == "moving" and hour >= 20 * 24
            rows.append(
                {
                    "model": model,
                    "at": NOW - timedelta(hours=30 * 24 - hour),
                    "latency_ms": float(generator.lognormal(6.6 if moved else 6, 0.5)),
                    "quality_score": float(generator.beta(6, 4) if moved else generator.beta(8, 2)),
                    "cost_actual_usd": float(generator.exponential(0.01)),
                    "success": bool(generator.random() < 0.97),
                    "metadata": {"team": "a" if hour % 2 else "b"},
                }
            )
    timed.record_usages(rows)
    return timed


def test_what_moved_is_named_with_its_time_and_the_rest_is_not(busy: Lab) -> None:
    found = busy.drift_df("9d", by="model")
    assert found.dtypes.astype(str).to_dict() == dict(DRIFT_COLUMNS)
    moved = found[found["verdict"] == "moved"].set_index(["measure", "group"])
    assert set(moved.index) == {("latency_ms", "moving"), ("quality", "moving")}
    assert found["group"].tolist() == ["moving", "steady"] * 4
    for row in moved.to_dict("records"):
        assert abs(row["changed_at"] - (NOW - timedelta(days=10))) < timedelta(days=1)
    assert moved.loc[("quality", "moving"), "change_high"] < 0 < moved.loc[("latency_ms", "moving"), "change_low"]


def test_the_reference_filters_and_groups_choose_the_calls(busy: Lab) -> None:
    assert busy.drift_df("9d", measures=["cost_usd"])[["group", "reference_n", "recent_n"]].to_numpy().tolist() == [
        ["all", 2 * 21 * 24, 2 * 9 * 24]
    ]
    some = busy.drift_df("5d", reference="10d", measures="quality", model="moving", by="metadata.team")
    assert some[["group", "reference_n", "recent_n"]].to_numpy().tolist() == [["a", 60, 60], ["b", 60, 60]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"measures": ["latency"]}, "did you mean 'latency_ms'"),
        ({"reference": "2d"}, "reference='2d' is not before since='7d'"),
        ({"by": "modell"}, "did you mean 'model'"),
    ],
)
def test_a_question_that_means_nothing_is_refused(busy: Lab, given: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        busy.drift_df(**given)


def test_an_empty_lab_has_an_empty_frame(lab: Lab) -> None:
    assert lab.drift_df().dtypes.astype(str).to_dict() == dict(DRIFT_COLUMNS)
    assert lab.health()["settings_to_tune_again"] == "none"


def asked(lab: Lab, clock: Clock, queries: list[str]) -> None:
    """Search for each of the queries, a minute apart."""
    for query in queries:
        clock.now += timedelta(minutes=1)
        lab.search(query, k=1)


KNOWN = [f"item number {place} costs" for place in range(80)]
FOREIGN = [f"completely foreign words {place} appear" for place in range(80)]


@pytest.fixture
def shop(timed: Lab) -> Lab:
    for place in range(80):
        timed.store_context(f"item number {place} costs {place} euros", context_id=f"item-{place}")
    return timed


def test_searches_that_ask_for_something_else_have_moved(shop: Lab, clock: Clock) -> None:
    asked(shop, clock, KNOWN + FOREIGN)
    row = shop.drift_df(NOW + timedelta(minutes=100), measures="similarity").iloc[0]
    assert (row["group"], row["verdict"]) == ("searches", "moved")
    assert row["changed_at"] == NOW + timedelta(minutes=81)
    assert row["change_high"] < -0.2


def threshold(shop: Lab, **details: Any) -> Recommendation:
    evidence = Evidence(80, "F1", None, None, None, held_out=False, data_hash="", details=details)
    bound = shop._applied.binding()
    return Recommendation("threshold", {"similarity_threshold": -1.0}, "recommend", "", evidence, bound, created_at=NOW)


def test_health_names_a_threshold_whose_searches_moved_since_it_was_applied(shop: Lab, clock: Clock) -> None:
    asked(shop, clock, KNOWN)
    shop.apply(threshold(shop, origin="labels"))
    asked(shop, clock, KNOWN)
    assert shop.health()["settings_to_tune_again"] == "none"
    assert shop.health()["applied_settings"] == 1
    asked(shop, clock, FOREIGN)
    said = shop.health()["settings_to_tune_again"]
    assert said.startswith("similarity_threshold: the last 160 searches are not like those before")
    shop.revert()
    assert shop.health()["settings_to_tune_again"] == "none"


def test_health_compares_searches_with_those_that_a_threshold_was_tuned_on(shop: Lab, clock: Clock) -> None:
    judgments = {query: [f"item-{place}"] for place, query in enumerate(KNOWN)} | {query: [] for query in FOREIGN}
    found = shop.tune_threshold(list(judgments), judgments=judgments)
    assert found.verdict == "recommend"
    shop.apply(found)
    asked(shop, clock, FOREIGN)
    assert "not like those it was tuned on" in shop.health()["settings_to_tune_again"]


def test_health_names_a_setting_for_other_vectors(shop: Lab) -> None:
    shop.apply(threshold(shop))
    shop.embed_contexts("hash-32")
    with pytest.warns(al.SettingMismatchWarning):
        shop.search("item")
    said = shop.health()["settings_to_tune_again"]
    assert said == (
        "similarity_threshold was chosen for hash-64@1, 64 dimensions, cosine, and the lab's vectors are "
        "hash-32@1, 32 dimensions, cosine"
    )


def test_both_distances_are_the_same() -> None:
    generator = np.random.default_rng(0)
    one, other = np.sort(generator.random(40)), np.sort(generator.random(60) ** 2)
    assert _distance(one.tolist(), other.tolist()) == pytest.approx(distance(one, other))
