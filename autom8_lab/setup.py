"""Setting a lab up: its configuration looked at, its file made, migrated, filled and checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .addresses import is_address
from .errors import InvalidValue, LabError, ModelUnavailable, UnusablePath
from .lab import Lab, get_migration_status
from .pricing import PriceBook
from .records import Report
from .validation import path_value, progress_value
from .verbs.parts import utc_now
from .verbs.settings import file_facts

if TYPE_CHECKING:
    import pandas as pd

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
    rows: list[dict[str, Any]] = []
    if config is not None:
        try:
            PriceBook(config.prices_path)
            rows = remarks(config, this_machine(config.db_path), _facts(config))
        except LabError as exc:
            problems = [str(exc)]
    problems += [_sentence(row) for row in rows if row["kind"] == "problem"]
    advice = [_sentence(row) for row in rows if row["kind"] == "advice"]
    return Report(valid=not problems, problems=problems, advice=advice, db_path=config.db_path if config else None)


def _sentence(remark: Mapping[Any, Any]) -> str:
    shown = f"{remark['setting']}={remark['value']}" if "value" in remark else remark["setting"]
    return f"{shown}: {remark['advice']} ({remark['why']})"


def _facts(config: LabConfig) -> File:
    from .storage import open_storage

    # Of a file that is not there or still to be migrated, an empty one in memory tells about SQLite and the extension.
    there = os.path.exists(config.db_path) and not get_migration_status(config.db_path)["pending"]
    place = {"db_path": config.db_path if there else ":memory:", "read_only": there}
    storage = open_storage(config.model_copy(update={**place, "vector_engine": "auto"}))
    try:
        return file_facts(storage, clock=utc_now)
    finally:
        storage.close()


def setup_database(
    path: str | os.PathLike[str] | None = None,
    *,
    config: LabConfig | None = None,
    contents: pd.DataFrame | Iterable[Mapping[str, Any] | str] | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Report:
    """Make a lab ready to be used, and say in what state it is; repeated, it changes nothing.

    Makes the folder and the file where they are missing, brings the schema up to date, tries the embedding model,
    stores `contents` (rows of `store_contexts`; those that are there already are skipped), looks at the settings and
    at the file's health, and closes the lab. Give `config`, or a path and settings as in `al.open`.

    The report has ready, problems and advice (texts), created, migrations_applied, contexts_stored, contexts,
    dimensions, and the lines of `Lab.health`. A model that cannot be loaded is a problem, and text search works
    without it. Raises what `al.open` and `Lab.store_contexts` raise.

    >>> setup_database(":memory:", embedding_model="hash-64", contents=["A first text."])["contexts"]
    1
    """
    from .config import LabConfig

    progress_value(progress)
    if config is None:
        if path is not None:
            path_value(path)
        config = LabConfig.load(db_path=path, **settings)
    elif path is not None or settings:
        raise InvalidValue("config and a path or settings are both given: give one of the two")
    created, applied = _made_ready(config)
    with Lab(config) as lab:
        stored = 0
        if contents is not None:
            outcomes = lab.store_contexts(contents, if_exists="skip", progress=progress)
            stored = int((outcomes["outcome"] == "stored").sum())
        return _state_of(lab, created=created, migrations_before=applied, contexts_stored=stored)


def setup_database_from_config(
    environment: str | None = None,
    *,
    config_path: str | os.PathLike[str] | None = None,
    settings: Any = None,
    contents: pd.DataFrame | Iterable[Mapping[str, Any] | str] | None = None,
    progress: bool | None = None,
) -> Report:
    """Do what `setup_database` does for a preset (development, testing, production), a YAML file, or both.

    `settings` are another program's; see `LabConfig.load`. Raises `ConfigurationError` and what `setup_database`
    raises.

    >>> setup_database_from_config("testing")["created"]
    True
    """
    from .config import LabConfig

    config = LabConfig.load(preset=environment, config_path=config_path, settings=settings)
    return setup_database(config=config, contents=contents, progress=progress)


def _made_ready(config: LabConfig) -> tuple[bool, int]:
    """Make the folder, and return whether the file is new and how many migrations it has."""
    place = Path(config.db_path).absolute()
    if config.db_path == ":memory:":
        return True, 0
    if is_address(config.db_path):
        done = int(get_migration_status(config.db_path)["applied_count"])
        return done == 0, done
    if place.exists() and place.stat().st_size:
        return False, int(get_migration_status(place)["applied_count"])
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UnusablePath(f"the folder {place.parent} cannot be made ({exc.strerror}): give another path") from exc
    return True, 0


def _state_of(lab: Lab, *, created: bool, migrations_before: int, contexts_stored: int) -> Report:
    model, dimensions, no_model = None, None, []
    try:
        model, dimensions = lab._try_model()
    except (ModelUnavailable, InvalidValue) as exc:
        no_model = [f"no vectors, text search alone: {exc}"]
    health = lab.health()  # which knows now what runs the model
    remarks = lab.config_advice_df().to_dict("records")
    problems = [_sentence(row) for row in remarks if row["kind"] == "problem"]
    problems += complaints(health) + no_model
    return Report(
        ready=not problems,
        problems=problems,
        advice=[_sentence(row) for row in remarks if row["kind"] == "advice"],
        created=created,
        migrations_applied=int(health["migrations"].split("/")[0]) - migrations_before,
        contexts_stored=contexts_stored,
        **{**health, "embedding_model": model, "dimensions": dimensions},
    )


def complaints(health: Mapping[str, Any]) -> list[str]:
    """Return the lines of a lab's health that say something is wrong with its file."""
    unread = {name: value for name, value in health.items() if str(value).startswith("cannot be read")}
    quick_check = health.get("quick_check", "ok")  # a server has none
    wrong = {} if str(quick_check).startswith(("ok", "not finished")) else {"quick_check": quick_check}
    return [f"{name}: {value}" for name, value in {**unread, **wrong}.items()]
