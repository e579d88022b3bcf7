"""Fixtures: a clean environment, labs on the real engine, and where the public data lies."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import autom8_lab as al
from autom8_lab.lab import Lab

ROOT = Path(__file__).parent
CACHE_DIR = "AUTOM8_CACHE_DIR"
# Public data sets, beside the checkout where someone has put them; never part of the project.
SHARED_DATA = ROOT.parent / "shared" / "data"


OUTCOMES: dict[str, set[str]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """One cache for the session, that of the notebooks' kernels and of other processes too: models are exported once."""
    folder = tempfile.TemporaryDirectory(prefix="autom8-cache-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ[CACHE_DIR] = folder.name
    config.addinivalue_line(
        "markers", "only_sqlite: about the file of a lab, about SQLite itself, or about neither back end and slow"
    )
    # A shell starts what runs in its background with Ctrl-C ignored, and the tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Stop the server that the session started, if it did."""
    if "backends" in sys.modules:
        sys.modules["backends"].stop_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that ask how others ended come last."""
    items.sort(key=lambda item: item.path.name == "test_specification.py")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep how each test ended: a skip or a failure at any time, a pass when it was called."""
    if report.when == "call" or not report.passed:
        OUTCOMES.setdefault(report.nodeid.partition("[")[0], set()).add(report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where processes share the tests, their parent alone knows how all have ended, and looks at the proofs again."""
    if not OUTCOMES or hasattr(session.config, "workerinput") or not session.config.getoption("numprocesses", None):
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from test_specification import ROWS, is_proven

    if unproven := [row[0] for row in ROWS if not is_proven(row, OUTCOMES)]:
        print(f"\nnot proven (docs/specification.md): {', '.join(unproven)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def outcomes() -> dict[str, set[str]]:
    """How the tests of this process ended so far, by their ids without parameters."""
    return OUTCOMES


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No AUTOM8_ variable but the cache, no configuration file above the working directory, no model hub."""
    for name in list(os.environ):
        if name.startswith("AUTOM8_") and name != CACHE_DIR:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module that says BOTH_BACKENDS runs on each of them, but for its tests marked `only_sqlite`."""
    if not getattr(metafunc.module, "BOTH_BACKENDS", False):
        return
    from backends import BACKENDS

    alone = metafunc.definition.get_closest_marker("only_sqlite") is not None
    for name, kinds in {"backend": BACKENDS, "any_backend": ("memory", *BACKENDS)}.items():
        if name in metafunc.fixturenames:
            chosen = [kind for kind in kinds if kind != "postgres" or not alone]
            metafunc.parametrize(name, chosen, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """Which back end a test is on: "sqlite" or "postgres"."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def place(backend: str, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """The address of a lab by its name: a file, or a database of a server that the session starts."""
    from backends import Places

    places = Places(backend, tmp_path)
    yield places
    places.close()


@pytest.fixture(scope="session")
def any_backend(request: pytest.FixtureRequest) -> str:
    """Do what `backend` does, with "memory" as another one."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def any_place(any_backend: str, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Do what `place` does for `any_backend`."""
    from backends import Places

    places = Places(any_backend, tmp_path)
    yield places
    places.close()


@pytest.fixture
def lab(place: Callable[[str], str]) -> Iterator[Lab]:
    """A lab with the hash encoder, in a file or on a server."""
    with al.open(place("lab.db"), embedding_model="hash-64", synchronous="OFF") as opened:
        yield opened


@pytest.fixture(autouse=True)
def documented_lab(request: pytest.FixtureRequest, doctest_namespace: dict[str, object]) -> None:
    """The `lab` of the docstrings' examples."""
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace["lab"] = request.getfixturevalue("lab")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the public data sets are not beside the checkout (../shared/data)")
    return SHARED_DATA
