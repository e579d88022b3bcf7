"""Commands that try the lab: test, bench, demo."""

from __future__ import annotations

import click

from .options import output_options
from .output import Output

FIGURES = ["what", "figure", "unit", "against", "against_figure", "ratio", "bar", "held"]


@click.command("test")
@click.option("--db", metavar="PATH", help="Also try a copy of this lab, with its data.")
@click.option("--only", multiple=True, metavar="GROUP", help="Only this group of checks; may be repeated.")
@click.option("--folder", metavar="PATH", help="Where the files of the test are made. [default: the system's]")
@output_options
def test_command(db: str | None, only: tuple[str, ...], folder: str | None, output: Output) -> None:
    """Try everything a lab does in this installation.

    On files of its own: contexts, search, each vector engine, the model, the ledger, schema and migrations, health,
    configuration, backup, threads, processes and coroutines, error conditions, and a short benchmark. Exit code 1
    where a check fails.

    Example: autom8-lab test --only contexts --only vectors
    """
    from ..diagnostics.running import run_database_tests

    report = run_database_tests(db, only=only or None, folder=folder, progress=output.progress)
    if output.form == "json":
        output.record({**report, "checks": report.checks_df().to_dict("records")})
    else:
        output.frame(report.checks_df())
    if output.form == "table":
        click.echo(f"\n{report}")
    if not report.passed:
        raise SystemExit(1)


@click.command("bench")
@click.option(
    "--size", type=click.Choice(["quick", "standard", "full"]), default="quick", show_default=True, help="How much."
)
@click.option(
    "--part", multiple=True, help="Only encode, store, read, search, large, connections or start; may be repeated."
)
@click.option("--encoder", metavar="MODEL", help="What encodes queries. [default: the configured model, else hash]")
@click.option("--folder", metavar="PATH", help="Where the files are made. [default: the system's]")
@click.option("--seed", default=0, show_default=True, help="Of everything that is drawn.")
@output_options
def bench_command(
    size: str, part: tuple[str, ...], encoder: str | None, folder: str | None, seed: int, output: Output
) -> None:
    """Measure how fast a lab works on this machine.

    Each figure stands beside the bare alternative, measured in turns with it. On files of its own; quick takes half a
    minute, standard minutes, full works with 100,000 vectors.

    Example: autom8-lab bench --size quick --part read --part search
    """
    from ..diagnostics.benchmark import benchmark

    figures = benchmark(size, parts=part or None, seed=seed, encoder=encoder, folder=folder, progress=output.progress)
    output.frame(figures, columns=FIGURES)


@click.command("demo")
@click.option("--path", default="demo.db", show_default=True, help="Where the demo's lab is kept.")
def demo_command(path: str) -> None:
    """Build a lab from the Python language reference and search it.

    Example: autom8-lab demo --path demo.db
    """
    from ..demo import run_demo

    run_demo(path, write=click.echo)
