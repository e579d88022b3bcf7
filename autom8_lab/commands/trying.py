"""Commands that try the lab: demo."""

from __future__ import annotations

import click


@click.command("demo")
@click.option("--path", default="demo.db", show_default=True, help="Where the demo's lab is kept.")
def demo_command(path: str) -> None:
    """Build a lab from the Python language reference and search it.

    Example: autom8-lab demo --path demo.db
    """
    from ..demo import run_demo

    run_demo(path, write=click.echo)
