"""Commands that read the account: usage, cost, latency, models, decisions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from .options import Function, call_filters, lab_options, output_options
from .output import Output

if TYPE_CHECKING:
    from ..lab import Lab

USAGE = ["calls", "failed_calls", "input_tokens", "output_tokens", "cost_usd", "unpriced_calls"]
COST = ["calls", "cost_usd", "share", "cost_estimated_usd", "cost_actual_usd", "cumulative_usd", "unpriced_calls"]
LATENCY = ["n", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "ttft_p50_ms", "output_tokens_per_second"]
MODELS = ["calls", "success_rate", "quality_mean", "cost_per_call_usd", "cost_per_success_usd", "latency_p50_ms"]
DECISIONS = [
    "decision_id",
    "at",
    "decision_type",
    "chosen",
    "propensity",
    "policy",
    "success",
    "quality_score",
    "cost_usd",
]


def grouped(function: Function) -> Function:
    """Give a command --by and --freq, the filters of calls, and the forms of output."""

    @click.option(
        "--by", multiple=True, default=["model"], show_default=True, help="A column or metadata.KEY; may be repeated."
    )
    @click.option("--freq", type=click.Choice(["h", "D", "W", "M"]), help="Also by hour, day, week or month.")
    @call_filters
    @lab_options
    @output_options
    @functools.wraps(function)
    def command(by: tuple[str, ...], **rest: Any) -> Any:
        return function(by=list(by), **rest)

    return command


def _shown(by: list[str], freq: str | None, columns: list[str]) -> list[str]:
    return [*(["period"] if freq else []), *by, *columns]


@click.command("usage")
@grouped
def usage_command(lab: Lab, by: list[str], freq: str | None, filters: dict[str, Any], output: Output) -> None:
    """Calls and tokens, by model or anything else.

    Failed calls and the cost in USD too.

    Example: autom8-lab usage --by model --by metadata.team --freq D --since 7d
    """
    output.frame(lab.usage_df(by=by, freq=freq, **filters), columns=_shown(by, freq, USAGE))


@click.command("cost")
@grouped
def cost_command(lab: Lab, by: list[str], freq: str | None, filters: dict[str, Any], output: Output) -> None:
    """What calls cost, by model or anything else.

    In USD, estimated beside billed.

    Example: autom8-lab cost --by provider --freq M
    """
    output.frame(lab.cost_df(by=by, freq=freq, **filters), columns=_shown(by, freq, COST))


@click.command("latency")
@grouped
def latency_command(lab: Lab, by: list[str], freq: str | None, filters: dict[str, Any], output: Output) -> None:
    """How long calls took: percentiles with intervals.

    In milliseconds; the intervals are in --json and --csv.

    Example: autom8-lab latency --by model --by operation --since 30d --success
    """
    output.frame(lab.latency_df(by=by, freq=freq, **filters), columns=_shown(by, freq, LATENCY))


@click.command("models")
@grouped
def models_command(lab: Lab, by: list[str], freq: str | None, filters: dict[str, Any], output: Output) -> None:
    """How well models do: success, quality, cost, latency.

    Cost is per call and per success. Intervals, and with --since the change against the period before, are in --json and --csv.

    Example: autom8-lab models --since 7d
    """
    output.frame(lab.model_performance_df(by=by, freq=freq, **filters), columns=_shown(by, freq, MODELS))


@click.command("decisions")
@click.option("--since", metavar="TIME", help="From this time on: 2026-05-01, an ISO time, or 7d before now.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option("--type", "decision_type", multiple=True, help="Only this type; may be repeated.")
@click.option("--chosen", multiple=True, help="Only where this was chosen; may be repeated.")
@click.option("--policy", multiple=True, help="Only this policy; may be repeated.")
@click.option("--agent", multiple=True, help="Only this agent; may be repeated.")
@click.option("--success/--failure", default=None, help="Only decisions that turned out well, or badly.")
@click.option("--limit", default=20, show_default=True, help="The newest so many.")
@lab_options
@output_options
def decisions_command(lab: Lab, output: Output, **given: Any) -> None:
    """What was decided, from what, and how it went.

    The oldest first, with what it cost; --json and --csv have the candidates and the contexts seen.

    Example: autom8-lab decisions --type route --limit 5
    """
    filters: dict[str, Any] = {
        name: list(value) or None if isinstance(value, tuple) else value for name, value in given.items()
    }
    output.frame(lab.decisions_df(**filters), columns=DECISIONS)
