"""A whole lab as JSON lines, and back: see docs/export-format.md."""

from __future__ import annotations

from .comparing import compare
from .copying import copy
from .reading import import_export
from .writing import export

__all__ = ["compare", "copy", "export", "import_export"]
