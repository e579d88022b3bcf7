"""Applied settings: kept with their evidence, in force at once and everywhere, taken back one by one."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import autom8_lab as al
from autom8_lab.applied import COLUMNS
from autom8_lab.lab import Lab
from autom8_lab.recommendation import Binding, Evidence, Recommendation

BOTH_BACKENDS = True
EVIDENCE = Evidence(40, "nDCG@10", 0.021, 0.004, 0.039, held_out=True, data_hash="5f0c")


def advice(settings: dict[str, Any], **changes: Any) -> Recommendation:
    values = {"kind": "search", "verdict": "recommend", "because": "better", "evidence": EVIDENCE}
    return Recommendation(settings=settings, **{**values, "created_at": datetime(2026, 5, 1, tzinfo=UTC), **changes})


@pytest.fixture
def three(lab: Lab) -> Lab:
    """A lab in which text and vectors disagree about "red apple"."""
    lab.store_context("apple apple apple apple orchard", context_id="words")
    lab.store_context("red apple", context_id="both", topic="fruit")
    lab.store_context(
        "a long text about nothing much that names an apple once", context_id="once", summary="red red red"
    )
    return lab


def test_an_applied_weight_changes_later_searches_and_a_reverted_one_does_not(three: Lab) -> None:
    before = three.search_df("red apple")["score"].tolist()
    three.apply(advice({"text_weight": 1.0}))
    alone = three.search_df("red apple")["score"].tolist()
    assert alone != before
    assert alone == three.search_df("red apple", text_weight=1.0)["score"].tolist()
    three.revert()
    assert three.search_df("red apple")["score"].tolist() == before


def test_an_argument_is_stronger_than_what_was_applied_and_that_than_the_configuration(
    place: Callable[[str], str],
) -> None:
    with al.open(place("lab.db"), embedding_model="hash-64", text_weight=0.2, similarity_threshold=0.1) as lab:
        lab.store_context("red apple", context_id="a")
        lab.store_context("green pear tree", context_id="b")
        assert lab.setting("text_weight") == 0.2
        lab.apply(advice({"text_weight": 0.8, "similarity_threshold": 0.9}))
        assert (lab.setting("text_weight"), lab.setting("similarity_threshold")) == (0.8, 0.9)
        assert [hit.context.id for hit in lab.search("red apple")] == ["a"]
        assert len(lab.search("red apple pear", min_similarity=-1)) == 2
        heavy, light = (lab.search("red tree", min_similarity=-1, text_weight=w)[1].score for w in (None, 0.25))
        assert heavy != light


def test_a_lab_that_is_open_elsewhere_uses_what_was_applied(three: Lab) -> None:
    with al.open(three.config.db_path, embedding_model="hash-64") as other:
        first = other.search_df("red apple")["score"].tolist()
        three.apply(advice({"text_weight": 1.0}))
        assert other.setting("text_weight") == 1.0
        assert other.search_df("red apple")["score"].tolist() != first
        code = (
            "import sys, autom8_lab as al\n"
            "with al.open(sys.argv[1], embedding_model='hash-64') as lab:\n"
            "    assert lab.setting('text_weight') == 1.0\n"
            "    lab.revert('text_weight')\n"
        )
        subprocess.run([sys.executable, "-c", code, three.config.db_path], check=True)
        assert other.setting("text_weight") == 0.5
        assert other.search_df("red apple")["score"].tolist() == first


def test_column_weights_decide_how_much_a_word_in_the_summary_counts(three: Lab) -> None:
    def first() -> str:
        return three.search("red", method="text")[0].context.id

    assert first() == "both"
    three.apply(advice({"text_column_weights": {"summary": 20.0, "content": 0.5}}))
    assert first() == "once"
    with three.transaction():
        assert first() == "once"
    three.revert()
    assert first() == "both"


def test_fewer_candidates_are_read_when_that_was_applied(three: Lab) -> None:
    assert len(three.search("red apple", k=1)) == 1
    three.apply(advice({"candidates": 1}))
    assert three.search_df("red apple", k=1)["text_rank"].tolist() == [1]
    ranks = three.search_df("red apple", k=2)["text_rank"].dropna()
    assert ranks.max() <= 2


@pytest.mark.parametrize("verdict", ["keep", "cannot tell yet"])
def test_what_is_not_recommended_is_not_applied(three: Lab, verdict: str) -> None:
    with pytest.raises(al.InvalidValue, match=verdict):
        three.apply(advice({"text_weight": 1.0}, verdict=verdict))
    assert three.settings_df().empty


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"text_weigth": 0.5}, "search", "did you mean 'text_weight'"),
        ({"text_weight": 1.5}, "search", "less than or equal to 1"),
        ({"text_weight": "much"}, "search", "text_weight='much'"),
        ({"text_column_weights": {"contents": 2.0}}, "search", "text_column_weights"),
        ({"cache_threshold": "high"}, "threshold", "a finite number"),
        ({"cache_threshold": True}, "threshold", "a finite number"),
        ({"relevance": 0.5}, "search", "give a dict"),
    ],
)
def test_a_setting_that_nothing_can_use_is_refused(three: Lab, settings: Any, kind: str, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        three.apply(advice(settings, kind=kind))
    with pytest.raises(al.InvalidValue, match="give a Recommendation"):
        three.apply(settings)
    assert three.settings_df().empty


def test_a_threshold_may_have_a_name_of_its_own(three: Lab) -> None:
    with pytest.raises(al.NotFound, match="no setting 'cache_threshold'"):
        three.setting("cache_threshold")
    assert three.setting("cache_threshold", default=0.9) == 0.9
    three.apply(advice({"cache_threshold": 0.83}, kind="threshold"))
    assert three.setting("cache_threshold") == 0.83
    with pytest.raises(al.NotFound, match="did you mean 'cache_threshold'"):
        three.setting("cache_treshold")


def test_reverting_goes_back_one_application_at_a_time(three: Lab) -> None:
    three.apply(advice({"text_weight": 0.6}))
    three.apply(advice({"text_weight": 0.7, "candidates": 50}))
    assert sorted(three.revert()["setting"]) == ["candidates", "text_weight"]
    assert (three.setting("text_weight"), three.setting("candidates")) == (0.6, 100)
    three.revert("text_weight")
    assert three.setting("text_weight") == 0.5
    with pytest.raises(al.NotFound, match="nothing to revert"):
        three.revert()
    with pytest.raises(al.NotFound, match="no setting 'text_weight' is applied"):
        three.revert("text_weight")


def test_reverting_one_of_two_settings_leaves_the_other(three: Lab) -> None:
    three.apply(advice({"text_weight": 0.7, "candidates": 50}))
    three.revert("candidates")
    assert (three.setting("text_weight"), three.setting("candidates")) == (0.7, 100)
    assert three.revert()["setting"].tolist() == ["text_weight"]


def test_the_history_keeps_the_evidence_and_says_what_is_in_force(three: Lab) -> None:
    assert three.settings_df().dtypes.astype(str).to_dict() == dict(COLUMNS)
    three.apply(advice({"text_weight": 0.6}))
    three.apply(advice({"text_weight": 0.7}))
    three.revert()
    history = three.settings_df()
    assert history.dtypes.astype(str).to_dict() == dict(COLUMNS)
    assert history["value"].tolist() == [0.7, 0.7, 0.6]
    assert history["in_force"].tolist() == [False, False, True]
    assert history["reverts_key"].iloc[0] == history["settings_key"].iloc[1]
    assert history[["interval_low", "estimate", "sample_size", "data_hash"]].iloc[2].tolist() == [
        0.004,
        0.021,
        40,
        "5f0c",
    ]


def test_a_setting_for_other_vectors_warns_once_and_still_holds(three: Lab) -> None:
    three.apply(advice({"similarity_threshold": -1.0}, bound_to=Binding("hash-64@1", 64, "cosine")))
    with pytest.warns(al.SettingMismatchWarning, match="was chosen for minilm@1, 384 dimensions, cosine"):
        three.apply(advice({"text_weight": 0.9}, bound_to=Binding("minilm@1", 384, "cosine")))
    assert three.setting("text_weight") == 0.9
    with al.open(three.config.db_path, embedding_model="hash-64") as other:
        with pytest.warns(al.SettingMismatchWarning, match="are hash-64@1"):
            other.search("red apple")
        other.search("red apple")


def test_a_new_embedding_model_makes_the_old_threshold_warn(three: Lab) -> None:
    three.apply(advice({"similarity_threshold": -1.0}, bound_to=three._applied.binding()))
    three.search("red apple")
    three.embed_contexts("hash-32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        three.search("red apple")
    assert [str(item.message).split(" was chosen")[0] for item in caught] == ["similarity_threshold=-1.0"]


def test_a_read_only_lab_refuses_to_apply_and_still_uses(three: Lab) -> None:
    three.apply(advice({"text_weight": 0.7}))
    with al.open(three.config.db_path, read_only=True, embedding_model="hash-64") as looking:
        assert looking.setting("text_weight") == 0.7
        with pytest.raises(al.ReadOnlyLab):
            looking.revert()


def test_an_application_in_a_transaction_that_fails_is_not_in_force(three: Lab) -> None:
    with pytest.raises(RuntimeError), three.transaction():
        three.apply(advice({"text_weight": 0.7}))
        assert three.setting("text_weight") == 0.7
        raise RuntimeError
    assert three.setting("text_weight") == 0.5


def test_an_entry_without_evidence_is_damage_that_health_survives_and_check_names(lab: Lab) -> None:
    lab.apply(advice({"fusion": "rrf"}))
    lab._storage.update("settings_log", [], {"evidence": None})
    with pytest.raises(al.DamagedLab, match=r"entry 1 of the settings log has no evidence.*al\.check"):
        lab.setting("fusion")
    assert "entry 1" in lab.health()["settings_to_tune_again"]
    assert "evidence is missing" in lab.check()["finding"].tolist()
