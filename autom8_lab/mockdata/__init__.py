"""Seeded, realistic traffic of an agent system: contexts, routing decisions and model calls that belong together.

Invented, and labelled so: every row has `source="mock"`. The models and their prices are real; a call is priced by
the price book when it is recorded. What a reader of the ledger should find is put in: `Traffic.events` lists it.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidValue
from ..lab import Lab
from ..records import Report
from ..validation import integer_value, is_missing, moment, positive_integer
from .draws import draw_calls, draw_requests
from .paired import PairedRuns, paired_runs
from .profiles import MODELS, SHADOW_SHARE, SOURCE, ModelProfile, place_events
from .rows import context_rows, decision_rows, event_rows, usage_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MODELS", "ModelProfile", "PairedRuns", "Traffic", "fill", "paired_runs", "traffic"]


class Traffic(NamedTuple):
    """What the system knew, decided and called, and what happened to it; rows as the verbs of a lab take them."""

    contexts: pd.DataFrame
    decisions: pd.DataFrame
    usage: pd.DataFrame
    events: pd.DataFrame


def traffic(
    days: int = 28,
    *,
    calls_per_day: int = 200,
    seed: int = 0,
    until: datetime | date | str = "2026-06-01",
    models: Sequence[ModelProfile] = MODELS,
    incidents: int = 2,
    drift: float = 0.15,
    decisions: bool = True,
) -> Traffic:
    """Return `days` × `calls_per_day` mock calls before the day `until`, with their contexts and decisions.

    One seed gives one traffic; the distributions:

    - Calls follow the working day and week in UTC (`HOUR_WEIGHTS`, `WEEKDAY_WEIGHTS`).
    - Four operations, from easy to hard; a request's complexity is Beta distributed.
    - A router scores every model by the quality it expects less a price, and draws one by softmax with a tenth of
      exploration. `propensity` is the probability of the one it drew. Halfway a sharper policy version takes over.
    - Quality is the sigmoid of skill, complexity, a normal effect of the prompt and normal noise; 7 of 10 calls
      are judged. 1 of 10 calls is a shadow: another model answers the same `prompt_id`, so models can be paired.
    - Time to first token and tokens per second are log-normal, as are token counts.
    - A long common prefix is read from the cache when the same model saw it within the hour.
    - Calls fail at the model's rate, half as often again in busy hours, with a type of error; a failed call has no
      quality, and only one that ran into the timeout has used tokens.
    - `incidents`: on working days from 13:00 UTC a model is six times slower for four hours and 3 of 10 calls fail.
    - `drift`: from 60 % of the time on, the last model's quality is lower by this much (0 for none).

    Without `decisions` the requests are routed all the same, and the calls alone are returned: a million in seconds.

    >>> day = traffic(1, calls_per_day=50, seed=7)
    >>> len(day.usage), set(day.usage["source"])
    (50, {'mock'})
    """
    import numpy as np

    days = positive_integer(days, "days", at_most=3_650)
    count = days * positive_integer(calls_per_day, "calls_per_day", at_most=1_000_000)
    if not models:
        raise InvalidValue("models is empty: give at least one ModelProfile, or leave it out")
    for name, value in {"seed": seed, "incidents": incidents}.items():
        if integer_value(value, name) < 0:
            raise InvalidValue(f"{name}={value}: give a whole number of at least 0")
    if not 0 <= drift <= 1:
        raise InvalidValue(f"drift={drift}: give how much quality is lost, from 0 to 1")
    end = moment(until, "until").replace(hour=0, minute=0, second=0, microsecond=0)
    run = f"{zlib.crc32(repr((days, calls_per_day, seed, end, tuple(models), incidents, drift)).encode()):08x}"
    generator = np.random.default_rng(seed)
    events = place_events(end - timedelta(days), days, models, incidents=incidents, drift=drift)
    shadows = int(count * SHADOW_SHARE) if len(models) > 1 else 0
    requests = draw_requests(generator, count - shadows, start=end - timedelta(days), days=days, models=models)
    calls = draw_calls(generator, requests, shadows, models=models, events=events)
    return Traffic(
        contexts=context_rows(models, events, start=end - timedelta(days)),
        decisions=decision_rows(requests, calls, models, events, run=run, wanted=decisions),
        usage=usage_rows(requests, calls, models, run=run, decisions=decisions),
        events=event_rows(events),
    )


def fill(
    lab: Lab,
    *,
    days: int = 28,
    calls_per_day: int = 200,
    seed: int = 0,
    until: datetime | date | str | None = None,
    models: Sequence[ModelProfile] = MODELS,
    incidents: int = 2,
    drift: float = 0.15,
    allow_mixed: bool = False,
) -> Report:
    """Store mock traffic in a lab through its verbs, and return how many rows it has of each kind.

    Takes what `traffic` takes; `until` is the lab's today if not given. Everything lands together or not at all, and
    a repeated call with the same arguments changes nothing. Raises `InvalidValue` where the lab holds rows that are
    not mock ones, unless `allow_mixed`: they stay apart by `source`. Some 2,000 calls a second with their decisions;
    for a large ledger alone, `lab.record_usages(traffic(…, decisions=False).usage)`.

    >>> fill(lab, days=2, calls_per_day=20, seed=7)["usage_rows"]
    40
    """
    if not allow_mixed:
        _refuse_real_rows(lab)
    day = lab._clock() if until is None else until
    made = traffic(
        days, calls_per_day=calls_per_day, seed=seed, until=day, models=models, incidents=incidents, drift=drift
    )
    with lab.transaction():
        lab.store_contexts(made.contexts, if_exists="skip")
        ids = {row["decision_id"]: _decide(lab, row) for row in made.decisions.to_dict("records")}
        lab.record_usages(made.usage.assign(decision_id=made.usage["decision_id"].map(ids)))
    return Report(contexts=len(made.contexts), decisions=len(made.decisions), usage_rows=len(made.usage))


def _decide(lab: Lab, row: dict[Hashable, Any]) -> str:
    """Record a decision and its outcome, and return the id that the lab gave it."""
    outcome = {"quality_score", "success", "outcome_at"}
    fields: dict[str, Any] = {
        str(name): value for name, value in row.items() if name not in outcome and name != "decision_id"
    }
    decision_id = lab.record_decision(**fields)
    quality = None if is_missing(row["quality_score"]) else row["quality_score"]
    lab.record_outcome(decision_id, quality_score=quality, success=row["success"], at=row["outcome_at"])
    return decision_id


def _refuse_real_rows(lab: Lab) -> None:
    mock = lab.list_contexts(source=SOURCE, include_expired=True, include_superseded=True)
    calls = lab.usage_df(by="source")
    decisions = lab.decisions_df()
    real = {
        "contexts": lab.stats()["contexts"] - len(mock),
        "decisions": int((decisions["source"] != SOURCE).sum()),
        "calls": int(calls["calls"][calls["source"] != SOURCE].sum()),
    }
    found = ", ".join(f"{count:,} {name}" for name, count in real.items() if count)
    if found:
        raise InvalidValue(
            f"{lab} holds {found} that are not mock data: fill a lab of its own, or give allow_mixed=True"
        )
