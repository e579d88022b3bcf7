"""Tuning from evidence: rows and arrays in, frames and recommendations out. Nothing here knows a database."""
