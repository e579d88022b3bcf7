"""Tuned searches: the arrays rank as the search does, what gains is recommended, what cannot be told is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from backends import Places

import autom8_lab as al
from autom8_lab import retrieval
from autom8_lab.lab import Lab
from autom8_lab.recommendation import Binding
from autom8_lab.records import Ranking
from autom8_lab.tuning.candidates import Candidates, Goal, goal_of
from autom8_lab.tuning.metrics import MEASURES, ordered, ranking_measures
from autom8_lab.tuning.ranking import SETTINGS_COLUMNS, column_key, grid, measured, plain, recommend
from autom8_lab.tuning.relevance import CUTOFF_COLUMNS, FEATURES, fit, probabilities

BOTH_BACKENDS = True

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
NOW = pd.Timestamp("2026-05-01", tz="UTC").to_pydatetime()


@pytest.fixture(scope="module")
def shop(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with the fixtures' contexts, queries and judgments; three queries are judged to have no answer."""
    with (
        closing(Places(backend, tmp_path_factory.mktemp("shop"))) as place,
        al.open(place("lab.db"), embedding_model="hash-64", synchronous="OFF") as lab,
    ):
        frame = pd.read_json(FIXTURES / "contexts.jsonl", lines=True)
        lab.store_contexts(frame.drop(columns=["supersedes", "created_at"]), progress=False)
        queries = pd.read_json(FIXTURES / "queries.jsonl", lines=True)
        lab.judge(FIXTURES / "judgments.tsv", queries=queries)
        for row in queries[queries["kind"] == "none"].to_dict("records"):
            lab.judge(row["query"], grades={}, query_id=row["query_id"])
        yield lab


@pytest.fixture(autouse=True)
def nothing_stays_applied(shop: Lab) -> Iterator[None]:
    yield
    while shop.settings_df()["in_force"].any():
        shop.revert()


def judged(shop: Lab) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    queries, grades, _ = shop._tuning.judged(None, None)
    return queries, grades


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "ranking",
    [Ranking(), Ranking(text_weight=0.3, candidates=7), Ranking("rrf", 0.7, {"topic": 3.0}, 20), Ranking("rrf", 0.0)],
)
def test_candidates_joined_as_arrays_measure_what_the_search_itself_finds(
    shop: Lab, measure: str, ranking: Ranking
) -> None:
    queries, grades = judged(shop)
    goal = goal_of(measure, 5)
    names = [name for name in queries if grades[name]]
    deep = [
        Candidates.of(shop._retrieval.find(queries[n], depth=60, method="hybrid", ranking=ranking, where=[]), grades[n])
        for n in names
    ]
    values = measured([ranking], {column_key(ranking.text_column_weights): deep}, goal)[0]
    for name, value in zip(names, values, strict=True):
        depth = ranking.candidates
        found = shop._retrieval.find(queries[name], depth=depth, method="hybrid", ranking=ranking, where=[])
        if depth >= 60:
            found = shop._retrieval.find(queries[name], depth=60, method="hybrid", ranking=ranking, where=[])
        ids = ordered(retrieval.fused(found, method="hybrid", ranking=ranking))
        assert value == pytest.approx(ranking_measures(ids, grades[name], k=5)[goal.name], abs=1e-12), name


def test_what_is_in_force_stands_first_in_the_grid_and_no_ranking_twice() -> None:
    found = grid(Ranking("rrf", 0.33, {"topic": 0.0}, 70), columns=[{"topic": 0.0}, {"summary": 3.0}])
    assert found[0] == Ranking("rrf", 0.33, {"topic": 0.0}, 70)
    assert len({repr(plain(ranking)) for ranking in found}) == len(found) == 2 * 2 * 4 * 22


def draw(n: int, *, effect: float, seed: int = 0) -> np.ndarray:
    """Twenty settings on n queries, the first in force; the tenth is better by `effect` on two of five queries."""
    generator = np.random.default_rng(seed)
    values = 0.5 + 0.1 * np.cumsum(generator.normal(size=(20, n)), axis=0) * (generator.random(n) < 0.4)
    values[10] += effect * (generator.random(n) < 0.4)
    return values


def advise(values: np.ndarray, **options: Any) -> al.Recommendation:
    settings = [{"text_weight": place / 20} for place in range(len(values))]
    texts = [f"query {place}" for place in range(values.shape[1])]
    fixed = {"bound_to": Binding(), "now": NOW, "data_hash": "5f0c"}
    return recommend(settings, values, texts, Goal(), **fixed, **options)


def test_a_setting_that_is_better_is_recommended_with_its_gain_out_of_fold() -> None:
    found = advise(draw(200, effect=1.0))
    assert (found.verdict, found.settings) == ("recommend", {"text_weight": 0.5})
    assert found.evidence.held_out
    assert 0 < (found.evidence.low or 0) < (found.evidence.estimate or 0) < 0.6
    assert found.tables["settings"].dtypes.astype(str).to_dict() == dict(SETTINGS_COLUMNS)
    assert found.tables["settings"].loc[0, "text_weight"] == 0.5


def test_a_small_gain_cannot_be_told_and_says_how_many_more_queries_would() -> None:
    found = advise(draw(60, effect=0.3, seed=1))
    assert found.verdict == "cannot tell yet"
    assert "more judged queries would tell" in found.because


@pytest.mark.only_sqlite
def test_without_a_real_difference_at_most_5_percent_recommend() -> None:
    verdicts = [advise(draw(60, effect=0.0, seed=seed)).verdict for seed in range(200)]
    assert verdicts.count("recommend") <= 10
    assert verdicts.count("keep") > 20


def test_the_same_query_many_times_is_one_observation() -> None:
    values = np.repeat(draw(6, effect=1.0), 50, axis=1)
    texts = [f"query {place // 50}" for place in range(300)]
    settings = [{"text_weight": place / 20} for place in range(20)]
    found = recommend(settings, values, texts, Goal(), bound_to=Binding(), now=NOW, data_hash="")
    assert (found.verdict, found.evidence.sample_size) == ("cannot tell yet", 6)
    assert "6 queries are too few" in found.because


def test_settings_that_change_nothing_keep_what_is_in_force() -> None:
    found = advise(np.full((20, 50), 0.7))
    assert (found.verdict, found.settings) == ("keep", {})
    worse = draw(100, effect=0.0)
    worse[1:] = worse[0] - 0.2 * np.random.default_rng(1).random((19, 100))
    assert advise(worse).verdict == "keep"


@pytest.mark.parametrize("measure", ["nDCG", "recall@5", "MRR"])
def test_the_labs_own_judgments_lead_to_a_verdict_that_can_be_applied_or_not(shop: Lab, measure: str) -> None:
    found = shop.tune_search(measure=measure)
    assert found.kind == "search"
    assert found.bound_to == Binding("hash-64@1", 64, "cosine")
    assert found.evidence.sample_size == 37
    table = found.tables["settings"]
    assert table["in_force"].sum() == 1
    # The table's first row is what evaluation finds for these settings.
    best = table.iloc[0]
    options = {
        "fusion": best["fusion"],
        "text_weight": best["text_weight"],
        "text_column_weights": best["text_column_weights"],
    }
    given = {name: value for name, value in options.items() if value is not None and value == value}
    given |= {} if pd.isna(best["candidates"]) else {"candidates": int(best["candidates"])}
    k = goal_of(measure, 10).k
    evaluated = shop.evaluate_search(methods={"best": given}, k=k, depth=10)
    if measure != "MRR":
        assert evaluated.table().loc["best", goal_of(measure, 10).name] == pytest.approx(best["mean"], abs=1e-9)
    if found.verdict == "recommend":
        shop.apply(found)
        assert shop.setting(next(iter(found.settings))) == next(iter(found.settings.values()))


def test_tuning_again_compares_with_what_was_applied(shop: Lab) -> None:
    from autom8_lab.recommendation import Evidence, Recommendation

    evidence = Evidence(1, "nDCG@10", None, None, None, held_out=False, data_hash="")
    shop.apply(Recommendation("search", {"text_weight": 0.0}, "recommend", "", evidence, created_at=NOW))
    found = shop.tune_search()
    assert found.tables["settings"].query("in_force")["text_weight"].tolist() == [0.0]
    assert (found.verdict, found.settings["text_weight"] > 0.3) == ("recommend", True)
    shop.apply(found)
    assert shop.tune_search().verdict != "recommend"


def test_a_cutoff_leaves_queries_without_an_answer_empty(lab: Lab) -> None:
    for place in range(40):
        lab.store_context(
            f"item number {place} costs {place} euros in the shop of street {place}", context_id=f"item-{place}"
        )
    for place in range(40):
        lab.judge(f"what does item number {place} of street {place} cost", grades={f"item-{place}": 3})
        lab.judge(f"weather forecast {place} euros for tomorrow evening {place * 7}", grades={})
    found = lab.tune_search(what="cutoff")
    assert found.verdict == "recommend"
    assert found.tables["cutoffs"].dtypes.astype(str).to_dict() == dict(CUTOFF_COLUMNS)
    assert found.evidence.details["queries_with_nothing_relevant"] == 40
    assert found.evidence.details["auc"] > 0.9
    assert "of the queries without one" in found.because
    lab.apply(found)
    assert lab.search("weather forecast 3 euros for tomorrow evening 21") == []
    assert len(lab.search("weather forecast 3 euros for tomorrow evening 21", min_relevance=0)) == 10
    hits = lab.search_df("what does item number 5 of street 5 cost")
    assert hits.loc[0, "context_id"] == "item-5"
    assert (hits["relevance"] >= found.settings["relevance"]["cutoff"]).all()
    assert lab.search("weather forecast 3 euros", method="text") != []
    with pytest.warns(al.SettingMismatchWarning, match="text_weight=0.9 instead of 0.5"):
        lab.search("what does item number 5 of street 5 cost", text_weight=0.9)
    with pytest.raises(al.InvalidValue, match="min_relevance=2"):
        lab.search("item", min_relevance=2)
    assert (
        lab.evaluate_search(methods={"cut": {}, "all": {"min_relevance": 0}})
        .per_query.groupby("method")["results"]
        .sum()["cut"]
        < 400
    )


def test_probabilities_of_arrays_are_those_of_one_result() -> None:
    from autom8_lab.records import Relevance

    generator = np.random.default_rng(0)
    features = generator.random((400, 3))
    right = generator.random(400) < features[:, 0]
    model = fit(features, right)
    single = Relevance(**model, cutoff=0.5)
    for row, value in zip(features[:20], probabilities(features, model), strict=False):
        assert single.probability(**dict(zip(FEATURES, row.tolist(), strict=True))) == pytest.approx(value)
    assert model["similarity"] > 2 > abs(model["score"])


def test_where_no_cutoff_helps_none_is_recommended(shop: Lab) -> None:
    found = shop.tune_search(what="cutoff")
    assert found.verdict in ("keep", "cannot tell yet", "recommend")
    assert 0 < found.evidence.details["ece"] < 0.2
    few = shop.tune_search(["refund"], judgments={"refund": ["policy-returns-2026-01"]}, what="cutoff")
    assert (few.verdict, few.settings) == ("cannot tell yet", {})
    assert "1 queries are too few" in few.because
    some = dict(list(judged(shop)[1].items())[:12])
    texts = {name: judged(shop)[0][name] for name in some}
    nothing = shop.tune_search(texts, judgments={name: {} for name in texts}, what="cutoff")
    assert (nothing.verdict, nothing.settings) == ("cannot tell yet", {})
    assert "0 of 120 results are relevant" in nothing.because


def test_relevance_without_an_applied_model_says_how_to_get_one(shop: Lab) -> None:
    with pytest.raises(al.InvalidValue, match=r"tune_search\(what=\"cutoff\"\)"):
        shop.search("refund", min_relevance=0.5)
    assert shop.search_df("refund")["relevance"].isna().all()


def test_chunk_sizes_are_compared_in_memory_and_applied_by_embedding_anew(shop: Lab) -> None:
    before = shop.stats()["chunks"]
    found = shop.tune_search(what="chunks", chunk_tokens=[40])
    table = found.tables["settings"].set_index("chunk_tokens")
    assert sorted(table.index) == [40, 250]
    assert table.loc[250, "in_force"]
    assert shop.stats()["chunks"] == before
    evaluated = shop.evaluate_search(methods=["hybrid"]).table().loc["hybrid", "nDCG@10"]
    assert table.loc[250, "mean"] == pytest.approx(evaluated, abs=1e-9)
    from autom8_lab.recommendation import Evidence, Recommendation

    evidence = Evidence(1, "nDCG@10", None, None, None, held_out=False, data_hash="")
    sizes = {"chunk_tokens": 40, "chunk_overlap_tokens": 8}
    shop.apply(Recommendation("search", sizes, "recommend", "", evidence, created_at=NOW))
    shop.embed_contexts(progress=False)
    again = shop.evaluate_search(methods=["hybrid"]).table().loc["hybrid", "nDCG@10"]
    assert again == pytest.approx(table.loc[40, "mean"], abs=1e-9)
    shop.revert()
    shop.embed_contexts(progress=False)
    assert shop.evaluate_search(methods=["hybrid"]).table().loc["hybrid", "nDCG@10"] == evaluated


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"what": "rankings"}, "did you mean 'ranking'"),
        ({"measure": "ndgc"}, "measure='ndgc'; known names"),
        ({"measure": "nDCG@0"}, "measure='nDCG@0'"),
        ({"k": 0}, "k=0"),
        ({"what": "chunks"}, "give both or neither"),
        ({"chunk_tokens": [100]}, "give both or neither"),
        ({"queries": ["refund"], "judgments": {"refund": {"policy-returns-2026-01": 0}}}, "judge some"),
    ],
)
def test_a_question_that_means_nothing_is_refused(shop: Lab, given: dict[str, Any], message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        shop.tune_search(given.pop("queries", None), **given)


def test_a_recommendation_of_a_cutoff_survives_json(shop: Lab) -> None:
    found = shop.tune_search(what="cutoff")
    assert al.Recommendation.from_dict(json.loads(json.dumps(found.to_dict()))) == found
