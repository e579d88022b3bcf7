"""What tuning needs from one lab: judged queries, and the results of its searches."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .. import retrieval
from ..applied import RANKING, AppliedSettings
from ..contexts import Contexts
from ..errors import InvalidValue, did_you_mean
from ..frames import frame
from ..indexing import Index
from ..judgments import Judgments, refuse_unknown
from ..recommendation import Binding, Recommendation
from ..records import Ranking
from ..retrieval import METHODS, Found, Retrieval
from ..validation import shortened
from .candidates import Candidates
from .candidates import Goal as Ranked
from .candidates import goal_of as ranked_by
from .evaluation import Evaluation, Run, evaluate
from .judged import CONTEXT_IDS, QUERY_IDS, column_of, data_hash, read_judgments, read_queries
from .labels import are_pairs, read_labels
from .ranking import COLUMN_WEIGHTS, changes, column_key, grid, measured, plain, recommend, refuse_without
from .relevance import recommend_cutoff
from .scoring import pair_labels, search_labels
from .thresholds import Goal, tune

if TYPE_CHECKING:
    import pandas as pd

PLAIN_FILTERS = ("topic", "source", "pinned", "min_priority", "metadata", "since", "until")
FILTERS = (*PLAIN_FILTERS, "include_expired", "include_superseded")
OPTIONS = ("method", "min_similarity", "min_relevance", *RANKING, *FILTERS)
POOL_COLUMNS = {
    "query_id": "str",
    "query": "str",
    "context_id": "str",
    "topic": "str",
    "content": "str",
    "grade": "Int64",
}


class Tuning:
    """Reads judged queries and searches of one lab."""

    def __init__(
        self,
        index: Index,
        retrieval: Retrieval,
        contexts: Contexts,
        applied: AppliedSettings,
        judgments: Judgments,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._index = index
        self._retrieval = retrieval
        self._contexts = contexts
        self._applied = applied
        self._judgments = judgments
        self._clock = clock

    def binding(self) -> Binding:
        """Return the vectors that answer searches now."""
        return self._applied.binding()

    def now(self) -> datetime:
        """Return the lab's time."""
        return self._clock()

    def judged(self, queries: Any, judgments: Any) -> tuple[dict[str, str], dict[str, dict[str, int]], list[str]]:
        """Return queries and grades by id, and notes; without arguments those that are kept in the file."""
        if judgments is None:
            if queries is not None:
                raise InvalidValue(
                    f"queries={shortened(queries)} without judgments: give both, or neither for those that al.judge() kept"
                )
            kept = self._judgments.stored()
            if not kept[0]:
                raise InvalidValue(
                    "no judgments are kept yet: give queries and judgments, or collect some with al.judge()"
                )
            return kept
        grades = read_judgments(judgments)
        texts = {name: name for name in grades} if queries is None else read_queries(queries)
        unknown: list[str] = []
        canonical = {name: self._judgments.canonical(grades[name], unknown=unknown) for name in texts if name in grades}
        refuse_unknown(sorted(set(unknown)))
        return (
            texts,
            {name: {key: int(grade or 0) for key, grade in own.items()} for name, own in canonical.items()},
            [],
        )

    def evaluate(self, queries: Any, judgments: Any, *, methods: Any, k: int, depth: int) -> Evaluation:
        """See `Lab.evaluate_search`."""
        texts, grades, notes = self.judged(queries, judgments)
        wanted = {name: text for name, text in texts.items() if grades.get(name)}
        runs: dict[str, Run] = {}
        options: dict[str, dict[str, Any]] = {}
        for name, chosen in _methods(methods).items():
            if hasattr(chosen, "columns"):
                runs[name] = _run_of(chosen)
            else:
                options[name] = chosen
                runs[name] = {}
        for query_id, text in wanted.items():
            for name, scores in self._results(text, options, k=max(k, depth)).items():
                runs[name][query_id] = scores  # type: ignore[index]
        return evaluate(runs, texts, grades, k=k, notes=notes)

    def _results(self, query: str, options: Mapping[str, Mapping[str, Any]], *, k: int) -> dict[str, dict[str, float]]:
        """Return each method's scores of its k best results; what methods have in common is looked up once."""
        known: dict[str, Found] = {}
        result = {}
        for name, chosen in options.items():
            method = chosen.get("method", "hybrid")
            ranking = self._applied.ranking(chosen)
            filters = {key: chosen[key] for key in FILTERS if key in chosen}
            # A text search alone needs no model; the other two look at the same candidates.
            looked = repr((method == "text", ranking.candidates, ranking.text_column_weights, filters))
            if looked not in known:
                where = retrieval.conditions(now=self._clock(), **filters)
                looking: Any = "text" if method == "text" else "hybrid"
                known[looked] = self._retrieval.find(
                    query, depth=max(ranking.candidates, k), method=looking, ranking=ranking, where=where
                )
            found = known[looked]
            smallest = chosen.get("min_similarity")
            if smallest is None and method != "text":
                smallest = self._applied.value("similarity_threshold")
            scores = dict(retrieval.ranked(found, k=k, method=method, ranking=ranking, min_similarity=smallest))
            model = self._applied.relevance(ranking, chosen.get("min_relevance")) if method == "hybrid" else None
            likely = retrieval.relevant(found, scores, model) if model is not None and found.near else scores
            result[name] = {context_id: scores[context_id] for context_id in likely}
        return result

    def pool(self, query: str, *, methods: Any, k: int, seed: int, query_id: str | None) -> pd.DataFrame:
        """Return the results of all methods in an order that tells nothing, with the grades that are kept."""
        name = self._judgments.query_id(query, query_id)
        found = self._results(query, _methods(methods), k=k)
        ids = sorted({context_id for scores in found.values() for context_id in scores})
        random.Random(f"{seed} {query}").shuffle(ids)
        grades = self._judgments.stored()[1].get(name, {})
        missing = [context_id for context_id in grades if context_id not in ids]
        return self._pool_frame({name: query}, {name: dict.fromkeys([*ids, *missing]) | grades})

    def keep(self, queries: Mapping[str, str], grades: Mapping[str, Mapping[str, int | None]]) -> pd.DataFrame:
        """Keep grades and return them as `pool` does."""
        self._judgments.store(queries, grades)
        kept = self._judgments.stored()[1]
        return self._pool_frame(queries, {name: kept[name] for name in grades})

    def _pool_frame(self, queries: Mapping[str, str], grades: Mapping[str, Mapping[str, int | None]]) -> pd.DataFrame:
        ids = list(dict.fromkeys(context_id for own in grades.values() for context_id in own))
        contexts = {item.id: item for item in self._contexts.by_ids(ids)}
        rows = [
            {
                "query_id": name,
                "query": queries[name],
                "context_id": key,
                "topic": contexts[key].topic,
                "content": contexts[key].content,
                "grade": grade,
            }
            for name, own in grades.items()
            for key, grade in own.items()
            if key in contexts
        ]
        return frame(rows, POOL_COLUMNS)

    def judge(
        self, query: Any, *, grades: Any, queries: Any, methods: Any, k: int, seed: int, query_id: str | None
    ) -> pd.DataFrame:
        """See `Lab.judge`."""
        if isinstance(query, str) and queries is None:  # with queries it is the path of a file of judgments
            if grades is None:
                return self.pool(query, methods=methods, k=k, seed=seed, query_id=query_id)
            name = self._judgments.query_id(query, query_id)
            return self.keep({name: query}, {name: _grades(grades)})
        if grades is not None:
            raise InvalidValue("grades belong to the text of one query: give them inside the frame or dict instead")
        texts, own = _filled_in(query, queries)
        names = {name: self._judgments.query_id(text, None if name == text else name) for name, text in texts.items()}
        kept = {names[name]: values for name, values in own.items()}
        return self.keep({names[name]: texts[name] for name in own}, kept)

    def search_settings(
        self, queries: Any, judgments: Any, *, what: str, measure: str, k: int, confidence: float, seed: int
    ) -> Recommendation:
        """See `Lab.tune_search`, for the ranking and the cutoff."""
        goal = ranked_by(measure, k)
        texts, grades, notes = self.judged(queries, judgments)
        in_force = self._applied.ranking({})
        # That nothing is relevant teaches a cutoff, and no ranking.
        judged = {name: text for name, text in texts.items() if name in grades and (grades[name] or what == "cutoff")}
        asked, own = list(judged.values()), [grades[name] for name in judged]
        common: dict[str, Any] = {"bound_to": self.binding(), "now": self.now(), "notes": notes, "seed": seed}
        common |= {"data_hash": data_hash(asked, own), "confidence": confidence}
        if what == "cutoff":
            found = self._candidates(asked, own, in_force, in_force.candidates)
            return recommend_cutoff(found, asked, in_force, k=goal.k, **common)
        refuse_without(own)
        rankings = grid(in_force, columns=self._columns_worth_trying())
        depth = max(ranking.candidates for ranking in rankings)
        known: dict[str, list[Candidates]] = {}
        for ranking in rankings:
            if (key := column_key(ranking.text_column_weights)) not in known:
                known[key] = self._candidates(asked, own, ranking, depth)
        settings = [plain(in_force), *(changes(ranking, in_force) for ranking in rankings[1:])]
        return recommend(settings, measured(rankings, known, goal), asked, goal, **common)

    def _columns_worth_trying(self) -> list[Mapping[str, float]]:
        used = self._contexts.columns_in_use(("topic", "summary"))
        return [weights for weights in COLUMN_WEIGHTS if set(weights) <= used]

    def _candidates(
        self, queries: Sequence[str], grades: Sequence[Mapping[str, int]], ranking: Ranking, depth: int
    ) -> list[Candidates]:
        where = retrieval.conditions(now=self._clock())
        return [
            Candidates.of(self._retrieval.find(query, depth=depth, method="hybrid", ranking=ranking, where=where), own)
            for query, own in zip(queries, grades, strict=True)
        ]

    def measures(
        self, queries: Mapping[str, str], grades: Mapping[str, Mapping[str, int]], goal: Ranked
    ) -> list[float]:
        """Return the measure of each query, searched for as now."""
        ranking = self._applied.ranking({})
        found = self._candidates(
            list(queries.values()), [grades[name] for name in queries], ranking, ranking.candidates
        )
        return list(measured([ranking], {column_key(ranking.text_column_weights): found}, goal)[0].tolist())

    def threshold(self, data: Any, goal: Goal, *, judgments: Any, setting: str, by: str | None) -> Recommendation:
        """See `Lab.tune_threshold`."""
        if data is None or judgments is not None:
            queries, grades, notes = self.judged(data, judgments)
            labels, origin = search_labels(queries, grades, self._nearest, tuple(notes)), "searches"
        elif are_pairs(data):
            labels, origin = pair_labels(data, self._index.serving_encoder(), self._applied.metric), "pairs"
        else:
            labels, origin = read_labels(data), "labels"
        in_force = self._applied.in_force().get(setting, {}).get("value")
        if in_force is None and setting == "similarity_threshold":
            in_force = self._applied.value(setting)
        options: dict[str, Any] = {"setting": setting, "in_force": in_force, "by": by, "origin": origin}
        return tune(labels, goal, bound_to=self._applied.binding(), now=self._clock(), **options)

    def _nearest(self, query: str) -> Found:
        where = retrieval.conditions(now=self._clock())
        return self._retrieval.find(query, depth=1, method="semantic", ranking=Ranking(), where=where)

    def judgment_rows(self) -> list[dict[str, Any]]:
        """See `Lab.judgments_df`."""
        return self._judgments.rows()


def _methods(methods: Any) -> dict[str, Any]:
    """Return the options of each method by its name."""
    if isinstance(methods, str) or not isinstance(methods, Mapping | Sequence) or not methods:
        raise InvalidValue(f"methods={shortened(methods)}: give a list such as ['hybrid', 'text'], or options by name")
    named = methods if isinstance(methods, Mapping) else {name: {"method": name} for name in methods}
    for name, options in named.items():
        if hasattr(options, "columns"):
            continue
        if not isinstance(options, Mapping):
            raise InvalidValue(
                f"methods[{name!r}]={shortened(options)}: give the options of a search, or a frame of results"
            )
        for option in options:
            if option not in OPTIONS:
                raise InvalidValue(f"methods[{name!r}] has {option!r}{did_you_mean(str(option), OPTIONS)}")
        method = options.get("method", "hybrid")
        if method not in METHODS:
            raise InvalidValue(f"method={method!r}{did_you_mean(str(method), METHODS)}")
    return dict(named)


def _run_of(results: Any) -> Run:
    """Return a frame of results (query_id, context_id, score) as scores."""
    ids, names = (column_of(results, known, "results").tolist() for known in (QUERY_IDS, CONTEXT_IDS))
    run: dict[str, dict[str, float]] = {}
    for query_id, context_id, score in zip(ids, names, column_of(results, ("score",), "results").tolist(), strict=True):
        if isinstance(score, bool) or not isinstance(score, int | float) or score != score:
            raise InvalidValue(f"score={score!r} of {context_id!r} for query {query_id!r}: give a number")
        run.setdefault(str(query_id), {})[str(context_id)] = float(score)
    return run


def _grades(grades: Any) -> dict[str, int | None]:
    """Return the grades of one query from a dict or a filled-in pool; a removed one is None."""
    if isinstance(grades, Mapping):
        removed: dict[str, int | None] = {str(name): None for name, grade in grades.items() if grade is None}
        given = {name: grade for name, grade in grades.items() if grade is not None}
        return removed | read_judgments({"query": given})["query"]
    if not hasattr(grades, "columns"):
        raise InvalidValue(f"grades={shortened(grades)}: give a dict of grades by context_id, or the filled-in frame")
    column_of(grades, ("grade",), "grades")
    filled = grades.dropna(subset=["grade"])
    return dict(read_judgments(filled.assign(query_id="query")).get("query", {}))


def _filled_in(judged: Any, queries: Any) -> tuple[dict[str, str], dict[str, dict[str, int | None]]]:
    """Return queries and grades from a filled-in frame, or from judgments with their queries."""
    if hasattr(judged, "columns"):
        known = [name for name in ("grade", "relevance") if name in judged.columns]
        judged = judged.dropna(subset=known[:1])
        if queries is None:
            queries = judged
    grades = read_judgments(judged)
    texts = {name: name for name in grades} if queries is None else _unique_queries(queries)
    if missing := [name for name in grades if name not in texts]:
        raise InvalidValue(f"no text of query {missing[0]!r}: give queries={{query_id: text}} with all of them")
    return texts, {name: dict(own) for name, own in grades.items()}


def _unique_queries(queries: Any) -> dict[str, str]:
    return read_queries(
        queries.drop_duplicates(["query_id", "query"]) if "query" in getattr(queries, "columns", ()) else queries
    )
