"""Commands that remember and find: store, search, cleanup."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidValue
from .options import config_options, lab_options, metadata_of, opened, output_options
from .output import Output
from .rows import rows_of_file, text_of

if TYPE_CHECKING:
    from ..config import LabConfig
    from ..lab import Lab

FOUND = ["rank", "context_id", "score", "similarity", "matched_terms", "topic", "chunk"]


@click.command("store")
@click.argument("text", required=False)
@click.option(
    "--file", "files", multiple=True, metavar="FILE", help="Store a text file (- for standard input); may be repeated."
)
@click.option("--rows", metavar="FILE", help="Store rows of JSON, JSON lines or CSV (- for standard input).")
@click.option("--id", "context_id", help="The context's id; made by the lab if not given.")
@click.option("--topic", help="What the text is about.")
@click.option("--summary", help="The text in short.")
@click.option("--source", help="Where the text is from; a file's is its path.")
@click.option("--priority", type=int, help="A whole number; higher is more important.")
@click.option("--pin", is_flag=True, default=None, help="Protect it from cleanup.")
@click.option("--ttl", metavar="LENGTH", help="Let it expire after 12h, 30d, 2w …")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Anything else; may be repeated.")
@click.option(
    "--if-exists",
    type=click.Choice(["fail", "update", "skip"]),
    default="fail",
    show_default=True,
    help="For an id that is taken.",
)
@config_options
@output_options
def store_command(
    text: str | None,
    configured: Callable[[], LabConfig],
    files: tuple[str, ...],
    rows: str | None,
    context_id: str | None,
    pin: bool | None,
    metadata: tuple[str, ...],
    if_exists: Any,
    output: Output,
    **fields: Any,
) -> None:
    """Store texts, files or rows as contexts.

    A missing lab is made. Prints an outcome for each: stored, duplicate, updated, unchanged or skipped.

    Example: autom8-lab store "Refunds above 500 EUR need a second approval." --topic rules --id refund-limit
    """
    if sum([text is not None, bool(files), rows is not None]) != 1:
        raise click.UsageError("give one of TEXT, --file or --rows")
    fields |= {"context_id": context_id, "pinned": pin, "metadata": metadata_of(metadata) or None}
    given = {name: value for name, value in fields.items() if value is not None}
    if context_id is not None and (len(files) > 1 or rows is not None):
        raise click.UsageError("--id is for a single text")
    if rows is not None:
        contents = [{**given, **row} for row in rows_of_file(rows)]
    elif files:
        contents = [{**({} if path == "-" else {"source": path}), **given, "content": text_of(path)} for path in files]
    else:
        contents = [{**given, "content": text}]
    with opened(configured(), create=True) as lab:
        try:
            outcomes = lab.store_contexts(contents, if_exists=if_exists)
        except InvalidValue as error:
            if len(contents) > 1:
                raise
            raise InvalidValue(str(error).removeprefix("row 0: ")) from error
    output.frame(outcomes)


@click.command("search")
@click.argument("query")
@click.option("-k", default=10, show_default=True, help="How many contexts at most.")
@click.option(
    "--method",
    type=click.Choice(["hybrid", "text", "semantic"]),
    default="hybrid",
    show_default=True,
    help="How to rank.",
)
@click.option("--topic", multiple=True, help="Only this topic; may be repeated.")
@click.option("--source", multiple=True, help="Only this source; may be repeated.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Only contexts with this; may be repeated.")
@click.option("--since", metavar="TIME", help="Created from this time on: 2026-05-01, an ISO time, or 7d before now.")
@click.option("--until", metavar="TIME", help="Created before this time.")
@click.option("--min-similarity", type=float, help="Drop what is less similar.")
@click.option("--pinned/--not-pinned", default=None, help="Only what is pinned, or is not.")
@click.option("--include-expired", is_flag=True, help="Find what has expired, too.")
@click.option("--include-superseded", is_flag=True, help="Find what was replaced, too.")
@lab_options
@output_options
def search_command(
    query: str,
    lab: Lab,
    topic: tuple[str, ...],
    source: tuple[str, ...],
    metadata: tuple[str, ...],
    output: Output,
    **options: Any,
) -> None:
    """Find contexts by words and by meaning.

    The best first, with what put each there. A table shows the best passage; --json and --csv give everything.

    Example: autom8-lab search "who must agree to give money back?" -k 3
    """
    filters: dict[str, Any] = {
        "topic": list(topic) or None,
        "source": list(source) or None,
        "metadata": metadata_of(metadata) or None,
    }
    output.frame(lab.search_df(query, **filters, **options), columns=FOUND)


@click.command("cleanup")
@click.option("--older-than", metavar="LENGTH", help="Contexts neither changed nor shown for so long: 90d, 12w …")
@click.option("--delete", is_flag=True, help="Remove what is shown.")
@lab_options
@output_options
def cleanup_command(lab: Lab, older_than: str | None, delete: bool, output: Output) -> None:
    """Show what retention removes, and remove it.

    Nothing is removed without --delete. Expired contexts, and those unused for longer than --older-than or the setting auto_cleanup_days. Pinned contexts
    always stay.

    Example: autom8-lab cleanup --older-than 90d
    """
    output.frame(lab.cleanup(dry_run=not delete, older_than=older_than))
