"""Verbs that judge, evaluate, recommend, apply and watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import applied
from ..frames import frame
from ..recommendation import Recommendation
from .parts import Parts

if TYPE_CHECKING:
    import pandas as pd


class TuningVerbs(Parts):
    """Tune: settings from evidence."""

    def apply(self, recommendation: Recommendation) -> pd.DataFrame:
        """Put a recommendation's settings in force, keep it with its evidence, and return the new rows of `settings_df`.

        Later calls use them, also those of labs that are open elsewhere. What holds, the strongest first: an argument
        of the call, the setting applied last, the configuration. Raises `InvalidValue` for the verdicts "keep" and
        "cannot tell yet"; warns (`SettingMismatchWarning`) where it is for other vectors than the lab's.
        """
        return self._log_of(self._settings.apply(recommendation))

    def revert(self, setting: str | None = None) -> pd.DataFrame:
        """Take back the last application (for a name: of that setting), and return the new rows of `settings_df`.

        What was in force before is in force again; reverting twice goes back two steps. Raises `NotFound` where
        nothing is applied.
        """
        return self._log_of(self._settings.revert(setting))

    def setting(self, name: str, *, default: Any = None) -> Any:
        """Return the value of a setting that is in force: applied, else configured, else `default`.

        Warns (`SettingMismatchWarning`) where it was chosen for other vectors than the lab's. Raises `NotFound` for a
        name that is neither applied nor configured when there is no default.

        >>> lab.setting("text_weight"), lab.setting("cache_threshold", default=0.95)
        (0.5, 0.95)
        """
        return self._settings.value(name, default=default)

    def settings_df(self) -> pd.DataFrame:
        """Return every application and reversal of a setting, the newest first, with its evidence; see `apply`."""
        return frame(self._settings.rows(), applied.COLUMNS)

    def _log_of(self, entries: list[dict[str, Any]]) -> pd.DataFrame:
        keys = {entry["settings_key"] for entry in entries}
        return frame([row for row in self._settings.rows() if row["settings_key"] in keys], applied.COLUMNS)
