"""Where settings stand outside the program: a YAML file, another program's settings, the environment."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..plain_yaml import plain_yaml

CONFIG_FILE = "autom8.yaml"
SECTION = "database"
PREFIX = "AUTOM8_"
PATHS = ("db_path", "prices_path", "cache_dir")
NEAR = 0.8  # how much alike, by difflib, two names are of which one is taken for the other misspelt


def find_upwards(name: str = CONFIG_FILE) -> Path | None:
    """Return the file of that name in the working directory or the nearest folder above it."""
    here = Path.cwd()
    return next((folder / name for folder in [here, *here.parents] if (folder / name).is_file()), None)


def read_yaml(path: Path, known: Iterable[str]) -> dict[Any, Any]:
    """Return the settings under `database:`; a relative path there is meant from the file's folder.

    Other sections are other programs'. Raises `ConfigurationError`.
    """
    if not path.is_file():
        raise ConfigurationError(f"no configuration file at {path}: give the path of a YAML file")
    document = plain_yaml(path, error=ConfigurationError)
    if isinstance(document, dict) and (astray := [key for key in document if key in set(known)]):
        raise ConfigurationError(f"{path}: put {', '.join(astray)} under '{SECTION}:'")
    section = document.get(SECTION) if isinstance(document, dict) else document
    section = {} if section is None else section
    if not isinstance(section, dict):
        raise ConfigurationError(f"{path}: '{SECTION}:' must hold keys and values, not {type(section).__name__}")
    return {key: _from_folder(value, path) if key in PATHS else value for key, value in section.items()}


def _from_folder(place: Any, path: Path) -> Any:
    if not isinstance(place, str) or place == ":memory:" or "://" in place:
        return place
    return str(path.absolute().parent / os.path.expanduser(place))


def settings_of(other: Any) -> dict[str, Any]:
    """Return the settings that another program's settings hold in `database`: a mapping, dataclass or pydantic model."""
    section = other.get(SECTION, {}) if isinstance(other, Mapping) else getattr(other, SECTION, None)
    if isinstance(section, Mapping):
        return dict(section)
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        return dataclasses.asdict(section)
    if dump := getattr(section, "model_dump", None):
        return dict(dump(exclude_unset=True))
    raise ConfigurationError(
        f"settings={type(other).__name__} has no '{SECTION}' that is a mapping, a dataclass or a pydantic model: add one"
    )


def environment(known: Iterable[str]) -> dict[str, str]:
    """Return the name of the variable that gives a setting, by setting; an empty variable gives nothing."""
    fields = set(known)
    given = {
        name.upper().removeprefix(PREFIX).lower(): name
        for name, value in os.environ.items()
        if _is_ours(name) and value
    }
    return {field: name for field, name in given.items() if field in fields}


def strays(known: Iterable[str]) -> dict[str, str | None]:
    """Return the variables AUTOM8_… that are no setting; with the right name those that are a setting misspelt.

    The others may belong to another part of the user's system.
    """
    names = [name.upper() for name in known]
    ours = (name for name in sorted(os.environ) if _is_ours(name))
    return {name: _nearest(word, names) for name in ours if (word := name.upper().removeprefix(PREFIX)) not in names}


def _is_ours(variable: str) -> bool:
    return variable.upper().startswith(PREFIX)


def _nearest(word: str, names: list[str]) -> str | None:
    # AUTOM8_DATABASE_CACHE_SIZE means a setting as surely as AUTOM8_CASH_SIZE does; AUTOM8_AGENT_HOME does not.
    parts = set(word.split("_"))
    within = [name for name in names if "_" in name and set(name.split("_")) <= parts]
    near = within or difflib.get_close_matches(word, names, n=1, cutoff=NEAR)
    return f"{PREFIX}{near[0]}" if near else None
