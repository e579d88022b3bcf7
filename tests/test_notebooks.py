"""The notebooks are saved as a fresh run leaves them; `pytest --nbval` compares their outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_was_run_from_top_to_bottom_without_noise(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert 8 <= len(cells) <= 20
    for cell in cells:
        assert "execution" not in cell["metadata"]
        assert len("".join(cell["source"]).splitlines()) <= 6
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_shows_no_path_or_time_of_this_run(path: Path) -> None:
    outputs = json.dumps([cell["outputs"] for cell in code_cells(path)])
    assert not re.search(r"/(tmp|home|root|Users)/|[A-Z]:\\\\\\\\", outputs)
