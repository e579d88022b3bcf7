"""Settings of a lab: where they come from, what they are, and what is to be said about them."""

from __future__ import annotations

from .settings import PRESETS, LabConfig
from .sources import CONFIG_FILE

__all__ = ["CONFIG_FILE", "PRESETS", "LabConfig"]
