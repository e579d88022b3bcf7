"""Verbs that tell how the lab is set up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..frames import frame
from ..records import Condition
from .parts import Parts

if TYPE_CHECKING:
    import pandas as pd

    from ..config import LabConfig
    from ..config.advice import File
    from ..storage import Storage

CONFIG_COLUMNS = {"setting": "str", "value": "object", "origin": "str", "default": "object", "description": "str"}
UNUSED = timedelta(days=90)


class SettingsVerbs(Parts):
    """How the lab is set up."""

    def config_df(self) -> pd.DataFrame:
        """Return every setting with its value, where that came from, the default and what the setting means.

        The origin is "applied" and since when, "argument", "environment" and the variable, "file" and its path,
        "preset" and its name, or "default".

        >>> lab.config_df().set_index("setting").loc["synchronous", ["value", "origin"]].tolist()
        ['OFF', 'argument']
        """
        rows, applied = config_rows(self.config), self._applied.in_force()
        for row in rows:
            if entry := applied.get(row["setting"]):
                row.update(value=entry["value"], origin=f"applied {entry['at'].isoformat(timespec='seconds')}")
        return frame(rows, CONFIG_COLUMNS)

    def config_advice_df(self) -> pd.DataFrame:
        """Return what is to be said about the settings on this machine and for this file, problems first.

        Columns: setting, value, kind ("problem" or "advice"), advice, why. Cores, memory, free disk, the size of the
        file, the number of vectors and the SQLite version are looked at; nothing is changed.
        """
        from ..config.advice import COLUMNS, remarks, this_machine

        machine = this_machine(self.config.db_path)
        rows = remarks(self.config, machine, file_facts(self._storage, clock=self._clock))
        return frame(rows, COLUMNS)

    def _try_model(self) -> tuple[str, int]:
        # As a search would: the model of the vectors that are there, else the configured one.
        from ..vectors.similarity import checked

        active = self._index.active_set()
        encoder = self._index.encoder_of(active) if active else self._index.encoder()
        vector = encoder.encode_query("Is anybody there?")
        checked(vector, dimensions=encoder.dimensions, what=f"a vector of {encoder.name!r}")
        return encoder.model_id, encoder.dimensions


def config_rows(config: LabConfig) -> list[dict[str, Any]]:
    """Return a row of `CONFIG_COLUMNS` per setting, in the order in which they are documented."""
    return [
        {
            "setting": name,
            "value": getattr(config, name),
            "origin": config.origin(name),
            "default": field.get_default(call_default_factory=True),
            "description": field.description,
        }
        for name, field in type(config).model_fields.items()
    ]


def file_facts(storage: Storage, *, clock: Callable[[], datetime]) -> File:
    """Return what advice needs to know about a file."""
    from ..config.advice import File

    health = storage.health(["file_bytes", "sqlite_vec", "wal_reset_bug"])
    bug = str(health["wal_reset_bug"]).partition(": ")[2]
    extension = health["sqlite_vec"]  # one word where it is loaded, else the reason why not
    active = storage.rows("embedding_sets", where=[Condition("state", "=", "active")])
    stale = clock() - UNUSED
    unused = [Condition("updated_at", "<", stale), Condition("accessed_at", "null or <", stale)]
    return File(
        wal_reset_bug=bug or None,
        extension_missing=extension if " " in extension else None,
        file_bytes=health["file_bytes"],
        chunks=storage.count("context_chunks"),
        dimensions=active[0]["dimensions"] if active else File.dimensions,
        log_entries=storage.count("access_log"),
        unused_contexts=storage.count("context_registry", where=[*unused, Condition("pinned", "=", False)]),
        embedding_model=active[0]["model_name"] if active else None,
    )
