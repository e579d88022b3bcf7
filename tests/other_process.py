"""Code that has to run in a Python process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import autom8_lab as al

PACKAGE = Path(al.__file__).parents[1]


def run_python(code: str, *arguments: object, path: tuple[Path, ...] = (), **variables: str) -> Any:
    """Run code in another process and return the JSON that it prints."""
    places = [*map(str, path), str(PACKAGE)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "HF_HUB_OFFLINE": "1", **variables}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
