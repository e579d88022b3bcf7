"""What `import autom8_lab as al` offers, and that a verb is the lab's method."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types

import pytest

import autom8_lab as al

ERRORS = {name for name in vars(al.errors) if isinstance(getattr(al.errors, name), type) and not name.startswith("_")}
LATER = {"LabConfig", "aio", "mockdata", "plots", "run_database_tests"}  # loaded when they are asked for


def test_all_is_sorted_and_names_everything_public() -> None:
    public = {
        name
        for name, value in vars(al.surface).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", "") != "typing"
    }
    assert al.__all__ == sorted(al.__all__)
    # What is imported to make the verbs is no part of the surface.
    made_of = {"annotations", "Callable", "Parameters", "Result", "Concatenate", "TYPE_CHECKING"}
    assert public - made_of == set(al.__all__) - LATER
    assert set(al.__all__) <= set(dir(al))


@pytest.mark.parametrize("asked", ["al.search_df", "al.LabConfig", "from autom8_lab import *; search_df", "dir(al)"])
def test_the_lab_is_loaded_when_something_of_it_is_asked_for(asked: str) -> None:
    before = "import sys, autom8_lab as al; hasattr(al, '__wrapped__'); assert 'autom8_lab.lab' not in sys.modules"
    after = "assert 'autom8_lab.lab' in sys.modules"
    subprocess.run([sys.executable, "-c", f"{before}\n{asked}\n{after}"], check=True)


def test_a_module_of_the_package_is_found_without_the_rest() -> None:
    code = "import sys, autom8_lab as al; al.forking.process; assert 'autom8_lab.lab' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_error_and_warning_is_public() -> None:
    assert ERRORS - {"Iterable"} <= set(al.__all__)


def test_every_public_name_is_documented() -> None:
    for name in al.__all__:
        assert inspect.getdoc(getattr(al, name)), name


def test_every_method_of_a_lab_is_a_verb_with_its_signature_and_docstring() -> None:
    own = {"close", "closed"}  # about the object, not about what it holds
    methods = {name for name in dir(al.Lab) if not name.startswith("_")} - own
    assert len(methods) > 30
    for name in methods:
        verb, method = getattr(al, name), getattr(al.Lab, name)
        assert list(inspect.signature(verb).parameters) == list(inspect.signature(method).parameters)[1:], name
        assert inspect.getdoc(verb) == inspect.getdoc(method), name


def test_every_verb_of_a_lab_is_a_coroutine_of_an_async_lab_with_its_signature_and_docstring() -> None:
    not_awaited = {"closed", "connection", "track_usage", "transaction"}
    for name in (name for name in dir(al.Lab) if not name.startswith("_")):
        assert hasattr(al.aio.AsyncLab, name), f"add {name} to AsyncLab in aio.py"
        method, coroutine = getattr(al.Lab, name), getattr(al.aio.AsyncLab, name)
        if name in not_awaited | {"close"}:
            continue
        assert inspect.iscoroutinefunction(coroutine), name
        assert inspect.signature(coroutine) == inspect.signature(method), name
        assert inspect.getdoc(coroutine) == inspect.getdoc(method), name
    for name in not_awaited - {"closed"} | {"close"}:
        parameters = inspect.signature(getattr(al.aio.AsyncLab, name)).parameters
        assert list(parameters) == list(inspect.signature(getattr(al.Lab, name)).parameters), name
    public = {name for name in dir(al.aio.AsyncLab) if not name.startswith("_")}
    assert public == {name for name in dir(al.Lab) if not name.startswith("_")} - {"config"}
    assert inspect.signature(al.aio.open).parameters == inspect.signature(al.open).parameters


def test_an_unknown_name_says_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serch_df'"):
        al.serch_df  # noqa: B018


def test_a_verb_takes_one_positional_argument_and_the_rest_by_name() -> None:
    for name in al.__all__:
        verb = getattr(al, name)
        if inspect.isfunction(verb) and name not in {"compare_labs", "copy_lab"}:  # two places of one rank
            kinds = [parameter.kind for parameter in inspect.signature(verb).parameters.values()]
            assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= 1, name
