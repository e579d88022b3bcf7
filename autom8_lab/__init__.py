"""One SQLite file remembers what an LLM-agent system knew, decided, spent and how well it went.

`import autom8_lab as al`: `al.open("autom8.db")` opens a lab, and every verb of a `Lab` is here too, acting on the
current one.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .surface import *  # noqa: F403
else:

    def __getattr__(name):
        # The lab is loaded when something of it is asked for, so that `autom8-lab --help` need not wait for it.
        if name == "__all__" or not name.startswith("__"):
            if importlib.util.find_spec(f"{__name__}.{name}"):
                return importlib.import_module(f".{name}", __name__)
            public = importlib.import_module(".surface", __name__)
            if name == "__all__" or name in public.__all__:
                return globals().setdefault(name, getattr(public, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__getattr__("__all__")})
