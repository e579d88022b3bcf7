"""Setting a lab up: looking at its configuration, and making its file ready."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .errors import LabError
from .pricing import PriceBook
from .records import Report
from .verbs.parts import utc_now
from .verbs.settings import file_facts

if TYPE_CHECKING:
    from .config import LabConfig
    from .config.advice import File


def validate_config(
    config_path: str | os.PathLike[str] | None = None, *, preset: str | None = None, settings: Any = None, **given: Any
) -> Report:
    """Look at a configuration without opening a lab: valid, problems, advice (texts), db_path.

    The sources are those of `al.open`. A problem is an unknown name, a value that cannot be used, or one that loses
    data or fails on this machine; where the lab's file is there, its size counts too. Nothing is raised, created or
    changed.

    >>> validate_config(preset="testing", cache_sise=5)["problems"]
    ["unknown setting 'cache_sise'; did you mean 'cache_size'?"]
    """
    from .config import LabConfig
    from .config.advice import remarks, this_machine

    config, problems = LabConfig.examine(preset=preset, config_path=config_path, settings=settings, **given)
    advice: list[str] = []
    if config is not None:
        rows: list[dict[str, Any]] = []
        try:
            PriceBook(config.prices_path)
            rows = remarks(config, this_machine(config.db_path), _facts(config))
        except LabError as exc:
            problems = [str(exc)]
        for row in rows:
            shown = f"{row['setting']}={row['value']}" if "value" in row else row["setting"]
            (problems if row["kind"] == "problem" else advice).append(f"{shown}: {row['advice']} ({row['why']})")
    return Report(
        valid=not problems, problems=problems, advice=advice, db_path=None if config is None else config.db_path
    )


def _facts(config: LabConfig) -> File:
    from .storage import open_storage

    there = os.path.exists(config.db_path)
    # Of a file that is not there yet, an empty one in memory tells about SQLite and the extension.
    place = {"db_path": config.db_path if there else ":memory:", "read_only": there}
    storage = open_storage(config.model_copy(update={**place, "vector_engine": "auto"}))
    try:
        return file_facts(storage, clock=utc_now)
    finally:
        storage.close()
