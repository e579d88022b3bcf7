"""The command that imports logs that exist already."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..errors import did_you_mean
from .options import config_options, opened, output_options
from .output import Output

if TYPE_CHECKING:
    from ..config import LabConfig

VERB = "import_"


@click.command("import")
@click.argument("source")
@click.argument("path", required=False)
@click.option("--dry-run", is_flag=True, default=None, help="Only say what an import would do.")
@click.option("--again", "resume", flag_value=False, type=bool, default=None, help="Read what was read before, too.")
@click.option("--store-texts", is_flag=True, default=None, help="Keep prompts and answers as contexts.")
@click.option(
    "--mapping",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="rows, billing: which column a field is in, or 'guess'; may be repeated.",
)
@click.option("--timezone", help="rows, billing: the zone of times that name none.")
@click.option("--collection", help="llm-embeddings: only this collection.")
@click.option("--provider", help="billing: whose bill it is.")
@click.option("--currency", help="billing: what the bill is in, where it does not say so.")
@config_options
@output_options
def import_command(
    source: str,
    path: str | None,
    configured: Callable[[], LabConfig],
    mapping: tuple[str, ...],
    output: Output,
    **options: Any,
) -> None:
    """Import the logs that other tools have written.

    Repeated, it adds only what is new. SOURCE is billing, claude-code, codex, litellm, llm-logs, llm-embeddings, otel,
    rows (any CSV, JSON, JSON lines or Parquet file), or export (what `export` wrote, into an empty lab). PATH is a file
    or a folder, for most sources by default where the tool keeps its logs. A missing lab is made.

    Example: autom8-lab import rows calls.csv --mapping model=Model --mapping input_tokens="Prompt tokens"
    """
    from ..importers.report import ImportReport

    given = {name: value for name, value in options.items() if value is not None}
    if mapping:
        given["mapping"] = "guess" if mapping == ("guess",) else _mapping(mapping)
    verb = _verb(source, path, given)
    with opened(configured(), create=True) as lab:
        report = getattr(lab, verb)(*([path] if path is not None else []), **given)
    if output.form == "table":
        click.echo(str(report))
    elif output.form == "json" and isinstance(report, ImportReport):
        output.record({**report, "refused_rows": report.refused_df().to_dict("records")})
    else:
        output.record(report)


def _mapping(pairs: tuple[str, ...]) -> dict[str, str]:
    wrong = [pair for pair in pairs if not all(pair.partition("="))]
    if wrong:
        raise click.UsageError(f"--mapping {wrong[0]}: give FIELD=COLUMN, or guess alone")
    return {field: column for field, _, column in (pair.partition("=") for pair in pairs)}


def _verb(source: str, path: str | None, given: dict[str, Any]) -> str:
    """Return the verb that imports from a source, if it can be called with this."""
    from ..lab import Lab

    sources = {name.removeprefix(VERB).replace("_", "-"): name for name in dir(Lab) if name.startswith(VERB)}
    if source not in sources:
        raise click.UsageError(f"no source {source!r}{did_you_mean(source, sources)}")
    _, first, *rest = inspect.signature(getattr(Lab, sources[source])).parameters.values()
    if path is None and first.default is inspect.Parameter.empty:
        raise click.UsageError(f"{source} needs a PATH")
    for name in given.keys() - {parameter.name for parameter in rest}:
        option = "again" if name == "resume" else name.replace("_", "-")
        raise click.UsageError(f"{source} has no use for --{option}")
    for parameter in rest:
        if parameter.default is inspect.Parameter.empty and parameter.name not in given:
            raise click.UsageError(f"{source} needs --{parameter.name.replace('_', '-')}")
    return sources[source]
