"""The only floor that knows a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..addresses import is_address, is_postgres
from ..errors import ConfigurationError
from .base import Storage

if TYPE_CHECKING:
    from ..config import LabConfig

__all__ = ["Storage", "open_storage"]


def open_storage(config: LabConfig, *, migrate: bool = True) -> Storage:
    """Open the back end that the address in `config.db_path` names, and bring its schema up to date."""
    if not is_address(config.db_path):
        from .sqlite import SQLiteStorage

        return SQLiteStorage(config, migrate=migrate)
    if not is_postgres(config.db_path):
        raise ConfigurationError(
            f"db_path={config.db_path!r}: give the path of a file, ':memory:', or postgresql://user@host/database"
        )
    try:
        from .postgres import PostgresStorage
    except ImportError as exc:
        raise ConfigurationError(
            f"db_path={config.db_path!r} needs PostgreSQL's driver ({exc.name}): pip install 'autom8_lab[postgres]'"
        ) from exc
    return PostgresStorage(config, migrate=migrate)
