"""Commands that look after the file: health, check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import lab_options, output_options
from .output import Output

if TYPE_CHECKING:
    from ..lab import Lab


@click.command("health")
@lab_options
@output_options
def health_command(lab: Lab, output: Output) -> None:
    """The state of the file and its engines.

    Quickly, with the number of rows of each kind; `check` looks at every row. Exit code 1 where something is wrong.

    Example: autom8-lab health --db autom8.db
    """
    from ..setup import complaints

    health = lab.health()
    problems = complaints(health)
    output.record({**health, **({} if problems else lab.stats())})
    if problems:
        raise SystemExit(1)


@click.command("check")
@lab_options
@output_options
def check_command(lab: Lab, output: Output) -> None:
    """Look at everything in the file, row by row.

    Prints what is wrong and what to do about it, and changes nothing. Exit code 1 where something is damaged or lost.

    Example: autom8-lab check --db autom8.db
    """
    findings = lab.check()
    output.frame(findings, empty="nothing is wrong")
    if (findings["severity"] == "error").any():
        raise SystemExit(1)
