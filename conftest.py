"""Fixtures: a clean environment, labs on the real engine, and where the public data lies."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

import autom8_lab as al
from autom8_lab.lab import Lab

ROOT = Path(__file__).parent
CACHE_DIR = "AUTOM8_CACHE_DIR"
# Public data sets, beside the checkout where someone has put them; never part of the project.
SHARED_DATA = ROOT.parent / "shared" / "data"


OUTCOMES = pytest.StashKey[dict[str, set[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """One cache for the session, that of the notebooks' kernels and of other processes too: models are exported once."""
    config.stash[OUTCOMES] = {}
    folder = tempfile.TemporaryDirectory(prefix="autom8-cache-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ[CACHE_DIR] = folder.name
    # A shell starts what runs in its background with Ctrl-C ignored, and the tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that ask how others ended come last."""
    items.sort(key=lambda item: item.path.name == "test_specification.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep how each test ended: a skip or a failure at any time, a pass when it was called."""
    report = yield
    if report.when == "call" or not report.passed:
        item.config.stash[OUTCOMES].setdefault(item.nodeid.partition("[")[0], set()).add(report.outcome)
    return report


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> dict[str, set[str]]:
    """How the tests of this session ended so far, by their ids without parameters."""
    return request.config.stash[OUTCOMES]


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No AUTOM8_ variable but the cache, no configuration file above the working directory, no model hub."""
    for name in list(os.environ):
        if name.startswith("AUTOM8_") and name != CACHE_DIR:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab in a file, with the hash encoder."""
    with al.open(tmp_path / "lab.db", embedding_model="hash-64", synchronous="OFF") as opened:
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
