"""Texts to vectors: chunking and encoders. Nothing here knows a database."""

from __future__ import annotations

from .encoders import Encoder, HashEncoder, canonical_name, load_encoder, loaded_encoder

__all__ = ["Encoder", "HashEncoder", "canonical_name", "load_encoder", "loaded_encoder"]
