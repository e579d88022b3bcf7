"""The main job on real text: the language reference that every CPython carries."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import LabError
from .lab import Lab, open_lab

if TYPE_CHECKING:
    import pandas as pd

QUERIES = (
    "how do I catch an exception and run cleanup code?",
    "__getattr__ versus __getattribute__",
    "why does my loop variable keep its last value?",
)
SHOWN = ["context_id", "score", "text_rank", "semantic_rank", "similarity", "matched_terms", "chunk"]


def demo_rows() -> list[dict[str, Any]]:
    """Return the topics of Python's own help() as contexts."""
    from pydoc_data.topics import topics

    return [
        {"context_id": f"python-{name}", "content": text, "topic": "python", "source": "pydoc_data.topics"}
        for name, text in sorted(topics.items())
    ]


def run_demo(path: str, *, write: Callable[[str], object] = print) -> None:
    """Build or reopen a lab at `path` and print three searches, the lab's state and what to try next."""
    with open_lab(path) as lab:
        started = time.perf_counter()
        write(f"Storing the Python language reference in {path} (a few minutes at most, once) …")
        outcomes = lab.store_contexts(demo_rows(), if_exists="skip", batch_size=20)
        counts = ", ".join(f"{count} {name}" for name, count in outcomes["outcome"].value_counts().items())
        write(f"{counts} in {time.perf_counter() - started:.1f} s\n")
        for query in QUERIES:
            _show(lab, query, write)
        write("al.stats()")
        write(f"{lab.stats()}\n")
    write(
        "Next: python, then\n"
        "    import autom8_lab as al\n"
        f"    al.open({path!r})\n"
        '    al.search_df("what does yield return?", method="semantic")\n'
        "    al.searches_df()          # what was asked so far, and what came back\n"
        "or: make lab, and notebooks/01_quickstart.ipynb"
    )


def _show(lab: Lab, query: str, write: Callable[[str], object]) -> None:
    import pandas as pd

    started = time.perf_counter()
    found = lab.search_df(query, k=4)
    milliseconds = (time.perf_counter() - started) * 1000
    write(f"al.search_df({query!r}, k=4)    {milliseconds:.0f} ms, vectors by {found.attrs['engine']}")
    with pd.option_context("display.width", 160, "display.max_columns", None, "display.max_colwidth", 46):
        write(f"{_table(found)}\n")


def _table(found: pd.DataFrame) -> str:
    if found.empty:
        raise LabError("the demo found nothing: al.health() tells the state of the lab")
    table = found[SHOWN].round(3)
    table["chunk"] = table["chunk"].str.split().str.join(" ")
    table["matched_terms"] = table["matched_terms"].str.join(" ")
    return table.to_string(index=False, max_colwidth=46)
