"""A recommendation is a plain value that says how sure it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

import autom8_lab as al
from autom8_lab.recommendation import Binding, Evidence, Recommendation

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
EVIDENCE = Evidence(40, "nDCG@10", 0.021, 0.004, 0.039, held_out=True, data_hash="5f0c", details={"folds": 5})


def advice(**changes: Any) -> Recommendation:
    values: dict[str, Any] = {"kind": "search", "settings": {"text_weight": 0.6}, "verdict": "recommend"}
    return Recommendation(**{**values, "because": "better", "evidence": EVIDENCE, "created_at": AT, **changes})


@pytest.mark.parametrize(
    "dump", [lambda plain: yaml.safe_load(yaml.safe_dump(plain)), lambda plain: json.loads(json.dumps(plain))]
)
def test_it_survives_yaml_and_json(dump: Any) -> None:
    made = advice(bound_to=Binding("minilm@1", 384, "cosine"), settings={"weights": {"content": 2.0}, "k": [1, 2]})
    assert Recommendation.from_dict(dump(made.to_dict())) == made


def test_it_shows_settings_verdict_and_interval_as_a_table() -> None:
    shown = repr(advice(bound_to=Binding("minilm@1", 384, "cosine")))
    assert "text_weight = 0.6" in shown
    assert "0.021 [0.004, 0.039] (n = 40, held out)" in shown
    assert "minilm@1, 384 dimensions, cosine" in shown
    assert "<table>" in advice()._repr_html_()


def test_a_long_setting_is_shown_by_its_beginning() -> None:
    shown = repr(advice(settings={"routing_policy": {"kind": "linear", "weights": [0.5] * 1_000}}))
    assert "routing_policy = {'kind': 'linear', 'weights': [0.5, " in shown
    assert len(shown) < 500


def test_an_unknown_estimate_is_shown_as_unknown() -> None:
    unknown = Evidence(3, "nDCG@10", None, None, None, held_out=False, data_hash="")
    assert "unknown (n = 3)" in repr(advice(evidence=unknown, verdict="cannot tell yet"))


def test_the_version_names_the_content() -> None:
    assert advice().version == advice(because="another sentence").version
    assert advice().version != advice(settings={"text_weight": 0.7}).version
    assert advice().version != advice(bound_to=Binding("other")).version
    assert advice(version="2").version == "2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "serch"}, "did you mean 'search'"),
        ({"verdict": "maybe"}, "verdict='maybe'"),
        ({"settings": {}}, "needs settings"),
        ({"settings": {"x": float("nan")}}, "nan"),
        ({"created_at": datetime(2026, 5, 1)}, "no time zone"),
    ],
)
def test_what_means_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        advice(**changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.pop("verdict"), "no 'verdict'"),
        (lambda plain: plain.update(verdikt=1), "did you mean 'verdict'"),
        (lambda plain: plain.update(evidence=None), "NoneType"),
        (lambda plain: plain["evidence"].pop("metric"), "evidence has no 'metric'"),
    ],
)
def test_a_dict_with_other_keys_is_refused(change: Any, message: str) -> None:
    plain = advice().to_dict()
    change(plain)
    with pytest.raises(al.InvalidValue, match=message):
        Recommendation.from_dict(plain)
