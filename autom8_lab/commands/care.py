"""Commands that look after the file: health, check, backup, repair, export."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from .options import config_options, lab_options, output_options
from .output import Output

if TYPE_CHECKING:
    from ..config import LabConfig
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
@config_options
@output_options
def check_command(configured: Callable[[], LabConfig], output: Output) -> None:
    """Look at everything in the lab, row by row.

    Prints what is wrong and what to do about it, and changes nothing; the file need not be one that can be opened.
    Exit code 1 where something is damaged or lost.

    Example: autom8-lab check --db autom8.db
    """
    from ..care import check_place

    findings = check_place(configured(), progress=output.progress)
    output.frame(findings, empty="nothing is wrong")
    if (findings["severity"] == "error").any():
        raise SystemExit(1)


@click.command("backup")
@click.argument("path")
@click.option("--keep", type=int, metavar="N", help="In a folder: the newest so many stay.  [default: 7]")
@lab_options
@output_options
def backup_command(lab: Lab, path: str, keep: int | None, output: Output) -> None:
    """Copy the lab while others read and write it.

    PATH is a file, whose older backup is replaced, or a folder, which gets a file named by the time. A copy that is
    not sound does not count: exit code 1.

    Example: autom8-lab backup backups/ --keep 14 --db autom8.db
    """
    output.record(lab.backup(path, keep=keep, progress=output.progress))


@click.command("repair")
@click.argument("to")
@config_options
@output_options
def repair_command(to: str, configured: Callable[[], LabConfig], output: Output) -> None:
    """Save what a damaged lab still holds into a new one.

    The damaged file is only read; TO is the new lab's file. Rows that cannot be proven go beside it as JSON lines. Exit
    code 1 where something is lost or doubtful.

    Example: autom8-lab repair rescued.db --db damaged.db
    """
    from ..lab import repair

    report = repair(configured().db_path, to=to, progress=output.progress)
    tables = report.pop("tables")
    if output.form == "json":
        output.record({**report, "tables": tables.to_dict("records")})
    else:
        output.record(report)
    if output.form == "table":
        click.echo()
        output.frame(tables)
    if report["lost"] or report["doubtful"]:
        raise SystemExit(1)


@click.command("export")
@click.argument("path")
@click.option("--no-vectors", is_flag=True, help="Leave the vectors out; they can be made again.")
@lab_options
@output_options
def export_command(lab: Lab, path: str, no_vectors: bool, output: Output) -> None:
    """Write everything in the lab as JSON lines.

    As of one moment, compressed where PATH ends in .gz; an older export is replaced, any other file refused.
    `import export PATH` reads it into an empty lab.

    Example: autom8-lab export lab.jsonl.gz --db autom8.db
    """
    output.record(lab.export(path, vectors=not no_vectors, progress=output.progress))
