"""Draws to rows: DataFrames as the verbs of a lab take them, and the contexts that tell the same story in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..frames import TIME, frame
from .profiles import ERRORS, OPERATIONS, SOURCE, ModelProfile, Span, microseconds

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from .draws import Calls, Requests

CONTEXT_COLUMNS = {
    "context_id": "str",
    "content": "str",
    "topic": "str",
    "source": "str",
    "priority": "int64",
    "created_at": TIME,
    "supersedes": "object",
    "metadata": "object",
}
EVENT_COLUMNS = {"event": "str", "model": "str", "at": TIME, "until": TIME, "effect": "float64"}
POLICY = "complexity-router"
GOOD_ENOUGH = 0.6
NOTE_HOURS = 24


def event_rows(events: Sequence[Span]) -> pd.DataFrame:
    """Return what was put into the traffic: how many times slower or sharper, or how much worse."""
    return frame([span._asdict() for span in events], EVENT_COLUMNS)


def context_rows(models: Sequence[ModelProfile], events: Sequence[Span], *, start: datetime) -> pd.DataFrame:
    """Return what the agents know: guidelines, models, the routing policy, and notes on what happened."""
    before = start - timedelta(days=1)
    rows = [_context(f"guideline-{item.name}", item.guideline, "guidelines", before, 10) for item in OPERATIONS]
    for item in models:
        strength = "holds up well" if item.complexity_loss < 2.7 else "falls off"
        text = f"{item.model} ({item.provider}) is good at easy requests and {strength} on complex ones."
        rows.append(_context(f"model-{item.model}", text, "models", before, 5))
    text = "Route every request to the model with the best expected quality less its price; explore one in ten."
    rows.append(_context("policy-1", text, "policies", before, 10))
    for span in events:
        if span.event == "policy 2":
            text = "Routing policy 2 follows the scores more strictly than policy 1; it still explores one in ten."
            rows.append(_context("policy-2", text, "policies", span.at, 10, supersedes="mock-policy-1"))
        elif span.event == "incident":
            hours = f"{span.at:%Y-%m-%d} from {span.at:%H:%M} to {span.until:%H:%M} UTC"
            text = (
                f"{span.model}, {hours}: answers took about {span.effect:.0f} times as long, three in ten calls failed."
            )
            rows.append(_context(_note_id(span), text, "incidents", span.until, 15))
        else:
            text = f"{span.model} has been judged worse since {span.at:%Y-%m-%d}; nothing was changed on our side."
            rows.append(_context(_note_id(span), text, "incidents", min(span.at + timedelta(hours=72), span.until), 15))
    return frame(rows, CONTEXT_COLUMNS)


def _note_id(span: Span) -> str:
    return f"mock-{span.event}-{span.at:%Y-%m-%d}-{span.model}"


def _context(
    name: str, content: str, topic: str, created_at: datetime, priority: int, *, supersedes: str | None = None
) -> dict[str, Any]:
    return {
        "context_id": name if name.startswith("mock-") else f"mock-{name}",
        "content": content,
        "topic": topic,
        "source": SOURCE,
        "priority": priority,
        "created_at": created_at,
        "supersedes": supersedes,
        "metadata": {"mock": True},
    }


def usage_rows(
    requests: Requests, calls: Calls, models: Sequence[ModelProfile], *, run: str, decisions: bool
) -> pd.DataFrame:
    """Return a row per call, in the order of time; the price is left to the lab."""
    import numpy as np
    import pandas as pd

    operation = requests.operation[calls.request]
    prompts = _numbered(f"{run}-", calls.request)
    tasks = zip(prompts, calls.shadow.tolist(), strict=True)
    decided = [
        None if shadow or not decisions else f"mock-{name}"
        for name, shadow in zip(prompts, calls.shadow.tolist(), strict=True)
    ]
    return pd.DataFrame(
        {
            "at": _times(calls.at_us),
            "provider": _labels([item.provider for item in models], calls.profile),
            "model": _labels([item.model for item in models], calls.profile),
            "operation": _labels([item.name for item in OPERATIONS], operation),
            "agent": _labels([item.agent for item in OPERATIONS], operation),
            "input_tokens": calls.input_tokens,
            "output_tokens": calls.output_tokens,
            "cache_read_tokens": calls.cache_read_tokens,
            "cache_write_tokens": calls.cache_write_tokens,
            "reasoning_tokens": calls.reasoning_tokens,
            "latency_ms": calls.latency_ms,
            "ttft_ms": calls.ttft_ms,
            "quality_score": calls.quality,
            "success": calls.error < 0,
            "error_type": _labels(ERRORS, calls.error),
            "decision_id": pd.array(decided, dtype="str"),
            "source": _labels([SOURCE], np.zeros_like(operation)),
            "source_id": pd.array(_numbered(f"{run}-", np.arange(len(operation))), dtype="str"),
            "metadata": [{"prompt_id": name, "shadow": shadow} for name, shadow in tasks],
        }
    )


def decision_rows(
    requests: Requests, calls: Calls, models: Sequence[ModelProfile], events: Sequence[Span], *, run: str, wanted: bool
) -> pd.DataFrame:
    """Return a row per routed request, in the order of time, with what became of it."""
    import numpy as np
    import pandas as pd

    count = len(requests.at_us) if wanted else 0
    first = np.flatnonzero(~calls.shadow)[:count]
    operation, chosen = requests.operation[:count], requests.chosen[:count]
    quality = calls.quality[first]
    names = [item.model for item in models]
    tasks = [item.name for item in OPERATIONS]
    prompts = _numbered(f"{run}-", np.arange(count))
    estimates = requests.estimate[:count]
    summaries = [
        f"{tasks[task]} of complexity {estimate:.2f} to {names[model]}"
        for task, estimate, model in zip(operation.tolist(), estimates.tolist(), chosen.tolist(), strict=True)
    ]
    return pd.DataFrame(
        {
            "decision_id": pd.array([f"mock-{name}" for name in prompts], dtype="str"),
            "at": _times(requests.at_us[:count]),
            "agent": _labels([item.agent for item in OPERATIONS], operation),
            "decision_type": _labels(["route"], np.zeros_like(operation)),
            "summary": pd.array(summaries, dtype="str"),
            "chosen": _labels(names, chosen),
            "candidates": [
                dict(zip(names, scores, strict=True)) for scores in requests.scores[:, :count].T.round(4).tolist()
            ],
            "propensity": requests.probability[chosen, np.arange(count)].round(6),
            "policy": _labels([POLICY], np.zeros_like(operation)),
            "policy_version": _labels(["1", "2"], requests.version[:count] - 1),
            "complexity_score": estimates,
            "quality_score": quality,
            "success": (calls.error[first] < 0) & ~(quality < GOOD_ENOUGH),
            "outcome_at": _times(requests.at_us[:count] + (calls.latency_ms[first] * 1_000).astype(np.int64)),
            "context_ids": _seen(requests, events, count),
            "source": _labels([SOURCE], np.zeros_like(operation)),
            "source_id": pd.array(prompts, dtype="str"),
            "metadata": [
                {"prompt_id": name, "operation": tasks[task]}
                for name, task in zip(prompts, operation.tolist(), strict=True)
            ],
        }
    )


def _seen(requests: Requests, events: Sequence[Span], count: int) -> list[list[str]]:
    """Return the contexts that each decision saw: guideline, policy, and a fresh note on what happened."""
    seen = [
        [f"mock-guideline-{OPERATIONS[task].name}", f"mock-policy-{version}"]
        for task, version in zip(requests.operation[:count].tolist(), requests.version[:count].tolist(), strict=True)
    ]
    for span in events:
        if span.event == "incident":
            known = microseconds(span.until)
            fresh = (requests.at_us[:count] >= known) & (requests.at_us[:count] < known + NOTE_HOURS * 3_600_000_000)
            for place in fresh.nonzero()[0].tolist():
                seen[place].append(_note_id(span))
    return seen


def _times(at_us: NDArray[np.int64]) -> pd.Series[Any]:
    import pandas as pd

    return pd.Series(at_us.astype("datetime64[us]")).dt.tz_localize("UTC")


def _labels(names: Sequence[str], codes: NDArray[np.int64]) -> Any:
    """Return a text column from positions; -1 is a missing one."""
    import pandas as pd

    return pd.array(list(names), dtype="str").take(codes, allow_fill=True)


def _numbered(prefix: str, numbers: NDArray[np.int64]) -> list[str]:
    return [f"{prefix}{number}" for number in numbers.tolist()]
