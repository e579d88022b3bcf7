"""The plain values that cross the lab's doors: no database, no engine, no frame."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, NamedTuple

from .errors import LabClosed, LabError

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "is null", "is not null", "null or >", "null or <"]
Metric = Literal["cosine", "l2", "dot"]
SearchMethod = Literal["hybrid", "text", "semantic"]
VectorEngine = Literal["auto", "exact", "sqlite-vec", "hnsw"]
EmbeddingBackend = Literal["auto", "onnx", "torch"]
Fusion = Literal["scores", "rrf"]
Frequency = Literal["h", "D", "W", "M"]


@dataclass(frozen=True)
class Condition:
    """One test on a column, or with `key` on a top-level key of a JSON column; a query's conditions are ANDed."""

    column: str
    operator: Operator
    value: Any = None
    key: str | None = None


@dataclass(frozen=True)
class Group:
    """What rows are grouped by: a column, with `freq` the period of a time, with `key` a JSON column's top-level key."""

    column: str
    freq: Frequency | None = None
    key: str | None = None

    @property
    def label(self) -> str:
        """The name of the group's column in a frame."""
        return "period" if self.freq else self.column if self.key is None else f"{self.column}.{self.key}"


@dataclass(frozen=True)
class Measure:
    """A figure per group: count, sum, min or max of the first of `columns` that is not empty (none: of the rows).

    "bytes" sums what texts take, in UTF-8. With `given`, only the rows in which that column is not empty take part.
    """

    name: str
    function: Literal["count", "sum", "min", "max", "bytes"]
    columns: tuple[str, ...] = ()
    given: str | None = None


@dataclass(frozen=True)
class Rate:
    """What a row has done per second: an amount over a duration in milliseconds, both of them columns.

    Where the column `waited_ms` has something, that time does not count, nor does what the column `apart` has.
    """

    amount: str
    apart: str
    duration_ms: str
    waited_ms: str

    @property
    def columns(self) -> tuple[str, str, str, str]:
        """The columns it is made of, in the order of the fields."""
        return self.amount, self.apart, self.duration_ms, self.waited_ms


def html_table(rows: Iterable[tuple[Any, Any]], *, caption: str = "") -> str:
    """Render pairs as an HTML table, every value escaped."""
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(name))}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<tbody>{body}</tbody></table>"


class Report(dict[str, Any]):
    """A dict that displays as a two-column table in a terminal and in a notebook.

    >>> print(Report(contexts=3, engine="exact"))
    contexts  3
    engine    exact
    """

    def __repr__(self) -> str:
        width = max((len(str(name)) for name in self), default=0)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.items())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_table(self.items())

    @classmethod
    def gathered(cls, lines: Mapping[str, Callable[[], Any]]) -> Report:
        """Return what each function says; one that fails says why, and the others go on.

        >>> Report.gathered({"one": lambda: 1, "two": lambda: open("/nowhere")})["two"]
        "cannot be read: [Errno 2] No such file or directory: '/nowhere'"
        """
        found = cls()
        for name, line in lines.items():
            try:
                found[name] = line()
            except LabClosed:
                raise
            except (LabError, OSError) as exc:
                found[name] = f"cannot be read: {exc}"
        return found


class _Record:
    """Notebook display for the frozen dataclasses below."""

    def _repr_html_(self) -> str:
        pairs = [(item.name, getattr(self, item.name)) for item in fields(self)]  # type: ignore[arg-type]
        return html_table(pairs, caption=type(self).__name__)


@dataclass(frozen=True)
class Context(_Record):
    """A stored text with what is known about it. Times are aware and in UTC."""

    id: str
    content: str
    summary: str | None
    topic: str | None
    source: str | None
    priority: int
    pinned: bool
    expires_at: datetime | None
    superseded_by: str | None
    token_count: int | None
    content_hash: str
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    accessed_at: datetime | None
    access_count: int
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be: an "error" is damage or loss, a "warning" can be mended or is odd."""

    severity: Literal["error", "warning"]
    table: str
    key: str
    finding: str
    remedy: str


@dataclass(frozen=True)
class Chunk:
    """A span of a context: `content[start:end]`, in characters."""

    position: int
    start: int
    end: int
    chunk_hash: str


class Neighbour(NamedTuple):
    """A context near a query vector, with its best chunk."""

    context_id: str
    similarity: float
    position: int
    start: int
    end: int


@dataclass(frozen=True)
class Nearest:
    """Neighbours, best first, and which engine found them and why that one."""

    neighbours: list[Neighbour]
    engine: str
    reason: str


class TextMatch(NamedTuple):
    """A context that matches words of the query. The BM25 score is positive, higher is better."""

    context_id: str
    score: float
    rank: int


@dataclass(frozen=True)
class EmbeddingSet:
    """The vectors of one model with one way of chunking; exactly one set of a lab is active."""

    set_key: int
    model_id: str
    model_name: str
    dimensions: int
    chunk_tokens: int
    chunk_overlap_tokens: int
    state: Literal["building", "active", "retired"]


@dataclass(frozen=True)
class Ranking:
    """How a search orders what it finds.

    `text_weight` is the text ranker's share of a hybrid score, the vectors have the rest. `text_column_weights` say how
    much a word counts in BM25 where it stands in "content", "topic" or "summary", 1 where nothing is said. Each ranking
    is read `candidates` deep before they are joined.
    """

    fusion: Fusion = "scores"
    text_weight: float = 0.5
    text_column_weights: Mapping[str, float] = field(default_factory=dict)
    candidates: int = 100


@dataclass(frozen=True)
class Relevance:
    """How likely a hybrid result answers its query: a logistic regression, and the cutoff below which it is dropped.

    `text_score_per_term` is the BM25 score divided by the number of the query's terms, `score` the fused score.
    """

    intercept: float
    similarity: float
    text_score_per_term: float
    score: float
    cutoff: float

    def probability(self, *, similarity: float, text_score_per_term: float, score: float) -> float:
        """Return the probability of one result.

        >>> Relevance(0.0, 1.0, 0.0, 0.0, cutoff=0.5).probability(similarity=0.0, text_score_per_term=3.0, score=1.0)
        0.5
        """
        logit = self.intercept + self.similarity * similarity + self.score * score
        return 1 / (1 + math.exp(-max(-700.0, logit + self.text_score_per_term * text_score_per_term)))


@dataclass(frozen=True)
class SearchHit(_Record):
    """One answer of a search, with what put it there.

    `score` orders the hits (0 to 1 for hybrid). `text_rank` and `semantic_rank` are 1-based places in the two
    rankings, None where a ranker did not have the context among its candidates; `chunk_start` and `chunk_end`
    locate the best passage in `context.content`, in characters. `relevance` is the probability that it answers the
    query, where a cutoff was applied (see `tune_search`).
    """

    rank: int
    context: Context
    score: float
    text_rank: int | None
    text_score: float | None
    semantic_rank: int | None
    similarity: float | None
    matched_terms: tuple[str, ...]
    chunk: str
    chunk_start: int | None
    chunk_end: int | None
    age_days: float
    relevance: float | None = None


@dataclass(frozen=True)
class SearchAnswer:
    """The hits of one search and how they were found; iterates over the hits.

    `top_similarity` is that of the most similar context, also where the hits leave it out.
    """

    hits: list[SearchHit]
    query: str
    method: SearchMethod
    degraded: str | None
    engine: str | None
    engine_reason: str | None
    duration_ms: float
    filters: Mapping[str, Any] = field(default_factory=dict)
    top_similarity: float | None = None

    def __iter__(self) -> Iterator[SearchHit]:
        return iter(self.hits)


@dataclass(frozen=True)
class Route(_Record):
    """Where a policy sent a prompt, and the probability of that: the id is that of the decision in the ledger.

    `scores` are what the policy expected of each candidate, `probabilities` with which each was drawn.
    """

    chosen: str
    propensity: float
    scores: Mapping[str, float]
    probabilities: Mapping[str, float]
    policy: str
    policy_version: str
    decision_id: str | None
