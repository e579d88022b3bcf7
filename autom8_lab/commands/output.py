"""How an answer is printed: a table that fits the terminal, JSON or CSV for pipes."""

from __future__ import annotations

import json
import math
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ..validation import is_missing

if TYPE_CHECKING:
    import pandas as pd

NARROWEST = 6
GAP = "  "


@dataclass(frozen=True)
class Output:
    """Prints in one form: "table", "json" or "csv"."""

    form: str

    @property
    def progress(self) -> bool:
        """Whether long work shows a bar: on a terminal, beside a table."""
        return self.form == "table" and sys.stderr.isatty()

    def frame(self, frame: pd.DataFrame, *, columns: Sequence[str] | None = None, empty: str = "no rows") -> None:
        """Print a frame; a table shows only `columns`, as wide as the terminal, or in a pipe as it needs to be."""
        if self.form == "json":
            names = list(frame.columns)
            rows = [dict(zip(names, cells, strict=True)) for cells in frame.itertuples(index=False, name=None)]
            click.echo(_json([{name: _plain(value) for name, value in row.items()} for row in rows]))
        elif self.form == "csv":
            click.echo(frame.to_csv(index=False), nl=False)
        elif frame.empty:
            click.echo(empty)
        else:
            shown = frame[[name for name in columns or frame.columns if name in frame]]
            rows = [dict(zip(shown.columns, cells, strict=True)) for cells in shown.itertuples(index=False, name=None)]
            head, *lines = table_lines(rows, list(shown.columns), width=terminal_width())
            click.echo("\n".join([click.style(head, bold=True), *lines]))

    def record(self, record: Mapping[str, Any]) -> None:
        """Print names and values."""
        if self.form == "json":
            click.echo(_json({name: _plain(value) for name, value in record.items()}))
        elif self.form == "csv":
            import pandas as pd

            click.echo(
                pd.DataFrame([{name: _plain(value) for name, value in record.items()}]).to_csv(index=False), nl=False
            )
        else:
            width = max(map(len, record), default=0)
            for name, value in record.items():
                lines = [cell(item) for item in value] if isinstance(value, list | tuple) else [cell(value)]
                filling = " " * (width - len(name)) + GAP
                click.echo(click.style(name, bold=True) + f"{filling}{lines[0] if lines else ''}".rstrip())
                for line in lines[1:]:
                    click.echo(f"{' ' * width}{GAP}{line}")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: a time in ISO 8601, null for what is missing."""
    if is_missing(value) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, str | int | float | list | Mapping) else str(value)


def terminal_width() -> int | None:
    """Return how wide the terminal is, or None in a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, width: int | None) -> list[str]:
    """Return the lines of a table, the widest columns cut until it fits into `width` character cells.

    >>> print("\\n".join(table_lines([{"model": "m", "calls": 1200}], ["model", "calls"], width=None)))
    model  calls
    m      1,200
    """
    shown = list(columns)
    while width and len(shown) > 1 and len(shown) * (NARROWEST + len(GAP)) - len(GAP) > width:
        shown.pop()
    values = {name: [row[name] for row in rows] for name in shown}
    cells = {name: _column(name, values[name]) for name in shown}
    right = {name: all(_is_number(value) or is_missing(value) for value in values[name]) for name in shown}
    widths = {name: max(cells_wide(text) for text in [name, *cells[name]]) for name in shown}
    while width and sum(widths.values()) + len(GAP) * (len(widths) - 1) > width:
        widths[max(widths, key=lambda name: widths[name])] -= 1

    def line(texts: Sequence[str]) -> str:
        parts = [fitted(text, widths[name], right=right[name]) for name, text in zip(shown, texts, strict=True)]
        return GAP.join(parts).rstrip()

    lines = [line(shown)] + [line([cells[name][place] for name in shown]) for place in range(len(rows))]
    if len(shown) < len(columns):
        lines.append(f"(no room for {', '.join(columns[len(shown) :])}: use a wider terminal, --csv or --json)")
    return lines


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not _is_flag(value) and not hasattr(value, "year")


def _is_flag(value: Any) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # Python's or NumPy's


def _column(name: str, values: Sequence[Any]) -> list[str]:
    numbers = [float(value) for value in values if _is_number(value) and not is_missing(value)]
    decimals = _decimals(numbers, money=name.endswith("_usd"))
    return [
        f"{float(value):,.{decimals}f}" if _is_number(value) and not is_missing(value) else cell(value)
        for value in values
    ]


def _decimals(numbers: Sequence[float], *, money: bool = False) -> int:
    """Return how many decimals show what matters in all the numbers of a column."""
    sizes = [abs(number) for number in numbers if number and math.isfinite(number)]
    if all(size == int(size) for size in sizes):
        return 0
    if max(sizes) >= 1_000:
        return 2 if money else 0
    if max(sizes) >= 10:
        return 4 if money else 2
    return min(6, max(4 if money else 2, 2 - math.floor(math.log10(min(sizes)))))


def cell(value: Any) -> str:
    """Return a value as one line.

    >>> cell(0.00019384), cell(1234.5), cell(None), cell(("a", "b"))
    ('0.000194', '1,234', '', 'a, b')
    """
    if is_missing(value):
        return ""
    if _is_flag(value):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, Mapping):
        return cell(json.dumps(value, ensure_ascii=False, default=str)) if value else ""
    if _is_number(value):
        return f"{float(value):,.{_decimals([float(value)])}f}"
    # What a text holds must not steer the terminal.
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(value)).split())


def cells_wide(text: str) -> int:
    """Return how many character cells a text takes in a terminal."""
    return sum(_cells(sign) for sign in text)


def _cells(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Return a text in exactly `width` cells, cut with an ellipsis or filled with blanks.

    >>> fitted("a long text", 8), fitted("7", 3, right=True)
    ('a long …', '  7')
    """
    if cells_wide(text) > width:
        kept = ""
        for sign in text:
            if cells_wide(kept) + _cells(sign) > width - 1:
                break
            kept += sign
        text = f"{kept}…"
    filling = " " * (width - cells_wide(text))
    return filling + text if right else text + filling
