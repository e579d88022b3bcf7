"""What each threshold would do, worked by hand and counted the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import fbeta_score

from autom8_lab.tuning.curve import CURVE_COLUMNS, Costs, curve

ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.1 + 1e-12, 0.5, 0.9, -1.0]), st.booleans()), min_size=2, max_size=30
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, beta=st.sampled_from([0.5, 1.0, 2.0]))
def test_every_distinct_score_has_a_row_that_counts_right(rows: list[tuple[float, bool]], beta: float) -> None:
    scores, right = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = curve(scores, right, beta=beta, costs=Costs(5.0, 2.0))
    assert found.dtypes.astype(str).to_dict() == dict(CURVE_COLUMNS)
    assert found["threshold"].tolist() == sorted(set(scores), reverse=True)
    for row in found.to_dict("records"):
        hit = scores >= row["threshold"]
        false_hits, misses = int((hit & ~right).sum()), int((~hit & right).sum())
        assert (row["hits"], row["false_hits"], row["misses"]) == (hit.sum(), false_hits, misses)
        assert row["f_beta"] == pytest.approx(fbeta_score(right, hit, beta=beta, zero_division=0))
        assert row["cost"] == pytest.approx((5 * false_hits + 2 * misses) / len(rows))
        bounds = binomtest(false_hits, int(hit.sum())).proportion_ci(method="exact")
        assert (row["false_hit_rate_low"], row["false_hit_rate_high"]) == pytest.approx(tuple(bounds), abs=1e-9)
        assert row["precision"] == pytest.approx(1 - row["false_hit_rate"])


def test_without_anything_right_recall_is_unknown() -> None:
    found = curve(np.array([0.1, 0.2]), np.array([False, False]))
    assert found["recall"].isna().all()
    assert found["recall_high"].isna().all()
    assert found["f_beta"].tolist() == [0.0, 0.0]
