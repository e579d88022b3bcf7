"""What an import read and did: counts, the rows that were refused and why, and the models without a price."""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..frames import frame
from ..records import Report

if TYPE_CHECKING:
    import pandas as pd

KEPT_REFUSALS = 1_000  # further ones are only counted
SHOWN_REFUSALS = 5
REFUSED_COLUMNS = {"file": "str", "place": "str", "reason": "str"}
UNPRICED_COLUMNS = {"provider": "str", "model": "str", "calls": "int64"}


class ImportReport(Report):
    """The counts of one import; `refused_df()` says what was refused and why, `unpriced_df()` what has no price.

    Every row that was `read` is `new`, `updated` (the source knows more of the call by now), `already_there` or
    `refused`. With `dry_run` they say what an import would do. `mapping` is the one of `import_rows`.
    """

    def __init__(self, source: str, *, dry_run: bool) -> None:
        super().__init__(source=source, dry_run=dry_run)
        self.update(dict.fromkeys(("files", "unchanged_files", "read", "new", "updated", "already_there"), 0))
        self.update(refused=0, unpriced=0)
        self.mapping: dict[str, str] = {}
        self.unused_columns: list[str] = []
        self.remedy: str | None = None
        self._refused: list[dict[str, str]] = []
        self._unpriced: Counter[tuple[str | None, str]] = Counter()

    def add(self, name: str, number: int = 1) -> None:
        """Count something."""
        self[name] = self.get(name, 0) + number

    def refuse(self, file: str | None, place: str, reason: str) -> None:
        """Note what was refused and why."""
        self.add("refused")
        if len(self._refused) < KEPT_REFUSALS:
            self._refused.append({"file": file or "", "place": place, "reason": reason})

    def note_unpriced(self, models: Counter[tuple[str | None, str]]) -> None:
        """Note calls without a price by provider and model."""
        self._unpriced.update(models)
        self.add("unpriced", models.total())

    def refused_df(self) -> pd.DataFrame:
        """Return the first thousand refused rows: file, place in it, and why."""
        return frame(self._refused, REFUSED_COLUMNS)

    def unpriced_df(self) -> pd.DataFrame:
        """Return the new calls without a price by provider and model, the most first; `al.unpriced_df` has remedies."""
        ordered = sorted(self._unpriced.items(), key=lambda item: (-item[1], item[0][1], item[0][0] or ""))
        rows = [{"provider": provider, "model": model, "calls": calls} for (provider, model), calls in ordered]
        return frame(rows, UNPRICED_COLUMNS)

    def _details(self) -> list[tuple[str, Any]]:
        lines: list[tuple[str, Any]] = [("mapping", f"{field} ← {column}") for field, column in self.mapping.items()]
        if self.unused_columns:
            lines.append(("unused", ", ".join(self.unused_columns)))
        if self.remedy:
            lines.append(("next", self.remedy))
        lines += [
            ("refused", f"{row['file']} {row['place']}: {row['reason']}".lstrip())
            for row in self._refused[:SHOWN_REFUSALS]
        ]
        if self["refused"] > SHOWN_REFUSALS:
            lines.append(("", f"{self['refused'] - SHOWN_REFUSALS:,} more in refused_df()"))
        for row in self.unpriced_df().head(SHOWN_REFUSALS).to_dict("records"):
            lines.append(("unpriced", f"{row['model']}: {row['calls']:,} calls"))
        return lines

    def __repr__(self) -> str:
        return "\n".join([super().__repr__(), *(f"  {name:<10}{value}".rstrip() for name, value in self._details())])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        details = "".join(
            f"<tr><td style='text-align:left'>{html.escape(name)}</td>"
            f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
            for name, value in self._details()
        )
        return super()._repr_html_() + (f"<table><tbody>{details}</tbody></table>" if details else "")
