"""What the commands share: which lab, in which form the answer comes, and how filters are written."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidValue, LabNotFound
from .output import Output

if TYPE_CHECKING:
    from ..config import LabConfig
    from ..lab import Lab

Function = Callable[..., Any]
PRESETS = ("development", "testing", "production")


def config_options(function: Function) -> Function:
    """Give a command --db, --config and --preset, and call it with `configured`, which loads the configuration."""

    @click.option("--db", metavar="PATH", help="The lab's file. [default: AUTOM8_DB_PATH, autom8.yaml, ./autom8.db]")
    @click.option(
        "--config", metavar="PATH", help="A YAML file of settings. [default: autom8.yaml, looked for upwards]"
    )
    @click.option("--preset", type=click.Choice(PRESETS), help="Settings for an environment.")
    @functools.wraps(function)
    def command(db: str | None, config: str | None, preset: str | None, **rest: Any) -> Any:
        def configured() -> LabConfig:
            from ..config import LabConfig

            return LabConfig.load(db_path=db, config_path=config, preset=preset)

        return function(configured=configured, **rest)

    return command


def lab_options(function: Function) -> Function:
    """Give a command --db, --config and --preset, and call it with an open `lab`, which has to be there."""

    @config_options
    @functools.wraps(function)
    def command(configured: Callable[[], LabConfig], **rest: Any) -> Any:
        with opened(configured()) as lab:
            return function(lab=lab, **rest)

    return command


@contextmanager
def opened(config: LabConfig, *, create: bool = False) -> Iterator[Lab]:
    """Open a lab that is there, or with `create` one that is to be made."""
    from ..lab import Lab

    path = config.db_path
    if not create and path != ":memory:" and "://" not in path and not Path(path).exists():
        raise LabNotFound(f"no lab at {path}: `autom8-lab init --db {path}` makes one")
    with Lab(config) as lab:
        yield lab


def output_options(function: Function) -> Function:
    """Give a command --json and --csv, and call it with `output`."""

    @click.option("--json", "form", flag_value="json", help="Print JSON.")
    @click.option("--csv", "form", flag_value="csv", help="Print CSV.")
    @functools.wraps(function)
    def command(form: str | None, **rest: Any) -> Any:
        return function(output=Output(form or "table"), **rest)

    return command


def call_filters(function: Function) -> Function:
    """Give a command the filters of calls, and call it with `filters`."""

    @click.option("--since", metavar="TIME", help="From this time on: 2026-05-01, an ISO time, or 7d before now.")
    @click.option("--until", metavar="TIME", help="Before this time.")
    @click.option("--provider", multiple=True, help="Only this provider; may be repeated.")
    @click.option("--model", multiple=True, help="Only this model; may be repeated.")
    @click.option("--operation", multiple=True, help="Only this operation; may be repeated.")
    @click.option("--agent", multiple=True, help="Only this agent; may be repeated.")
    @click.option("--source", multiple=True, help="Only this source; may be repeated.")
    @click.option("--success/--failure", default=None, help="Only calls that succeeded, or failed.")
    @click.option("--metadata", metavar="KEY=VALUE", multiple=True, help="Only calls with this; may be repeated.")
    @functools.wraps(function)
    def command(**given: Any) -> Any:
        names = ("since", "until", "provider", "model", "operation", "agent", "source", "success")
        filters = {name: given.pop(name) for name in names}
        filters = {name: list(value) if isinstance(value, tuple) else value for name, value in filters.items()}
        filters["metadata"] = metadata_of(given.pop("metadata"))
        return function(
            filters={name: value for name, value in filters.items() if value not in (None, [], {})}, **given
        )

    return command


def metadata_of(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return what KEY=VALUE options say; a value is JSON where it can be, else text. Raises `InvalidValue`."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise InvalidValue(f"--metadata {pair}: give KEY=VALUE")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found
