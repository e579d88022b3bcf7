"""The list of importers names verbs that are there."""

from __future__ import annotations

import inspect

import autom8_lab as al
from autom8_lab.importers import IMPORTERS


def test_every_importer_is_a_verb_and_every_import_verb_is_listed() -> None:
    verbs = {name for name in al.__all__ if name.startswith("import_")} - {"import_export"}  # a whole lab, not a log
    assert {importer.verb for importer in IMPORTERS.values()} == verbs
    for importer in IMPORTERS.values():
        first = next(iter(inspect.signature(getattr(al, importer.verb)).parameters.values()))
        assert (first.default is first.empty) == importer.needs_path
        assert importer.reads
