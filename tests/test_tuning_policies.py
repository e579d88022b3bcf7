"""Policies: plain values that survive YAML, say what is wrong with them, and route as they say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import yaml

import autom8_lab as al
from autom8_lab.tuning.learners import Inputs, fit
from autom8_lab.tuning.policies import KINDS, Router, make_policy, plain_vectors, policy_value

PAIR = ["small", "large"]
TEXTS = ["short", "a prompt of some length", "Why is 12 more than 7? Explain it step by step, please."]


def learned(kind: str, *, stored: bool = False, models: int = 2) -> dict[str, Any]:
    draw = np.random.default_rng(4)
    vectors = draw.normal(size=(60, 4))
    quality = draw.random((60, models))
    features = ["log_characters", "log_numbers"]
    parameters = fit(kind, Inputs(draw.random((60, 2)), vectors), quality, seed=0)
    if kind == "knn":
        parameters["vectors"] = plain_vectors(vectors, ("m@1", [f"h{n}" for n in range(60)]) if stored else None)
    parameters |= {"features": features, "calibration": [[False, 0.0, 1.0]] * models}
    names = [*PAIR, "huge"][:models]
    return make_policy(kind, names, threshold=0.05, parameters=parameters, embedding={"model": "m@1", "dimensions": 4})


def changed(kind: str, **parameters: Any) -> dict[str, Any]:
    policy = learned(kind)
    return {**policy, "parameters": {**policy["parameters"], **parameters}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_survives_yaml_and_json_and_routes_as_before(kind: str) -> None:
    plain: dict[str, Any] = {
        "always": {"kind": "always", "candidates": ["small"]},
        "mixing": {"kind": "mixing", "candidates": PAIR, "parameters": {"shares": [0.7, 0.3]}},
        "length": {"kind": "length", "candidates": PAIR, "threshold": 20},
    }
    policy = policy_value(plain[kind]) if kind in plain else learned(kind)
    vectors = np.random.default_rng(9).normal(size=(3, 4)) if policy["embedding"] else None
    first = Router(policy)
    for copy in (yaml.safe_load(yaml.safe_dump(policy)), json.loads(json.dumps(policy))):
        again = Router(copy)
        assert again.version == policy["version"]
        assert again.scores(TEXTS, vectors).tolist() == first.scores(TEXTS, vectors).tolist()
    assert first.scores(TEXTS, vectors).shape == (3, len(policy["candidates"]))


def test_a_length_policy_sends_long_prompts_to_the_strong_model() -> None:
    router = Router(make_policy("length", PAIR, threshold=23))
    assert router.best(router.scores(TEXTS)).tolist() == [0, 1, 1]  # 5, 23 and 56 characters


def test_the_best_score_less_the_price_wins_and_of_equal_ones_the_dearest() -> None:
    policy = {**learned("linear", models=3), "threshold": 0.25, "expense": [0.0, 0.5, 1.0]}
    router = Router(policy)
    scores = np.array([[0.5, 0.5, 0.5], [0.5, 0.75, 0.625], [0.5, 0.625, 0.75], [0.1, 0.2, 0.8]])
    assert router.best(scores).tolist() == [0, 1, 2, 2]


def test_exploration_gives_every_candidate_a_share() -> None:
    router = Router(make_policy("length", PAIR, threshold=20, epsilon=0.2))
    assert router.probabilities(router.scores(TEXTS)).tolist() == [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    assert router.probabilities(router.scores(TEXTS), epsilon=0).tolist() == [[1, 0], [0, 1], [0, 1]]


def test_mixing_draws_lots() -> None:
    router = Router(make_policy("mixing", PAIR, parameters={"shares": [0.75, 0.25]}))
    assert router.probabilities(router.scores(["x"])).tolist() == [[0.75, 0.25]]


def test_the_version_follows_the_content_and_not_the_evidence() -> None:
    policy = make_policy("length", PAIR, threshold=20, evidence={"prompts": 100})
    assert make_policy("length", PAIR, threshold=20)["version"] == policy["version"]
    assert policy_value({**policy, "threshold": 21})["version"] != policy["version"]
    assert policy_value({**policy, "version": "mine"})["version"] == policy["version"]


def test_neighbours_are_found_by_reference() -> None:
    policy = learned("knn", stored=True)
    asked: list[Any] = []

    def find(model: str, names: Any) -> np.ndarray:
        asked.append((model, len(names)))
        return np.random.default_rng(4).normal(size=(60, 4))

    vectors = np.random.default_rng(9).normal(size=(3, 4))
    inside = Router(learned("knn")).scores(TEXTS, vectors)
    assert Router(policy, find_vectors=find).scores(TEXTS, vectors) == pytest.approx(inside, abs=1e-6)
    assert asked == [("m@1", 60)]
    with pytest.raises(al.InvalidValue, match="kept in a lab"):
        Router(policy)


def test_more_vectors_than_a_setting_holds_are_not_written_down() -> None:
    assert plain_vectors(np.zeros((1_000, 384)), None) is None
    held = plain_vectors(np.ones((2, 3)), None)
    assert held is not None
    assert len(json.dumps(plain_vectors(np.ones((450, 400)), None))) < 1_000_000


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("small", "is a str: give a policy"),
        ({"kind": "lenght", "candidates": PAIR}, "did you mean 'length'"),
        ({"kind": "length", "candidates": PAIR, "treshold": 3}, "did you mean 'threshold'"),
        ({"kind": "length", "candidates": PAIR}, "threshold is None"),
        ({"kind": "length", "candidates": PAIR, "threshold": True}, "threshold is True"),
        ({"kind": "length", "candidates": PAIR, "threshold": float("nan")}, "nan"),
        ({"kind": "length", "candidates": ["a", "b", "c"], "threshold": 3}, "3 candidates: give 2"),
        ({"kind": "length", "candidates": ["a", "a"], "threshold": 3}, "name one twice"),
        ({"kind": "always", "candidates": []}, "candidates are"),
        ({"kind": "always", "candidates": "small"}, "candidates are 'small'"),
        ({"kind": "always", "candidates": ["a\nb"]}, "control character"),
        ({"kind": "mixing", "candidates": PAIR, "parameters": {"shares": [0.5, 0.6]}}, "add up to 1"),
        ({"kind": "mixing", "candidates": PAIR, "parameters": {"shares": [-0.5, 1.5]}}, "at least 0"),
        ({"kind": "length", "candidates": PAIR, "threshold": 3, "epsilon": 2}, "epsilon=2"),
        ({"kind": "length", "candidates": PAIR, "threshold": 3, "expense": [0.0]}, "expense is"),
        ({"kind": "linear", "candidates": PAIR, "threshold": 0.1}, "parameters that al.fit_router"),
        ({**learned("linear"), "embedding": "m@1"}, "embedding is 'm@1'"),
        (changed("linear", coefficients=[[0.1, 0.2]]), "'linear' policy cannot be used"),
        (changed("linear", intercepts="a"), "'linear' policy cannot be used"),
        (changed("linear", scale=[0.0, 0.0]), "number for each candidate"),
        (changed("linear", features=["log_word"]), "did you mean 'log_words'"),
        (changed("linear", calibration=[[False, 0.0, 1.0]]), "'linear' policy cannot be used"),
        (changed("boosted", forests=[[]]), "'boosted' policy cannot be used"),
        (changed("knn", vectors={"float32": "AAAA", "shape": [1, 4]}), "'knn' policy cannot be used"),
    ],
)
def test_what_is_no_policy_is_refused(policy: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        Router(policy)


def test_vectors_of_another_size_are_refused() -> None:
    router = Router(learned("linear"))
    with pytest.raises(al.InvalidValue, match="vectors of 4 dimensions for 1 prompts"):
        router.scores(["x"], np.zeros((1, 5)))
    with pytest.raises(al.InvalidValue, match="vectors of 4 dimensions"):
        router.scores(["x"])
