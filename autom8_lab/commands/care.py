"""Commands that look after the file: health."""

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

    With the number of rows of each kind.

    Example: autom8-lab health --db autom8.db
    """
    output.record({**lab.health(), **lab.stats()})
