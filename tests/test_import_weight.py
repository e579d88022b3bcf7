"""`import autom8_lab` is light: what is heavy is loaded by the verb that needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["torch", "sentence_transformers", "transformers", "pandas", "numpy", "scipy", "sklearn", "matplotlib", "tqdm"]


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split("\n"))


@pytest.mark.parametrize("name", HEAVY)
def test_importing_the_package_does_not_load(name: str, after_import: set[str]) -> None:
    assert name not in after_import


@pytest.fixture(scope="module")
def after_import() -> set[str]:
    return modules_after("import autom8_lab as al")


def test_the_modules_of_the_surface_are_light_too() -> None:
    assert not {"pandas", "numpy", "scipy", "matplotlib"} & modules_after(
        "import autom8_lab as al; al.plots, al.mockdata"
    )


def test_the_check_sees_a_heavy_module_that_is_loaded() -> None:
    assert "numpy" in modules_after("import autom8_lab.vectors.similarity")


def test_text_search_does_not_load_the_model() -> None:
    code = (
        "import autom8_lab as al, tempfile, os\n"
        "al.open(':memory:', embedding_model='hash')\n"
        "al.store_context('a text about foxes')\n"
        "assert al.search('foxes', method='text')[0].context.content == 'a text about foxes'"
    )
    assert not {"torch", "sentence_transformers"} & modules_after(code)
