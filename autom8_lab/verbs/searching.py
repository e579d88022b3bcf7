"""Verbs that search, and tell what was searched and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from .. import access, retrieval
from ..errors import InvalidValue
from ..frames import frame
from ..records import Condition, Fusion, SearchAnswer, SearchHit, SearchMethod
from ..retrieval import ContextFilters
from ..validation import shortened
from .parts import Parts, limit_value

if TYPE_CHECKING:
    import pandas as pd


def _given_filters(filters: Mapping[str, Any]) -> dict[str, str]:
    off = {name for name, value in filters.items() if value is None or (name.startswith("include_") and not value)}
    return {name: str(value) for name, value in filters.items() if name not in off}


def _attributes(query: Any, answers: Sequence[SearchAnswer]) -> dict[str, Any]:
    names = ("method", "degraded", "engine", "engine_reason")
    shared = {name: getattr(answers[0], name) if answers else None for name in names}
    return {"query": query, **shared, "duration_ms": sum(answer.duration_ms for answer in answers)}


class SearchVerbs(Parts):
    """Find: searches."""

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        method: SearchMethod = "hybrid",
        topic: str | Sequence[str] | None = None,
        source: str | Sequence[str] | None = None,
        pinned: bool | None = None,
        min_priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: Any = None,
        until: Any = None,
        min_similarity: float | None = None,
        include_expired: bool = False,
        include_superseded: bool = False,
        fusion: Fusion | None = None,
        text_weight: float | None = None,
        min_relevance: float | None = None,
    ) -> list[SearchHit]:
        """Return the k best contexts for a query, each with what put it there.

        "text" ranks by BM25, "semantic" by the similarity of the best chunk, "hybrid" joins both. Every text is a
        legal query. Filters (see `list_contexts`) work below the ranking, so k results come back when k exist;
        `min_similarity` drops results that are less similar. In a hybrid score the text ranker has the share
        `text_weight`, the vectors the rest. Where a cutoff was tuned and applied, hybrid results that are likely not
        relevant are dropped too, and no result may be left: `min_relevance=0` shows all. What is not given is as applied (see `apply`), else as configured. Without the embedding model hybrid answers by text
        and warns (`DegradedSearchWarning`); semantic raises `ModelUnavailable`.
        """
        given = {
            "topic": topic,
            "source": source,
            "pinned": pinned,
            "min_priority": min_priority,
            "metadata": metadata,
            "since": since,
            "until": until,
            "include_expired": include_expired,
            "include_superseded": include_superseded,
        }
        ranking = {"fusion": fusion, "text_weight": text_weight}
        options: dict[str, Any] = {
            "k": k,
            "method": method,
            "least": (min_similarity, min_relevance),
            "ranking": ranking,
        }
        return self._answers([query], **options, given=given)[0].hits

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        method: SearchMethod = "hybrid",
        min_similarity: float | None = None,
        fusion: Fusion | None = None,
        text_weight: float | None = None,
        min_relevance: float | None = None,
        **filters: Unpack[ContextFilters],
    ) -> list[list[SearchHit]]:
        """Return for each of several queries what `search` returns, their vectors compared in one product.

        >>> [len(hits) for hits in lab.search_many(["refund", "who pays?"], k=3)]
        [0, 0]
        """
        ranking = {"fusion": fusion, "text_weight": text_weight}
        given: dict[str, Any] = {
            "k": k,
            "method": method,
            "least": (min_similarity, min_relevance),
            "ranking": ranking,
        }
        return [answer.hits for answer in self._answers(queries, **given, given=dict(filters))]

    def search_df(
        self,
        query: str | Sequence[str],
        *,
        k: int = 10,
        method: SearchMethod = "hybrid",
        topic: str | Sequence[str] | None = None,
        source: str | Sequence[str] | None = None,
        pinned: bool | None = None,
        min_priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: Any = None,
        until: Any = None,
        min_similarity: float | None = None,
        include_expired: bool = False,
        include_superseded: bool = False,
        fusion: Fusion | None = None,
        text_weight: float | None = None,
        min_relevance: float | None = None,
    ) -> pd.DataFrame:
        """Return the k best contexts for a query, or for each of several, as a frame, best first; see `search`.

        `score` orders the rows; `text_rank`, `text_score` (BM25), `semantic_rank`, `similarity` and `matched_terms`
        explain it; `chunk`, `chunk_start` and `chunk_end` show the best passage. `attrs` tells the method, the
        vector engine and why that one, whether the answer is degraded, and how long it took. `query` is the last
        column; the rows of several queries stand one after the other, in their order.
        """
        given = {
            "topic": topic,
            "source": source,
            "pinned": pinned,
            "min_priority": min_priority,
            "metadata": metadata,
            "since": since,
            "until": until,
            "include_expired": include_expired,
            "include_superseded": include_superseded,
        }
        ranking = {"fusion": fusion, "text_weight": text_weight}
        options: dict[str, Any] = {
            "k": k,
            "method": method,
            "least": (min_similarity, min_relevance),
            "ranking": ranking,
        }
        answers = self._answers([query] if isinstance(query, str) else query, **options, given=given)
        rows = [{**retrieval.hit_row(hit), "query": answer.query} for answer in answers for hit in answer.hits]
        return frame(rows, retrieval.COLUMNS, attrs=_attributes(query, answers))

    def _answers(
        self,
        queries: Sequence[str],
        *,
        k: int,
        method: SearchMethod,
        least: tuple[float | None, float | None],
        ranking: dict[str, Any],
        given: dict[str, Any],
    ) -> list[SearchAnswer]:
        if not isinstance(queries, list | tuple) and type(queries).__module__.split(".")[0] != "pandas":
            raise InvalidValue(f"queries={shortened(queries)} is a {type(queries).__name__}: give a list of str")
        queries = list(queries)
        with self._storage.asking():
            min_similarity, min_relevance = least
            how = self._applied.ranking(ranking)
            if min_similarity is None and method != "text":
                min_similarity = self._applied.value("similarity_threshold")
            options: dict[str, Any] = {
                "k": k,
                "method": method,
                "ranking": how,
                "min_similarity": min_similarity,
                "where": self._where(**given),
                "filters": _given_filters(given),
                "contexts_of": self._contexts.by_ids,
                "relevance": self._applied.relevance(how, min_relevance) if method == "hybrid" else None,
            }
            if len(queries) == 1:
                answers = [self._retrieval.search(queries[0], **options)]
            else:
                answers = self._retrieval.search_many(queries, **options)
        for answer in answers:
            self._access.search(answer, k=int(k))
        return answers

    def searches_df(self, *, since: Any = None, until: Any = None, limit: int | None = None) -> pd.DataFrame:
        """Return past searches, the newest first: query, method, what came back and how long it took."""
        where = self._log_where(since=since, until=until)
        return frame(self._access.searches(where=where, limit=limit_value(limit)), access.SEARCH_COLUMNS)

    def accesses_df(self, context_id: str | None = None, *, since: Any = None, until: Any = None) -> pd.DataFrame:
        """Return each time a context (or any, for None) was shown by a search or read, the newest first.

        A deleted context's id still works here: that it was shown stays true.
        """
        ids = None if context_id is None else self._contexts.all_names(context_id)
        where = self._log_where(since=since, until=until)
        return frame(self._access.accesses(context_ids=ids, where=where), access.ACCESS_COLUMNS)

    def _log_where(self, *, since: Any, until: Any) -> list[Condition]:
        return retrieval.between("at", since=since, until=until, now=self._clock())
