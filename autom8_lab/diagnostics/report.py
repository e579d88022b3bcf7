"""What a self-test found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..frames import frame
from ..records import Report

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {"group": "str", "check": "str", "outcome": "str", "seconds": "float64", "problem": "str"}
RATE_COLUMNS = {"operation": "str", "per_second": "float64", "at_least": "float64", "typical": "str"}


class DatabaseTestReport(Report):
    """The outcome of a self-test: test_summary, failures, performance, environment.

    `test_summary` has total, passed, failed, success_rate (percent) and seconds; `failures` a text for each check that
    failed; `performance` operations per second by name. `checks_df()` has a row for every check, `performance_df()`
    the rates beside what is typical.
    """

    def __init__(
        self, checks: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]
    ) -> None:
        failed = [row for row in checks if row["outcome"] == "failed"]
        super().__init__(
            test_summary={
                "total": len(checks),
                "passed": len(checks) - len(failed),
                "failed": len(failed),
                "success_rate": 100.0 * (len(checks) - len(failed)) / len(checks) if checks else 0.0,
                "seconds": round(sum(row["seconds"] for row in checks), 3),
            },
            failures=[f"{row['group']}: {row['check']}: {row['problem']}" for row in failed],
            performance={row["operation"]: row["per_second"] for row in rates},
            environment=dict(environment),
        )
        self._checks = list(checks)
        self._rates = list(rates)

    @property
    def passed(self) -> bool:
        """Whether there were checks and every one passed."""
        return bool(self._checks) and not self["failures"]

    def checks_df(self) -> pd.DataFrame:
        """Return every check in the order in which they ran: group, check, outcome, seconds, problem."""
        return frame(self._checks, COLUMNS)

    def performance_df(self) -> pd.DataFrame:
        """Return operations per second, the least that passes, and what modern hardware typically does."""
        return frame(self._rates, RATE_COLUMNS)

    def __repr__(self) -> str:
        summary = self["test_summary"]
        lines = [
            f"{summary['passed']} of {summary['total']} checks passed ({summary['success_rate']:.1f} %) "
            f"in {summary['seconds']:.1f} s"
        ]
        lines += [f"failed  {text}" for text in self["failures"]]
        lines += [f"{name}  {rate:,.0f}/s" for name, rate in self["performance"].items()]
        return "\n".join(lines)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        shown = {"passed": str(self).split("\n")[0], "failed": "; ".join(self["failures"]) or "none"}
        rates = {name: f"{rate:,.0f}/s" for name, rate in self["performance"].items()}
        return Report({**shown, **rates})._repr_html_()
