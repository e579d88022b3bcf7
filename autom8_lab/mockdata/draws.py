"""Random draws, vectorised: when requests come, where they are routed, what each call used and how it went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from .profiles import (
    CACHE_MINUTES,
    CACHED_FROM_TOKENS,
    ERRORS,
    EXPLORATION,
    HOUR_WEIGHTS,
    INCIDENT_ERRORS,
    INCIDENT_FAILURES,
    INCIDENT_SLOWDOWN,
    JUDGED_SHARE,
    OPERATIONS,
    POLICY_SHARPNESS,
    PRICE_WEIGHT,
    TIMEOUT_MS,
    USUAL_ERRORS,
    WEEKDAY_WEIGHTS,
    ModelProfile,
    Span,
    microseconds,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Flags = NDArray[np.bool_]


class Requests(NamedTuple):
    """Columns of the requests: times in microseconds since 1970, everything else by request."""

    at_us: Integers
    operation: Integers
    complexity: Floats
    estimate: Floats
    scores: Floats
    probability: Floats
    chosen: Integers
    version: Integers


class Calls(NamedTuple):
    """Columns of the calls. `request` and `profile` are positions; `shadow` marks second opinions."""

    request: Integers
    profile: Integers
    shadow: Flags
    at_us: Integers
    input_tokens: Integers
    output_tokens: Integers
    cache_read_tokens: Integers
    cache_write_tokens: Integers
    reasoning_tokens: Integers
    latency_ms: Floats
    ttft_ms: Floats
    quality: Floats
    error: Integers


def draw_requests(
    generator: np.random.Generator, count: int, *, start: datetime, days: int, models: Sequence[ModelProfile]
) -> Requests:
    """Draw when requests come, what they are and where the router sends them."""
    import numpy as np

    at_us = _arrivals(generator, count, start=start, days=days)
    operation = generator.choice(len(OPERATIONS), size=count, p=[item.share for item in OPERATIONS])
    shape = np.array([item.complexity for item in OPERATIONS])[operation]
    complexity = generator.beta(shape[:, 0], shape[:, 1])
    # The router does not know the complexity, it estimates it.
    estimate = np.clip(complexity + generator.normal(0, 0.08, count), 0, 1).round(3)
    version = np.where(at_us < microseconds(start) + days * 43_200_000_000, 1, 2)
    scores = expected_quality(models, estimate) - PRICE_WEIGHT * np.array([[item.expense] for item in models])
    sharpness = np.where(version == 1, *POLICY_SHARPNESS)
    weight = np.exp((scores - scores.max(axis=0)) * sharpness)
    probability = (1 - EXPLORATION) * weight / weight.sum(axis=0) + EXPLORATION / len(models)
    drawn = generator.random(count) > probability.cumsum(axis=0)
    chosen = np.minimum(drawn.sum(axis=0), len(models) - 1)
    return Requests(at_us, operation, complexity, estimate, scores, probability, chosen, version)


def _arrivals(generator: np.random.Generator, count: int, *, start: datetime, days: int) -> Integers:
    """Draw sorted times: uniform ones, stretched by the rhythm of hours and weekdays."""
    import numpy as np

    weekdays = (start.weekday() + np.arange(days)) % 7
    weights = np.outer(np.array(WEEKDAY_WEIGHTS)[weekdays], HOUR_WEIGHTS).ravel()
    reached = np.concatenate([[0.0], weights.cumsum()]) / weights.sum()
    hours = np.interp(np.sort(generator.random(count)), reached, np.arange(days * 24 + 1))
    return microseconds(start) + (hours * 3_600_000).astype(np.int64) * 1_000


def draw_calls(
    generator: np.random.Generator,
    requests: Requests,
    shadows: int,
    *,
    models: Sequence[ModelProfile],
    events: Sequence[Span],
) -> Calls:
    """Draw what each call used, how long it took, how good it was and whether it failed; in the order of time."""
    import numpy as np

    count = len(requests.at_us)
    second = generator.choice(count, size=shadows, replace=False)
    other = (requests.chosen[second] + generator.integers(1, max(2, len(models)), shadows)) % len(models)
    request = np.concatenate([np.arange(count), second])
    profile = np.concatenate([requests.chosen, other])
    shadow = np.arange(count + shadows) >= count
    order = np.lexsort((shadow, request))
    request, profile, shadow = request[order], profile[order], shadow[order]
    at_us = requests.at_us[request]
    slow = _slow(at_us, profile, models, events)
    error = _failures(generator, at_us, profile, models, slow)
    timed_out = error == ERRORS.index("APITimeoutError")
    tokens = _tokens(generator, requests, request, profile, at_us, models)
    used = np.where((error < 0) | timed_out, 1, 0)
    answered = np.where(error < 0, 1, 0)
    inputs, outputs, read, write, reasoning = tokens
    latency, ttft = _latency(generator, outputs, reasoning, profile, models, slow)
    refused = _lognormal(generator, np.full(len(request), 250.0), 0.5)
    latency = np.select([error < 0, timed_out], [latency, TIMEOUT_MS], refused)
    return Calls(
        request=request,
        profile=profile,
        shadow=shadow,
        at_us=at_us,
        input_tokens=inputs * used,
        output_tokens=outputs * answered,
        cache_read_tokens=read * used,
        cache_write_tokens=write * used,
        reasoning_tokens=reasoning * answered,
        latency_ms=latency.round(1),
        ttft_ms=np.where(error < 0, ttft.round(1), np.nan),
        quality=np.where(error < 0, _quality(generator, requests, request, profile, at_us, models, events), np.nan),
        error=error,
    )


def _slow(at_us: Integers, profile: Integers, models: Sequence[ModelProfile], events: Sequence[Span]) -> Flags:
    """Mark the calls that an incident strikes."""
    import numpy as np

    slow = np.zeros(len(at_us), dtype=bool)
    for span in events:
        if span.event == "incident":
            struck = np.array([item.model == span.model for item in models])
            slow |= struck[profile] & (at_us >= microseconds(span.at)) & (at_us < microseconds(span.until))
    return slow


def _failures(
    generator: np.random.Generator, at_us: Integers, profile: Integers, models: Sequence[ModelProfile], slow: Flags
) -> Integers:
    """Draw the position in ERRORS of each call, -1 for one that succeeds."""
    import numpy as np

    busy = np.array(HOUR_WEIGHTS)[(at_us // 3_600_000_000) % 24] >= 28
    rate = np.array([item.failure_rate for item in models])[profile] * np.where(busy, 1.5, 1.0)
    failed = generator.random(len(at_us)) < np.where(slow, INCIDENT_FAILURES, rate)
    usual = generator.choice(len(ERRORS), size=len(at_us), p=USUAL_ERRORS)
    struck = generator.choice(len(ERRORS), size=len(at_us), p=INCIDENT_ERRORS)
    return np.where(failed, np.where(slow, struck, usual), -1)


def _tokens(
    generator: np.random.Generator,
    requests: Requests,
    request: Integers,
    profile: Integers,
    at_us: Integers,
    models: Sequence[ModelProfile],
) -> list[Integers]:
    """Draw tokens by class; input includes the cache and output the reasoning, as the ledger has them."""
    import numpy as np

    operation = requests.operation[request]
    size = np.array([(item.input_tokens, item.output_tokens) for item in OPERATIONS], dtype=np.float64)
    # One prompt is equally long whoever answers it.
    own = _lognormal(generator, size[requests.operation, 0], 0.45)[request]
    effort = 0.5 + requests.complexity[request]
    visible = _lognormal(generator, size[operation, 1] * effort, 0.4)
    thinking = np.array([item.reasoning_tokens for item in models], dtype=np.float64)[profile] * 2 * effort**2
    reasoning = np.where(thinking > 0, _lognormal(generator, np.maximum(thinking, 1), 0.6), 0)
    prefix = np.array([item.prefix_tokens for item in OPERATIONS])[operation]
    warm = _seen_lately(at_us, profile * len(OPERATIONS) + operation)
    long_enough = prefix >= CACHED_FROM_TOKENS
    pays = np.array([item.pays_cache_writes for item in models])[profile]
    inputs = prefix + own.astype(np.int64) + 1
    outputs = visible.astype(np.int64) + 1 + reasoning.astype(np.int64)
    read = np.where(warm & long_enough, prefix, 0)
    write = np.where(~warm & long_enough & pays, prefix, 0)
    return [inputs, outputs, read, write, reasoning.astype(np.int64)]


def _seen_lately(at_us: Integers, stream: Integers) -> Flags:
    """Mark the calls whose stream had another call within the life of a cached prefix."""
    import numpy as np

    order = np.lexsort((at_us, stream))
    near = np.zeros(len(order), dtype=bool)
    near[1:] = (np.diff(stream[order]) == 0) & (np.diff(at_us[order]) < CACHE_MINUTES * 60_000_000)
    warm = np.empty_like(near)
    warm[order] = near
    return warm


def _latency(
    generator: np.random.Generator,
    outputs: Integers,
    reasoning: Integers,
    profile: Integers,
    models: Sequence[ModelProfile],
    slow: Flags,
) -> tuple[Floats, Floats]:
    """Draw the latency and the time to first token, in ms; what a model thinks comes before its first token."""
    import numpy as np

    slowdown = np.where(slow, INCIDENT_SLOWDOWN, 1.0)
    first = _lognormal(generator, np.array([item.ttft_ms for item in models])[profile], 0.35)
    speed = _lognormal(generator, np.array([item.tokens_per_second for item in models])[profile], 0.2)
    ttft = slowdown * (first + reasoning / speed * 1_000)
    return ttft + slowdown * (outputs - reasoning) / speed * 1_000, ttft


def _quality(
    generator: np.random.Generator,
    requests: Requests,
    request: Integers,
    profile: Integers,
    at_us: Integers,
    models: Sequence[ModelProfile],
    events: Sequence[Span],
) -> Floats:
    """Draw the judged quality of each call, NaN where nobody judged; both answers to a shadowed prompt are judged."""
    import numpy as np

    effect = generator.normal(0, 0.6, len(requests.at_us))[request]
    judged = generator.random(len(requests.at_us)) < JUDGED_SHARE
    judged[request[1:][np.diff(request) == 0]] = True
    expected = expected_quality(models, requests.complexity[request], profile=profile)
    logit = np.log(expected / (1 - expected)) + effect + generator.normal(0, 0.5, len(request))
    quality = 1 / (1 + np.exp(-logit))
    for span in events:
        if span.event == "drift":
            drifts = np.array([item.model == span.model for item in models])[profile]
            quality = np.where(drifts & (at_us >= microseconds(span.at)), quality + span.effect, quality)
    return np.where(judged[request], np.clip(quality, 0, 1).round(2), np.nan)


def expected_quality(models: Sequence[ModelProfile], complexity: Floats, *, profile: Any = None) -> Floats:
    """Return the mean quality of each model (rows) at each complexity, or of one model per complexity."""
    import numpy as np

    skill = np.array([[item.skill] for item in models])
    loss = np.array([[item.complexity_loss] for item in models])
    logit = skill - loss * complexity if profile is None else skill[profile, 0] - loss[profile, 0] * complexity
    quality: Floats = 1 / (1 + np.exp(-logit))
    return quality


def _lognormal(generator: np.random.Generator, median: Floats, sigma: float) -> Floats:
    import numpy as np

    return median * np.exp(sigma * generator.standard_normal(len(median)))
