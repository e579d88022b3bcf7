"""A lab does what a plain Python model does, whatever is done to it and in which order.

`python benchmarks/faults.py model --examples 1000` does it for longer.
"""

from __future__ import annotations

import pytest
from backends import BACKENDS
from context_machine import ContextMachine, ServerMachine
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

LIMITS = settings(
    max_examples=50, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_lab_does_what_a_plain_model_does() -> None:
    run_state_machine_as_test(ContextMachine, settings=LIMITS)


@pytest.mark.skipif("postgres" not in BACKENDS, reason="PostgreSQL is not asked for")
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_lab_on_a_server_does_so_too() -> None:
    run_state_machine_as_test(ServerMachine, settings=settings(LIMITS, max_examples=5, stateful_step_count=12))
