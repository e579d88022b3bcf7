"""What the mock traffic is made of: models, operations, rhythm, failures and the events that strike it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

SOURCE = "mock"
SHADOW_SHARE = 0.1
JUDGED_SHARE = 0.7
# The router scores a model by expected quality - weight × expense, and draws by softmax of sharpness × score.
PRICE_WEIGHT = 0.3
POLICY_SHARPNESS = (15.0, 30.0)
EXPLORATION = 0.1
CACHE_MINUTES = 60
CACHED_FROM_TOKENS = 1_024
TIMEOUT_MS = 60_000.0
INCIDENT_HOURS = 4
INCIDENT_SLOWDOWN = 6.0
INCIDENT_FAILURES = 0.3
HOUR_WEIGHTS = (2, 1, 1, 1, 1, 2, 5, 12, 22, 30, 32, 30, 24, 28, 31, 30, 26, 18, 11, 8, 6, 5, 4, 3)
WEEKDAY_WEIGHTS = (1.1, 1.15, 1.1, 1.05, 0.9, 0.3, 0.25)
ERRORS = ("RateLimitError", "InternalServerError", "BadRequestError", "APITimeoutError")
USUAL_ERRORS = (0.45, 0.25, 0.1, 0.2)
INCIDENT_ERRORS = (0.0, 0.4, 0.0, 0.6)


@dataclass(frozen=True)
class ModelProfile:
    """How a model behaves.

    Its mean quality is sigmoid(`skill` − `complexity_loss` × complexity). `ttft_ms` and `tokens_per_second` are
    medians. `expense` is how dear the router believes it to be, from 0 to 1.
    """

    model: str
    provider: str
    skill: float
    complexity_loss: float
    ttft_ms: float
    tokens_per_second: float
    failure_rate: float
    expense: float
    reasoning_tokens: int = 0
    pays_cache_writes: bool = False


MODELS = (
    ModelProfile("gpt-4o-mini", "openai", 3.0, 4.2, 420, 95, 0.006, 0.05),
    ModelProfile("gpt-4.1", "openai", 3.0, 2.5, 560, 80, 0.008, 0.45),
    ModelProfile("gpt-5-mini", "openai", 3.1, 2.8, 700, 120, 0.010, 0.25, reasoning_tokens=350),
    ModelProfile("claude-haiku-4-5", "anthropic", 3.0, 3.0, 480, 140, 0.007, 0.30, pays_cache_writes=True),
    ModelProfile("claude-sonnet-4-5", "anthropic", 3.3, 1.9, 900, 65, 0.012, 0.70, pays_cache_writes=True),
    ModelProfile("gemini-2.5-flash", "google", 3.0, 3.4, 380, 190, 0.009, 0.15),
)


class Operation(NamedTuple):
    """A kind of work: its share of the requests, Beta parameters of its complexity, and medians of its tokens."""

    name: str
    agent: str
    share: float
    complexity: tuple[float, float]
    prefix_tokens: int
    input_tokens: int
    output_tokens: int
    guideline: str


OPERATIONS = (
    Operation(
        "classify",
        "triage-agent",
        0.35,
        (2, 6),
        1_100,
        180,
        12,
        "Classify a request into one of nineteen queues and answer with the queue's name alone.",
    ),
    Operation(
        "answer",
        "helpdesk-agent",
        0.40,
        (3, 4),
        2_400,
        900,
        220,
        "Answer a customer from the contexts that were found; say so when they do not hold the answer.",
    ),
    Operation(
        "summarize",
        "helpdesk-agent",
        0.15,
        (2, 3),
        600,
        3_500,
        260,
        "Summarize a conversation for the colleague who takes over: wish, what was tried, what was promised.",
    ),
    Operation(
        "code",
        "developer-agent",
        0.10,
        (5, 2),
        3_200,
        2_600,
        900,
        "Change code only with a test that fails before and passes after; answer with a patch.",
    ),
)


class Span(NamedTuple):
    """An event: from when until when it holds, and for which model."""

    event: str
    model: str | None
    at: datetime
    until: datetime
    effect: float


def place_events(
    start: datetime, days: int, models: Sequence[ModelProfile], *, incidents: int, drift: float
) -> list[Span]:
    """Place the incidents on working days, spread over the time and over the models before the last one."""
    end = start + timedelta(days)
    spans = []
    for number in range(incidents):
        day = start + timedelta(days * (number + 1) // (incidents + 1))
        day -= timedelta(max(0, day.weekday() - 4)) if day - start >= timedelta(2) else timedelta(0)
        struck = models[-2 - number % max(1, len(models) - 1)] if len(models) > 1 else models[0]
        begin = day + timedelta(hours=13)
        finish = begin + timedelta(hours=INCIDENT_HOURS)
        spans.append(Span("incident", struck.model, begin, finish, INCIDENT_SLOWDOWN))
    spans.append(Span("policy 2", None, start + timedelta(days / 2), end, POLICY_SHARPNESS[1] / POLICY_SHARPNESS[0]))
    if drift:
        spans.append(Span("drift", models[-1].model, start + timedelta(hours=round(24 * days * 0.6)), end, -drift))
    return sorted(spans, key=lambda span: (span.at, span.event))


def microseconds(at: datetime) -> int:
    """Return whole seconds since 1970, in microseconds."""
    return round(at.timestamp()) * 1_000_000
