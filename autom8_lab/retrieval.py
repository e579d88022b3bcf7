"""What a search is: two rankings, joined and explained."""

from __future__ import annotations

import copy
import re
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from .errors import DegradedSearchWarning, InvalidValue, ModelUnavailable, did_you_mean
from .excerpts import LONG_CHARS, passage_of
from .frames import TIME
from .records import (
    Condition,
    Context,
    Nearest,
    Neighbour,
    Operator,
    Ranking,
    Relevance,
    SearchAnswer,
    SearchHit,
    SearchMethod,
    TextMatch,
)
from .validation import (
    flag_value,
    integer_value,
    metadata_value,
    moment,
    name_value,
    positive_integer,
    shortened,
)

if TYPE_CHECKING:
    from .indexing import Index
    from .storage import Storage

RRF_K = 60  # Cormack, Clarke and Büttcher 2009
MAX_K = 10_000
MAX_TERMS = 256
KEPT_ANSWERS = 256  # the latest, of one state of the file
TERM = re.compile(r"[^\W_]+")
# gpt-4o-mini, ERR_PAY_4021, 0-dimensional. Possessive, and only from a word's start: 100 kB of "f" stay linear.
COMPOUND = re.compile(r"(?<![^\W_])[^\W_]++(?:[-./_+]++[^\W_]++)++")
# Lucene's English stop words and the words that questions are made of.
STOP_WORDS = frozenset(
    """
    a an and are as at be but by for if in into is it no not of on or such that the their then there these they this
    to was will with about can could did do does from had has have how i me my our should we what when where which who
    whom why would you your
    """.split()
)
METHODS = ("hybrid", "text", "semantic")

COLUMNS = {
    "rank": "int64",
    "context_id": "str",
    "topic": "str",
    "content": "str",
    "score": "float64",
    "text_rank": "Int64",
    "text_score": "float64",
    "semantic_rank": "Int64",
    "similarity": "float64",
    "matched_terms": "object",
    "chunk": "str",
    "chunk_start": "Int64",
    "chunk_end": "Int64",
    "age_days": "float64",
    "relevance": "float64",
    "pinned": "bool",
    "priority": "int64",
    "summary": "str",
    "source": "str",
    "metadata": "object",
    "created_at": TIME,
    "aliases": "object",
    "query": "str",
}


def query_terms(query: str) -> list[str]:
    """Return what text search looks for: words in lower case, each once, stop words dropped unless all are.

    Compounds are looked for as a whole too, as a phrase: a name or code that is there literally ranks first.

    >>> query_terms("What is the C++?  foo\\"bar NEAR( gpt-4o")
    ['c', 'foo', 'bar', 'near', 'gpt', '4o', 'gpt-4o']
    """
    text = query.lower()
    words = list(dict.fromkeys(TERM.findall(text)))
    kept = [word for word in words if word not in STOP_WORDS]
    return [*(kept or words), *dict.fromkeys(COMPOUND.findall(text))][:MAX_TERMS]


def conditions(
    *,
    now: datetime,
    topic: str | Sequence[str] | None = None,
    source: str | Sequence[str] | None = None,
    pinned: bool | None = None,
    min_priority: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    since: Any = None,
    until: Any = None,
    include_expired: bool = False,
    include_superseded: bool = False,
) -> list[Condition]:
    """Turn the filters of a search or listing into conditions. Raises `InvalidValue`."""
    where = []
    for name, given in (("topic", topic), ("source", source)):
        if given is not None:
            alternatives = given if isinstance(given, list | tuple) else [given]
            where.append(Condition(name, "in", [name_value(item, name) for item in alternatives]))
    if pinned is not None:
        where.append(Condition("pinned", "=", flag_value(pinned, "pinned")))
    if min_priority is not None:
        where.append(Condition("priority", ">=", integer_value(min_priority, "min_priority")))
    where += between("created_at", since=since, until=until, now=now)
    for key, value in metadata_value({} if metadata is None else metadata).items():
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(x, dict | list) for x in value)):
            raise InvalidValue(f"metadata[{key!r}]={shortened(value)}: compare with a single value, or a list of them")
        where.append(Condition("metadata", "in" if isinstance(value, list) else "=", value, key=key))
    if not flag_value(include_superseded, "include_superseded"):
        where.append(Condition("superseded_by", "is null"))
    if not flag_value(include_expired, "include_expired"):
        where.append(Condition("expires_at", "null or >", now))
    return where


def between(column: str, *, since: Any, until: Any, now: datetime) -> list[Condition]:
    """Return the conditions for a time from `since` (inclusive) to `until`."""
    tests: list[tuple[str, Any, Operator]] = [("since", since, ">="), ("until", until, "<")]
    return [Condition(column, test, moment(value, name, now=now)) for name, value, test in tests if value is not None]


class ContextFilters(TypedDict, total=False):
    """The filters of contexts; see `Lab.list_contexts`."""

    topic: str | Sequence[str] | None
    source: str | Sequence[str] | None
    pinned: bool | None
    min_priority: int | None
    metadata: Mapping[str, Any] | None
    since: Any
    until: Any
    include_expired: bool
    include_superseded: bool


@dataclass
class Found:
    """What the two rankers know about the candidates of one search, and how they were found.

    `text` and `near` know the union of the two rankings' candidates; a rank above `depth` is none of a candidate.
    """

    depth: int
    terms: list[str] = field(default_factory=list)
    text: dict[str, TextMatch] = field(default_factory=dict)
    near: dict[str, Neighbour] = field(default_factory=dict)
    semantic_ranks: dict[str, int] = field(default_factory=dict)
    engine: str | None = None
    engine_reason: str | None = None
    degraded: str | None = None


class _Remembered(NamedTuple):
    """An answer, and its hits each with its metadata apart: that of the answer's own may change."""

    answer: SearchAnswer
    hits: list[tuple[SearchHit, Mapping[str, Any]]]


class Retrieval:
    """Searches one lab."""

    def __init__(self, storage: Storage, index: Index, *, clock: Callable[[], datetime]) -> None:
        self._storage = storage
        self._index = index
        self._clock = clock

    def search(
        self,
        query: str,
        *,
        k: int,
        method: SearchMethod,
        ranking: Ranking,
        min_similarity: float | None,
        where: Sequence[Condition],
        filters: Mapping[str, Any],
        contexts_of: Callable[[Sequence[str]], list[Context]],
        relevance: Relevance | None = None,
        nearest: Nearest | None = None,
    ) -> SearchAnswer:
        """Answer a query. Every text is legal; raises `InvalidValue`, and `ModelUnavailable` for semantic."""
        started = time.perf_counter()
        k = self._checked(query, k, method, min_similarity)
        query = _encodable(query)
        effective = self._storage.effective(where)
        # What changes with the clock alone is asked again; all else stays as long as nobody writes.
        lasting = not any(isinstance(condition.value, datetime) for condition in effective)
        asked = repr((query, k, method, ranking, min_similarity, relevance, effective))
        known: OrderedDict[str, _Remembered] = self._storage.remember("answers", OrderedDict)
        remembered = known.get(asked) if lasting else None
        if remembered is not None:
            hits = self._hits_again(remembered)
            duration_ms = (time.perf_counter() - started) * 1000
            return replace(remembered.answer, hits=hits, duration_ms=duration_ms, filters=filters)
        depth = _depth(k, method, ranking)
        found = self.find(query, depth=depth, method=method, ranking=ranking, where=where, nearest=nearest)
        scores = dict(ranked(found, k=k, method=method, ranking=ranking, min_similarity=min_similarity))
        likely: dict[str, float] = {}
        if relevance is not None and method == "hybrid" and found.near:
            likely = relevant(found, scores, relevance)
            scores = {name: scores[name] for name in likely}
        hits = self._explained(contexts_of(list(scores)), found, scores, found.terms if method != "semantic" else [])
        if likely:
            hits = [replace(hit, relevance=likely.get(hit.context.id)) for hit in hits]
        top = max((near.similarity for near in found.near.values()), default=None)
        duration_ms = (time.perf_counter() - started) * 1000
        engines = (found.engine, found.engine_reason)
        answer = SearchAnswer(hits, query, method, found.degraded, *engines, duration_ms, filters, top)
        if lasting and answer.degraded is None:
            # Nothing else of a hit can be changed by whoever gets it.
            known[asked] = _Remembered(answer, [(hit, copy.deepcopy(hit.context.metadata)) for hit in hits])
            if len(known) > KEPT_ANSWERS:
                known.popitem(last=False)
        return answer

    def _hits_again(self, remembered: _Remembered) -> list[SearchHit]:
        """Return hits of this moment that share nothing which their owner may change."""
        now, hits = self._clock(), remembered.hits
        where = [Condition("id", "in", [hit.context.id for hit, _ in hits])]
        columns = ["id", "accessed_at", "access_count"]  # that a context was accessed makes nothing forgotten
        accesses = {row.pop("id"): row for row in self._storage.rows("context_registry", where=where, columns=columns)}
        return [
            replace(
                hit,
                age_days=(now - hit.context.created_at).total_seconds() / 86_400,
                context=replace(hit.context, metadata=copy.deepcopy(metadata), **accesses.get(hit.context.id, {})),
            )
            for hit, metadata in hits
        ]

    def search_many(
        self, queries: Sequence[str], *, k: int, method: SearchMethod, ranking: Ranking, **options: Any
    ) -> list[SearchAnswer]:
        """Answer several queries, their vectors compared with all others at once."""
        for query in queries:
            self._checked(query, k, method, options["min_similarity"])
        distinct = [query for query in dict.fromkeys(map(_encodable, queries)) if query.strip()]
        nearest: dict[str, Nearest] = {}
        # Without a model each search says on its own what that means for it.
        with suppress(ModelUnavailable):
            meant = (
                [found for query in distinct if (found := self._index.query_vector(query))] if method != "text" else []
            )
            if meant:
                import numpy as np

                vectors, depth = np.stack([vector for _, vector in meant]), _depth(k, method, ranking)
                near = self._storage.nearest_many(vectors, set_key=meant[0][0].set_key, k=depth, where=options["where"])
                nearest = dict(zip(distinct, near, strict=True))
        return [
            self.search(query, k=k, method=method, ranking=ranking, nearest=nearest.get(_encodable(query)), **options)
            for query in queries
        ]

    def find(
        self,
        query: str,
        *,
        depth: int,
        method: SearchMethod,
        ranking: Ranking,
        where: Sequence[Condition],
        nearest: Nearest | None = None,
    ) -> Found:
        """Return the candidates of a query, each ranking read to `depth`. Raises `ModelUnavailable` for semantic.

        `nearest` is what the vectors say, where that is known already.
        """
        found = Found(depth, query_terms(query))
        meant = None
        if method != "text" and query.strip():
            try:
                meant = self._index.query_vector(query)
            except ModelUnavailable as exc:
                if method == "semantic":
                    raise
                found.degraded = str(exc)
                warnings.warn(f"hybrid search answers by text alone: {exc}", DegradedSearchWarning, stacklevel=5)
        if meant is not None:
            set_key = meant[0].set_key
            answer = nearest or self._storage.nearest(meant[1], set_key=set_key, k=depth, where=where)
            found.engine, found.engine_reason = answer.engine, answer.reason
            found.near = {item.context_id: item for item in answer.neighbours}
            found.semantic_ranks = {item.context_id: rank for rank, item in enumerate(answer.neighbours, 1)}
        if method != "semantic" and found.terms:
            weights, include = ranking.text_column_weights, list(found.near)
            matches = self._storage.match_text(
                found.terms, k=depth, where=where, include=include, column_weights=weights
            )
            found.text = {item.context_id: item for item in matches}
        if method == "hybrid" and meant is not None:
            unknown = [context_id for context_id in found.text if context_id not in found.near]
            found.near |= self._storage.similarities(meant[1], set_key=meant[0].set_key, context_ids=unknown)
        return found

    @staticmethod
    def _checked(query: str, k: int, method: str, min_similarity: float | None) -> int:
        if not isinstance(query, str):
            raise InvalidValue(f"query={shortened(query)} is a {type(query).__name__}: give a str")
        if method not in METHODS:
            raise InvalidValue(f"method={method!r}{did_you_mean(str(method), METHODS)}")
        if min_similarity is not None:
            if method == "text":
                raise InvalidValue(
                    f"min_similarity={min_similarity!r} needs vectors: use method='hybrid' or 'semantic'"
                )
            if (
                isinstance(min_similarity, bool)
                or not isinstance(min_similarity, int | float)
                or min_similarity != min_similarity
            ):
                raise InvalidValue(f"min_similarity={min_similarity!r}: give a number, under cosine from -1 to 1")
        return positive_integer(k, "k", at_most=MAX_K)

    def _explained(
        self, contexts: Sequence[Context], found: Found, scores: Mapping[str, float], terms: Sequence[str]
    ) -> list[SearchHit]:
        ids = [item.id for item in contexts]
        matched = self._storage.matched_terms(terms, ids) if terms else {}
        without_chunk = [item.id for item in contexts if item.id not in found.near and len(item.content) <= LONG_CHARS]
        passages = self._storage.passages(terms, without_chunk) if terms and without_chunk else {}
        now = self._clock()
        hits = []
        for rank, context in enumerate(contexts, 1):
            text, near = found.text.get(context.id), found.near.get(context.id)
            terms_here = matched.get(context.id, ())
            start, end = passage_of(context.content, near, passages.get(context.id), terms_here)
            hits.append(
                SearchHit(
                    rank=rank,
                    context=context,
                    score=scores[context.id],
                    text_rank=text.rank if text and text.rank <= found.depth else None,
                    text_score=text.score if text else None,
                    semantic_rank=found.semantic_ranks.get(context.id),
                    similarity=near.similarity if near else None,
                    matched_terms=terms_here,
                    chunk=context.content[start:end],
                    chunk_start=start,
                    chunk_end=end,
                    age_days=(now - context.created_at).total_seconds() / 86_400,
                )
            )
        return hits


def _encodable(query: str) -> str:
    return query.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text to any engine


def _depth(k: int, method: SearchMethod, ranking: Ranking) -> int:
    return max(ranking.candidates, k) if method == "hybrid" else k


def ranked(
    found: Found, *, k: int, method: str, ranking: Ranking, min_similarity: float | None
) -> list[tuple[str, float]]:
    """Return the ids of the k best candidates with their scores, best first; ties by id."""
    scores = fused(found, method="text" if found.degraded else method, ranking=ranking)
    if min_similarity is not None and found.degraded is None:
        near = found.near
        scores = {
            name: score for name, score in scores.items() if name in near and near[name].similarity >= min_similarity
        }
    return nsmallest(k, scores.items(), key=lambda item: (-item[1], item[0]))


def relevant(found: Found, scores: Mapping[str, float], model: Relevance) -> dict[str, float]:
    """Return how likely each of the scored candidates is relevant, without those below the cutoff."""
    terms = max(1, len(found.terms))
    likely = {}
    for name, score in scores.items():
        text, near = found.text.get(name), found.near.get(name)
        likely[name] = model.probability(
            similarity=near.similarity if near else 0.0,
            text_score_per_term=text.score / terms if text else 0.0,
            score=score,
        )
    return {name: value for name, value in likely.items() if value >= model.cutoff}


def fused(found: Found, *, method: str, ranking: Ranking) -> dict[str, float]:
    """Return every candidate's score.

    `scores`: each ranker's score divided by the query's best, averaged with the ranking's weights, both known for the
    union of the candidates (a convex combination, Bruch et al. 2023, arXiv:2210.11934). `rrf`: reciprocal rank fusion,
    scaled so that first in both rankings is 1.
    """
    if method == "text":
        return {context_id: match.score for context_id, match in found.text.items()}
    if method == "semantic":
        return {context_id: near.similarity for context_id, near in found.near.items()}
    of_text, of_near = ranking.text_weight, 1 - ranking.text_weight
    scores: dict[str, float] = {}
    if ranking.fusion == "rrf":
        text_ranks = {context_id: m.rank for context_id, m in found.text.items() if m.rank <= found.depth}
        for weight, ranks in ((of_text, text_ranks), (of_near, found.semantic_ranks)):
            for context_id, rank in ranks.items():
                scores[context_id] = scores.get(context_id, 0.0) + weight * (RRF_K + 1) / (RRF_K + rank)
        return scores
    best_text = max((match.score for match in found.text.values()), default=0.0)
    best_near = max((near.similarity for near in found.near.values()), default=0.0)
    for context_id, match in found.text.items():
        scores[context_id] = of_text * (match.score / best_text if best_text > 0 else 0.0)
    for context_id, near in found.near.items():
        score = of_near * (near.similarity / best_near if near.similarity > 0 else 0.0)
        scores[context_id] = scores.get(context_id, 0.0) + score
    return scores


def hit_row(hit: SearchHit) -> dict[str, Any]:
    """Return a hit as a row of `COLUMNS`."""
    names = (
        "topic",
        "content",
        "pinned",
        "priority",
        "summary",
        "source",
        "metadata",
        "created_at",
        "aliases",
    )
    own = {name: getattr(hit, name) for name in COLUMNS if hasattr(hit, name)}
    return {**own, "context_id": hit.context.id, **{name: getattr(hit.context, name) for name in names}}
