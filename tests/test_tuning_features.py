"""What is read off a prompt: the right counts, for any text, in no time."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.tuning.features import FEATURES, feature_table


def features(text: str) -> dict[str, float]:
    return dict(zip(FEATURES, feature_table([text])[0].tolist(), strict=True))


def test_the_features_of_a_question_are_counted() -> None:
    found = features("Why is 3.5 + 1,200 more than 7?\nExplain it step by step.")
    expected = {
        "log_characters": 56,
        "log_words": 9,
        "log_numbers": 3,
        "log_decimals": 2,
        "log_sentences": 2,
        "log_lines": 1,
        "question_marks": 1,
        "question_words": 1,
        "reason_words": 4,  # why, explain, step, step
        "log_code_marks": 0,
    }
    assert {name: found[name] for name in expected} == pytest.approx({n: math.log1p(k) for n, k in expected.items()})
    assert found["symbol_share"] == pytest.approx(1 / 56)
    assert found["capital_share"] == pytest.approx(2 / 56)
    assert found["mean_word_length"] == pytest.approx(np.mean([3, 2, 4, 4, 7, 2, 4, 2, 4]))


def test_code_is_seen() -> None:
    assert features("```python\ndef f(x):\n    return g()\n```")["log_code_marks"] == pytest.approx(math.log1p(4))
    assert features("I return it if the colour is wrong; thank you.")["log_code_marks"] == 0


@given(st.text(max_size=200))
def test_every_text_has_finite_features(text: str) -> None:
    assert np.isfinite(feature_table([text])).all()


def test_no_text_takes_long() -> None:
    started = time.perf_counter()
    feature_table(["{" * 100_000, " " * 100_000, "1." * 50_000, "=\n" * 50_000, "if " * 30_000, "a" * 100_000])
    assert time.perf_counter() - started < 5


def test_nothing_has_no_rows_but_its_columns() -> None:
    assert feature_table([]).shape == (0, len(FEATURES))


def test_an_unknown_feature_is_named() -> None:
    with pytest.raises(al.InvalidValue, match="did you mean 'log_words'"):
        feature_table(["x"], ["log_word"])
