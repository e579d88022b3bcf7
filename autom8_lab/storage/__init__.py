"""The only floor that knows a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from .base import Storage

if TYPE_CHECKING:
    from ..config import LabConfig

__all__ = ["Storage", "open_storage"]


def open_storage(config: LabConfig) -> Storage:
    """Open the back end that the address in `config.db_path` names, and bring its schema up to date."""
    if "://" in config.db_path:
        raise ConfigurationError(f"db_path={config.db_path!r}: only the path of an SQLite file or ':memory:' is known")
    from .sqlite import SQLiteStorage

    return SQLiteStorage(config)
