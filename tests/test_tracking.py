"""Tracking: what a block or a function's call becomes in the ledger, whatever happens in it."""

from __future__ import annotations

import asyncio
import time
import warnings
from typing import Any

import pytest

import autom8_lab as al
from autom8_lab.lab import Lab

BOTH_BACKENDS = True


def only_row(lab: Lab) -> dict[str, Any]:
    (row,) = lab.ledger_df().to_dict("records")
    return row


def test_a_block_is_recorded_with_its_latency_and_what_it_set(lab: Lab) -> None:
    with lab.track_usage("gpt-4o-mini", provider="openai", operation="chat", metadata={"team": "core"}) as call:
        time.sleep(0.02)
        call.first_token()
        call.first_token()
        time.sleep(0.02)
        call.input_tokens, call.output_tokens, call.cache_read_tokens = 812, 120, 12
        call.quality_score, call.cost_actual_usd = 0.9, 0.5
    row = only_row(lab)
    assert (row["usage_key"], row["model"], row["provider"]) == (call.usage_key, "gpt-4o-mini", "openai")
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"]) == (812, 120, 12)
    assert (row["quality_score"], row["cost_usd"], row["success"], row["metadata"]) == (
        0.9,
        0.5,
        True,
        {"team": "core"},
    )
    assert 20 <= row["ttft_ms"] < row["latency_ms"] - 15
    assert row["latency_ms"] < 5_000


def test_a_failing_block_is_recorded_with_its_error_and_raises_it(lab: Lab) -> None:
    error = TimeoutError("slow")
    with pytest.raises(TimeoutError) as caught, lab.track_usage("m") as call:
        call.input_tokens = 3
        raise error
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    row = only_row(lab)
    assert (row["success"], row["error_type"], row["input_tokens"]) == (False, "TimeoutError", 3)
    assert row["latency_ms"] >= 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interruption_is_recorded_too(lab: Lab, error: type[BaseException]) -> None:
    with pytest.raises(error), lab.track_usage("m"):
        raise error
    assert only_row(lab)["error_type"] == error.__name__


def test_an_error_of_the_account_never_hides_the_blocks_own(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError) as caught, lab.track_usage("m") as call:
        call.quality_score = 1.2
        _ = 1 / 0
    assert "quality_score=1.2" in caught.value.__notes__[0]
    assert len(lab.ledger_df()) == 0


def test_a_block_that_set_a_bad_value_says_so_when_it_ends_well(lab: Lab) -> None:
    with pytest.raises(al.InvalidValue, match="input_tokens=-1"), lab.track_usage("m") as call:
        call.input_tokens = -1
    assert len(lab.ledger_df()) == 0


def test_a_misspelt_field_is_refused_where_it_is_set(lab: Lab) -> None:
    with pytest.raises(AttributeError, match="did you mean 'input_tokens'"), lab.track_usage("m") as call:
        call.input_token = 1
    assert only_row(lab)["error_type"] == "AttributeError"


def test_a_tracker_is_for_one_block_at_a_time(lab: Lab) -> None:
    tracker = lab.track_usage("m")
    with tracker, pytest.raises(al.LabError, match="already"), tracker:
        pass
    with tracker:
        pass
    assert len(lab.ledger_df()) == 2


def test_a_decorated_function_keeps_its_name_its_result_and_its_errors(lab: Lab) -> None:
    @lab.track_usage("m", usage=lambda text: {"input_tokens": len(text), "output_tokens": 1})
    def answer(text: str, *, fail: bool = False) -> str:
        """Answer."""
        if fail:
            raise ValueError(text)
        return text

    assert (answer.__name__, answer.__doc__) == ("answer", "Answer.")
    assert answer("four") == "four"
    with pytest.raises(ValueError, match="no"):
        answer("no", fail=True)
    frame = lab.ledger_df()
    assert frame["success"].tolist() == [True, False]
    assert frame["input_tokens"].tolist()[0] == 4
    assert frame["error_type"].tolist()[1] == "ValueError"


def test_decorated_coroutines_run_side_by_side_and_each_is_recorded(lab: Lab) -> None:
    @lab.track_usage("m", usage=lambda number: {"input_tokens": number})
    async def answer(number: int) -> int:
        await asyncio.sleep(0.01 * (3 - number))
        if number == 2:
            raise ConnectionError
        return number

    async def main() -> list[Any]:
        return await asyncio.gather(*(answer(number) for number in range(3)), return_exceptions=True)

    results = asyncio.run(main())
    assert results[:2] == [0, 1]
    assert isinstance(results[2], ConnectionError)
    frame = lab.ledger_df()
    assert sorted(frame["input_tokens"].dropna().tolist()) == [0, 1]
    assert frame["error_type"].dropna().tolist() == ["ConnectionError"]
    assert (frame["latency_ms"] < 5_000).all()


def test_a_cancelled_coroutine_is_recorded_and_stays_cancelled(lab: Lab) -> None:
    @lab.track_usage("m")
    async def forever() -> None:
        await asyncio.sleep(60)

    async def main() -> bool:
        task = asyncio.create_task(forever())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(main())
    assert only_row(lab)["error_type"] == "CancelledError"


def test_async_with_measures_as_with_does(lab: Lab) -> None:
    async def main() -> None:
        async with lab.track_usage("m") as call:
            await asyncio.sleep(0.01)
            call.input_tokens = 7
        with pytest.raises(OSError):
            async with lab.track_usage("m"):
                raise OSError

    asyncio.run(main())
    frame = lab.ledger_df()
    assert frame["input_tokens"].tolist()[0] == 7
    assert frame["latency_ms"].tolist()[0] >= 10
    assert frame["error_type"].tolist()[1] == "OSError"


@pytest.mark.parametrize(
    "usage", [lambda result: {"input_tokens": -1}, lambda result: {"tokens": 1}, lambda result: result.usage]
)
def test_a_decorated_functions_result_is_not_lost_to_the_account(lab: Lab, usage: Any) -> None:
    @lab.track_usage("m", usage=usage)
    def answer() -> int:
        return 42

    with pytest.warns(al.UnrecordedUsageWarning, match="the call of m was not recorded"):
        assert answer() == 42
    assert len(lab.ledger_df()) == 0


def test_a_tracked_block_lands_with_its_transaction_or_not_at_all(lab: Lab) -> None:
    with pytest.raises(RuntimeError), lab.transaction():
        with lab.track_usage("m"):
            pass
        raise RuntimeError
    assert len(lab.ledger_df()) == 0
    with lab.transaction(), warnings.catch_warnings():
        with lab.track_usage("m"):
            pass
    assert len(lab.ledger_df()) == 1
