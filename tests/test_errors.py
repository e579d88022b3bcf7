"""The errors: the tree that is drawn is the tree there is, and each says something."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import autom8_lab as al
from autom8_lab import errors
from autom8_lab.errors import did_you_mean

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, BaseException) and kind.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, str | None]:
    """Return the parent of each class as the module's docstring draws it."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in inspect.getdoc(errors).splitlines()[1:]:  # type: ignore[union-attr]
        name = re.search(r"[A-Z]\w+", line)
        if name is None:
            continue
        above = [(column, other) for column, other in above if column < name.start()]
        parents[name[0]] = above[-1][1] if above else None
        above.append((name.start(), name[0]))
    return parents


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    real = {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()}
    drawn = drawn_tree()
    roots = {name for name, parent in drawn.items() if parent is None}
    assert roots == {"LabError", "LabWarning"}
    assert {name: parent for name, parent in drawn.items() if parent} == {
        name: parent for name, parent in real.items() if name not in roots
    }
    assert real["LabError"] == "Exception"
    assert real["LabWarning"] == "UserWarning"


def test_the_bases_that_python_programmers_expect_are_named_and_real() -> None:
    assert issubclass(al.InvalidValue, ValueError)
    assert issubclass(al.NotFound, LookupError)
    docstring = inspect.getdoc(errors) or ""
    assert re.search(r"InvalidValue +\(also a ValueError\)", docstring)
    assert re.search(r"NotFound +\(also a LookupError\)", docstring)


def test_every_error_is_public() -> None:
    assert set(CLASSES) <= set(al.__all__)
    assert all(getattr(al, name) is kind for name, kind in CLASSES.items())


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_docstring_is_the_default_message(name: str) -> None:
    kind = CLASSES[name]
    assert kind.__doc__
    assert kind.__doc__.endswith(".")
    if issubclass(kind, al.LabError):
        assert str(kind()) == kind.__doc__
        assert str(kind("a message of its own")) == "a message of its own"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_errors_cross_process_borders(name: str) -> None:
    error = pickle.loads(pickle.dumps(CLASSES[name]("no lab at x")))
    assert (type(error), str(error)) == (CLASSES[name], "no lab at x")


def test_a_nearly_right_name_is_suggested() -> None:
    assert did_you_mean("topik", ["topic", "source"]) == "; did you mean 'topic'?"
    assert did_you_mean("prodution", al.config.PRESETS) == "; did you mean 'production'?"


def test_a_strange_name_gets_the_list_of_known_ones_in_order() -> None:
    assert did_you_mean("xyz", ["topic", "source"]) == "; known names: source, topic"
    assert did_you_mean("", iter(["b", "a"])) == "; known names: a, b"


def test_one_except_clause_catches_everything_of_ours(lab: al.Lab) -> None:
    for call in (
        lambda: lab.get_context("nobody"),
        lambda: lab.store_context(""),
        lambda: lab.search("x", k=0),
        lambda: al.open("nowhere/lab.db"),
        lambda: al.open(preset="tasting"),
        lambda: al.get_migration_status("nowhere.db"),
    ):
        with pytest.raises(al.LabError) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) > 20
