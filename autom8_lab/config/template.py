"""The configuration file that a user starts from: every setting with its default, commented out."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .settings import PRESETS, LabConfig
from .sources import CONFIG_FILE, PREFIX, SECTION

HEAD = f"""\
# Settings of an autom8_lab. Take away the # before what you change.
# Arguments and variables such as {PREFIX}CACHE_SIZE come before this file, this file before a preset
# ({", ".join(PRESETS)}), and a preset before the defaults, which are the values below.
# Other sections of this file are left alone. A relative path is meant from this file's folder.
{SECTION}:
"""


def template() -> str:
    """Return a YAML file in which every setting stands with its description and default, commented out."""
    return HEAD + "\n".join(_entry(name) for name in LabConfig.model_fields)


def _entry(name: str) -> str:
    field = LabConfig.model_fields[name]
    lines = textwrap.wrap(field.description or "", width=112)
    default = field.get_default(call_default_factory=True)
    return "".join(f"  # {line}\n" for line in lines) + f"  #{name}: {_plain(default)}\n"


def _plain(value: Any) -> str:
    # JSON is YAML, and quotes what YAML would take for something else (OFF).
    return json.dumps(value)


def write_template(path: str | os.PathLike[str] = CONFIG_FILE) -> Path:
    """Write the template to a file that does not exist yet and return its path. Raises `ConfigurationError`."""
    place = Path(os.path.expanduser(path))
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as exc:
        raise ConfigurationError(f"{place} exists already: edit it, or give another path") from exc
    except OSError as exc:
        raise ConfigurationError(f"{place} cannot be written ({exc.strerror}): give another path") from exc
    return place
