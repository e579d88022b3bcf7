"""Measuring in turns, and what a measurement says as a row."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import InvalidValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Row = dict[str, Any]
# A contender does the work of one round, by its number, and returns the seconds that one operation took.
Contender = Callable[[int], float]

COLUMNS = {
    "part": "str",
    "what": "str",
    "how": "str",
    "figure": "float64",
    "figure_low": "float64",
    "figure_high": "float64",
    "unit": "str",
    "better": "str",
    "against": "str",
    "against_figure": "float64",
    "ratio": "float64",
    "ratio_low": "float64",
    "ratio_high": "float64",
    "bar_on": "str",
    "bar": "float64",
    "held": "boolean",
    "errors": "Int64",
    "lost": "Int64",
    "rounds": "int64",
    "note": "str",
}
HIGHER = ("/s", "recall@10")  # units of which more is better; of the others less is


class Timings(NamedTuple):
    """Seconds per operation, one per round, of the two that took turns."""

    ours: list[float]
    theirs: list[float]


def seconds_each(operation: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Return the mean seconds that a call took, over one call per argument."""
    gc.collect()
    started = time.perf_counter()
    for argument in arguments:
        operation(argument)
    return (time.perf_counter() - started) / len(arguments)


def seconds_of(action: Callable[[], object]) -> float:
    """Return the seconds that a call took."""
    return seconds_each(lambda _: action(), [None])


def in_turns(rounds: int, ours: Contender, theirs: Contender) -> Timings:
    """Let two take turns, who begins changing with each round, so that a busy moment of the machine hits both.

    A first round 0, in which caches fill and libraries are loaded, does not count.
    """
    found: Timings = Timings([], [])
    with _own_garbage():
        for number in range(rounds + 1):
            turns = [(ours, found.ours), (theirs, found.theirs)]
            for contender, kept in turns if number % 2 else reversed(turns):
                kept.append(contender(number))
    return Timings(found.ours[1:], found.theirs[1:])


def alone(rounds: int, contender: Contender) -> list[float]:
    """Do what `in_turns` does for one that has no counterpart."""
    with _own_garbage():
        return [contender(number) for number in range(rounds + 1)][1:]


@contextmanager
def _own_garbage() -> Iterator[None]:
    """Spare the collector what was there before: a notebook's large frames must not slow a round down."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def rates(seconds: Sequence[float]) -> list[float]:
    """Return how often per second, for seconds per operation."""
    return [1 / value for value in seconds]


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """Return milliseconds."""
    return [1_000 * value for value in seconds]


def row(
    part: str,
    what: str,
    unit: str,
    values: Sequence[float],
    *,
    how: str | None = None,
    against: str | None = None,
    others: Sequence[float] | None = None,
    errors: int | None = None,
    lost: int | None = None,
    note: str | None = None,
) -> Row:
    """Return a row of `COLUMNS`: medians and quartiles over the rounds.

    The ratio is the figure over the alternative's, taken round by round where both have as many.

    >>> made = row("read", "get", "/s", [90, 100, 110], others=[50, 50, 50])
    >>> made["figure"], made["ratio"], made["ratio_low"]
    (100.0, 2.0, 1.9)
    """
    if not values:
        raise InvalidValue(f"{what} has no value: repeats is at least 1")
    low, figure, high = _quartiles(values)
    made: Row = {
        "part": part,
        "what": what,
        "how": how,
        "figure": figure,
        "figure_low": low,
        "figure_high": high,
        "unit": unit,
        "better": "higher" if unit in HIGHER else "lower",
        "against": against,
        "errors": errors,
        "lost": lost,
        "rounds": len(values),
        "note": note,
    }
    if others:
        made["against_figure"] = float(_quartiles(others)[1])
        if len(others) == len(values):
            made["ratio_low"], made["ratio"], made["ratio_high"] = _quartiles(
                [value / other for value, other in zip(values, others, strict=True)]
            )
        else:
            made["ratio"] = figure / made["against_figure"]
    return made


def _quartiles(values: Sequence[float]) -> list[float]:
    import numpy as np

    found: NDArray[np.float64] = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75])
    return [float(value) for value in found]
