"""Paired runs: the same prompts answered by several models and judged, as an evaluation makes them. Invented."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidValue
from ..frames import frame
from ..validation import integer_value, moment, positive_integer
from .draws import expected_quality
from .profiles import MODELS, SOURCE, ModelProfile

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

GOODS = ("oak table", "reading lamp", "linen sofa", "bookcase", "desk chair", "wool rug", "wardrobe", "mirror")
PLACES = ("Lisbon", "Bergen", "Graz", "Ghent", "Turku", "Leeds", "Trieste", "Aarhus")
PEOPLE = ("Ines", "Jonas", "Mira", "Tomas", "Leila", "Pavel", "Ruth", "Emil")
TALK = (
    "the parcel has not come yet",
    "I wrote to you last week already",
    "the colour is darker than on the picture",
    "thank you for the quick answer",
    "one of the four legs is loose",
    "I would rather keep it if you take something off the price",
    "please call me before the driver comes",
    "the invoice has my old address",
)
TASKS = ("sorts orders by their date", "counts the words of a text", "merges two price lists", "checks a postal code")
PROMPT_COLUMNS = {"prompt_id": "str", "prompt": "str", "kind": "str", "complexity": "float64"}


class PairedRuns(NamedTuple):
    """The prompts, and a row per answer as `record_usages` takes them."""

    prompts: pd.DataFrame
    usage: pd.DataFrame


class _Prompt(NamedTuple):
    """A text, how hard it is from 0 to 1, and how many tokens its answer takes."""

    text: str
    complexity: float
    output_tokens: int


def paired_runs(
    prompts: int = 500,
    *,
    models: Sequence[ModelProfile] = (MODELS[0], MODELS[4]),
    seed: int = 0,
    until: datetime | date | str = "2026-06-01",
) -> PairedRuns:
    """Return mock prompts, each answered by every model and judged right (1) or wrong (0).

    Five kinds of prompts: questions after a fact and summaries, which are easy though summaries are long; sums whose
    difficulty grows with their steps; rules with exceptions, short and hard; and code. A model is right with the
    probability of its profile (`expected_quality`) at the prompt's complexity. One seed gives one run; every row has
    `source="mock"`, and its metadata the `prompt_id` and the `prompt`.

    >>> runs = paired_runs(10, seed=7)
    >>> len(runs.prompts), len(runs.usage), sorted(set(runs.usage["quality_score"]))
    (10, 20, [0.0, 1.0])
    """
    import numpy as np

    count = positive_integer(prompts, "prompts", at_most=1_000_000)
    if not models:
        raise InvalidValue("models is empty: give at least one ModelProfile, or leave it out")
    if integer_value(seed, "seed") < 0:
        raise InvalidValue(f"seed={seed}: give a whole number of at least 0")
    draw = np.random.default_rng(seed)
    end = moment(until, "until")
    run = f"{zlib.crc32(repr((count, seed, end, tuple(models))).encode()):08x}"
    names = list(KINDS)
    kinds = [names[place] for place in draw.choice(len(names), size=count, p=[share for share, _ in KINDS.values()])]
    made = [KINDS[kind][1](draw) for kind in kinds]
    ids = [f"{run}-{number:05}" for number in range(count)]
    rows = [
        {"prompt_id": name, "prompt": item.text, "kind": kind, "complexity": round(item.complexity, 3)}
        for name, item, kind in zip(ids, made, kinds, strict=True)
    ]
    share = expected_quality(models, np.array([item.complexity for item in made]))
    right = draw.random(share.shape) < share
    start = end - timedelta(minutes=count)
    usage = [
        _call(draw, model, item, name, bool(right[place, number]), start + timedelta(minutes=number))
        for number, (name, item) in enumerate(zip(ids, made, strict=True))
        for place, model in enumerate(models)
    ]
    return PairedRuns(frame(rows, PROMPT_COLUMNS), _frame(usage))


def _frame(usage: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(usage)


def _call(
    draw: np.random.Generator, model: ModelProfile, item: _Prompt, name: str, right: bool, at: datetime
) -> dict[str, Any]:
    tokens = max(1, round(item.output_tokens * draw.lognormal(sigma=0.2))) + model.reasoning_tokens
    latency = model.ttft_ms * draw.lognormal(sigma=0.35) + tokens / model.tokens_per_second * 1_000
    return {
        "at": at,
        "provider": model.provider,
        "model": model.model,
        "operation": "chat",
        "input_tokens": 40 + len(item.text) // 4,
        "output_tokens": tokens,
        "reasoning_tokens": model.reasoning_tokens,
        "latency_ms": round(latency, 1),
        "quality_score": float(right),
        "success": True,
        "source": SOURCE,
        "source_id": f"{name}-{model.model}",
        "metadata": {"prompt_id": name, "prompt": item.text},
    }


def _pick(draw: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(draw.integers(len(values)))]


def _fact(draw: np.random.Generator) -> _Prompt:
    goods, place = _pick(draw, GOODS), _pick(draw, PLACES)
    asked = _pick(
        draw, ("When does the shop in {place} open on day {n}?", "Is the {goods} no. {n} in stock in {place}?")
    )
    text = asked.format(goods=goods, place=place, n=int(draw.integers(1, 400)))
    return _Prompt(text, float(draw.uniform(0, 0.15)), 25)


def _summary(draw: np.random.Generator) -> _Prompt:
    lines = [f"{_pick(draw, PEOPLE)}: {_pick(draw, TALK)}." for _ in range(int(draw.integers(8, 30)))]
    text = "Summarize this conversation in two sentences for a colleague.\n" + "\n".join(lines)
    return _Prompt(text, float(draw.uniform(0.05, 0.3)), 90)


def _sum(draw: np.random.Generator) -> _Prompt:
    steps = int(draw.integers(1, 7))
    parts = [
        f"{int(draw.integers(2, 60))} of the {_pick(draw, GOODS)} at {int(draw.integers(20, 900))} EUR each"
        for _ in range(steps)
    ]
    text = f"{_pick(draw, PEOPLE)} orders {', then '.join(parts)}, with {int(draw.integers(2, 30))} % off. What is the bill?"
    return _Prompt(text, min(1.0, 0.2 + 0.11 * steps + float(draw.normal(0, 0.05))), 60 + 40 * steps)


def _rule(draw: np.random.Generator) -> _Prompt:
    days, limit = int(draw.integers(10, 90)), int(draw.integers(50, 900))
    text = (
        f"Returns end after {days} days unless the {_pick(draw, GOODS)} was damaged, and above {limit} EUR a manager decides. "
        f"{_pick(draw, PEOPLE)} asks after {int(draw.integers(5, 120))} days for {int(draw.integers(20, 1_500))} EUR. Why or why not?"
    )
    return _Prompt(text, float(draw.uniform(0.6, 1)), 150)


def _code(draw: np.random.Generator) -> _Prompt:
    text = f"Write a Python function that {_pick(draw, TASKS)}, for {int(draw.integers(10, 9_000))} rows, with a test."
    return _Prompt(text, float(draw.uniform(0.4, 0.9)), 300)


KINDS: dict[str, tuple[float, Callable[[np.random.Generator], _Prompt]]] = {
    "fact": (0.25, _fact),
    "summary": (0.2, _summary),
    "sum": (0.25, _sum),
    "rule": (0.15, _rule),
    "code": (0.15, _code),
}
