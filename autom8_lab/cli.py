"""The command line: the lab's words in a terminal."""

from __future__ import annotations

import click

from . import __version__
from .errors import LabError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autom8-lab")
def main() -> None:
    """One SQLite file remembers what an LLM-agent system knew, decided, spent and how well it went."""


@main.command()
@click.option("--path", default="demo.db", show_default=True, help="Where the demo's lab is kept.")
def demo(path: str) -> None:
    """Build a lab from the Python language reference and search it.

    Example: autom8-lab demo --path demo.db
    """
    from .demo import run_demo

    try:
        run_demo(path, write=click.echo)
    except LabError as exc:
        raise click.ClickException(str(exc)) from exc
