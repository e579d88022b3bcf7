"""LiteLLM: rows of SpendLogs, logging payloads, and the callback, with the real LiteLLM answering from a mock."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.importers import LabLogger
from autom8_lab.lab import Lab

BOTH_BACKENDS = True

USAGE = {
    "prompt_tokens": 98_805,
    "completion_tokens": 5_120,
    "total_tokens": 103_925,
    "prompt_tokens_details": {"cached_tokens": 66_360, "cache_creation_tokens": 32_435, "text_tokens": None},
    "completion_tokens_details": {"reasoning_tokens": 1_710},
    "cache_read_input_tokens": 66_360,
    "cache_creation_input_tokens": 32_435,
}
ROW = {
    "request_id": "chatcmpl-e8de987f-eb6f-9476-a81c-652189710003",
    "call_type": "acompletion",
    "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
    "spend": 0.04708,
    "total_tokens": 103_925,
    "prompt_tokens": 98_805,
    "completion_tokens": 5_120,
    "startTime": "2026-01-19 10:00:00.000",
    "endTime": "2026-01-19 10:00:08.500",
    "completionStartTime": "2026-01-19 10:00:01.250",
    "model": "eu.anthropic.claude-opus-4-5-20251101-v1:0",
    "model_group": "opus",
    "custom_llm_provider": "bedrock_converse",
    "user": "default_user",
    "metadata": json.dumps({"usage_object": USAGE, "user_api_key_alias": "core", "status": "success"}),
    "cache_hit": "False",
    "request_tags": '["batch", "night"]',
    "team_id": "team-1",
    "end_user": "",
    "session_id": "s-1",
    "status": "success",
    "messages": "{}",
    "response": "{}",
}
FAILED = {
    **ROW,
    "request_id": "5f2eaaa9-5fd4-4a16-a402-6f1fe71f2ef4",
    "spend": 0.0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "completionStartTime": None,
    "metadata": json.dumps(
        {"status": "failure", "error_information": {"error_code": "429", "error_class": "RateLimitError"}}
    ),
    "status": "failure",
}


def test_a_row_of_spend_logs_is_a_call_with_its_classes_and_its_own_cost(lab: Lab) -> None:
    report = lab.import_litellm([ROW, FAILED])
    assert (report["read"], report["new"], report["refused"]) == (2, 2, 0)
    row = lab.ledger_df(success=True).iloc[0]
    tokens = ["input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"]
    assert row[tokens].tolist() == [98_805, 66_360, 32_435, 5_120, 1_710]
    assert (row["at"], row["latency_ms"], row["ttft_ms"]) == (pd.Timestamp("2026-01-19T10:00:00Z"), 8_500, 1_250)
    assert row["cost_actual_usd"] == 0.04708
    # The issue that these counts are from (BerriAI/litellm 11364) says that LiteLLM's cost is far too low.
    assert row["cost_estimated_usd"] == pytest.approx((10 * 5.5 + 66_360 * 0.55 + 32_435 * 6.875 + 5_120 * 27.5) / 1e6)
    assert row["metadata"] == {
        "team": "team-1",
        "key": "core",
        "user": "default_user",
        "session": "s-1",
        "model_group": "opus",
        "tags": "batch, night",
    }
    failed = lab.ledger_df(success=False).iloc[0]
    assert (failed["error_type"], failed["input_tokens"], failed["cost_usd"]) == ("RateLimitError", 0, 0)


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "frame", "folder"])
def test_every_form_of_an_export_gives_the_same_and_again_nothing_new(lab: Lab, tmp_path: Path, form: str) -> None:
    lab.import_litellm([ROW, FAILED])
    expected = lab.ledger_df()
    frame = pd.DataFrame([ROW, FAILED])
    source: Any = tmp_path / f"spend.{form}"
    if form == "csv":
        frame.to_csv(source, index=False)
    elif form == "jsonl":
        source.write_text(json.dumps(ROW) + "\n" + json.dumps(FAILED) + "\n")
    elif form == "json":
        source.write_text(json.dumps([ROW, {**FAILED, "metadata": json.loads(str(FAILED["metadata"]))}], indent=1))
    elif form == "folder":
        source = tmp_path
        for number, row in enumerate([ROW, FAILED]):
            (tmp_path / f"{number}.json").write_text(json.dumps(row, indent=2))
    else:
        source = frame.assign(
            startTime=pd.to_datetime(frame["startTime"]), endTime=pd.to_datetime(frame["endTime"], utc=True)
        )
    report = lab.import_litellm(source)
    assert (report["already_there"], report["new"], report["updated"], report["refused"]) == (2, 0, 0, 0)
    pd.testing.assert_frame_equal(lab.ledger_df(), expected)
    if form != "frame":
        again = lab.import_litellm(source)
        assert (again["unchanged_files"], again["read"]) == (again["files"], 0)


def test_an_answer_from_litellms_cache_used_nothing(lab: Lab) -> None:
    lab.import_litellm([ROW, {**ROW, "request_id": "chatcmpl-cached-0000001", "cache_hit": "True", "spend": 0.0}])
    assert lab.usage_df()["input_tokens"].sum() == 98_805
    hit = lab.ledger_df(metadata={"cache_hit": True}).iloc[0]
    assert (hit["cost_usd"], hit["output_tokens"], hit["metadata"]["served_output_tokens"]) == (0, 0, 5_120)


def test_a_cost_of_zero_for_an_unknown_model_is_not_known(lab: Lab) -> None:
    report = lab.import_litellm([{**ROW, "model": "our-llama", "custom_llm_provider": "vllm", "spend": 0.0}])
    assert report["unpriced"] == 1
    assert lab.ledger_df()["cost_usd"].isna().all()


def test_short_ids_of_servers_are_told_apart_by_the_call(lab: Lab) -> None:
    rows = [{**ROW, "request_id": "chatcmpl-123", "litellm_call_id": f"call-{number}"} for number in range(3)]
    assert lab.import_litellm([*rows, rows[0]])["new"] == 3


def test_embeddings_and_other_operations_have_the_names_of_the_field(lab: Lab) -> None:
    kinds = ["aembedding", "rerank", "aresponses", "atext_completion", "aimage_generation", None]
    lab.import_litellm(
        [{**ROW, "request_id": f"request-{number:010}", "call_type": kind} for number, kind in enumerate(kinds)]
    )
    found = lab.ledger_df().sort_values("source_id")["operation"].tolist()
    assert found == ["embeddings", "rerank", "chat", "text_completion", "aimage_generation", "chat"]


def test_bad_rows_are_listed(lab: Lab, tmp_path: Path) -> None:
    bad = [
        {**ROW, "prompt_tokens": -1},
        {**ROW, "request_id": ""},
        {**ROW, "model": "", "model_group": ""},
        {**ROW, "startTime": ""},
    ]
    report = lab.import_litellm([*bad, 5, ROW])
    assert (report["new"], report["refused"]) == (1, 5)
    with pytest.raises(al.NotFound):
        lab.import_litellm(tmp_path / "nowhere")


def test_texts_are_the_last_message_and_the_answer(lab: Lab) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "Where is the crane?"}]},
    ]
    answer = {"choices": [{"message": {"content": "At the harbour."}}]}
    report = lab.import_litellm(
        [{**ROW, "messages": json.dumps(messages), "response": json.dumps(answer)}], store_texts=True
    )
    assert report["contexts"] == 2
    assert {item.content for item in lab.list_contexts()} == {"Where is the crane?", "At the harbour."}


# The callback


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # Without this LiteLLM asks the network for its prices when it is imported.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    module = pytest.importorskip("litellm", reason="needs the extra test")
    monkeypatch.setattr(module, "suppress_debug_info", True)
    before = list(module.callbacks)
    module.logging_callback_manager._reset_all_callbacks()
    yield module
    module.callbacks = before
    module.logging_callback_manager._reset_all_callbacks()


def waited_for(condition: Callable[[], bool]) -> None:
    """LiteLLM calls back from threads of its own, which a busy machine may keep waiting."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "LiteLLM has not called back"
        time.sleep(0.02)


MESSAGES = [{"role": "user", "content": "Where is the crane?"}]


def test_every_call_of_litellm_is_recorded_as_it_happens(lab: Lab, litellm: Any) -> None:
    litellm.callbacks = [LabLogger(lab)]
    answer = litellm.completion(model="gpt-4o-mini", messages=MESSAGES, mock_response="At the harbour.")
    waited_for(lambda: len(lab.ledger_df()) == 1)
    row = lab.ledger_df().iloc[0]
    assert (row["source"], row["source_id"], row["model"], row["provider"]) == (
        "litellm",
        answer.id,
        "gpt-4o-mini",
        "openai",
    )
    assert (row["input_tokens"], row["output_tokens"]) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert row["cost_actual_usd"] == pytest.approx(row["cost_estimated_usd"])
    assert row["latency_ms"] > 0
    assert pd.isna(row["ttft_ms"])
    assert row["success"]
    for _ in litellm.completion(
        model="anthropic/claude-sonnet-4-5", messages=MESSAGES, mock_response="At the harbour.", stream=True
    ):
        pass
    waited_for(lambda: len(lab.ledger_df()) == 2)
    streamed = lab.ledger_df(provider="anthropic").iloc[0]
    assert 0 < streamed["ttft_ms"] <= streamed["latency_ms"]
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(
            model="gpt-4o-mini",
            messages=MESSAGES,
            mock_response=litellm.RateLimitError("slow", "openai", "gpt-4o-mini"),
        )
    waited_for(lambda: len(lab.ledger_df()) == 3)
    assert lab.ledger_df(success=False)["error_type"].tolist() == ["RateLimitError"]


def test_the_loggers_of_two_labs_record_each_in_its_own(lab: Lab, litellm: Any, place: Callable[[str], str]) -> None:
    with al.open(place("other.db"), embedding_model="hash-64") as other:
        for current in (lab, other):  # as a notebook's cell does that is run again with another lab
            litellm.callbacks = [LabLogger(current)]
            litellm.completion(model="gpt-4o-mini", messages=MESSAGES, mock_response="At the harbour.")
            waited_for(lambda current=current: len(current.ledger_df()) == 1)


def test_asynchronous_calls_are_recorded_once(lab: Lab, litellm: Any) -> None:
    litellm.callbacks = [LabLogger(lab)]

    async def talk() -> None:
        await asyncio.gather(
            *(
                litellm.acompletion(model="gpt-4o-mini", messages=MESSAGES, mock_response=f"Answer {number}")
                for number in range(5)
            )
        )
        stream = await litellm.acompletion(
            model="gpt-4o-mini", messages=MESSAGES, mock_response="At the harbour.", stream=True
        )
        async for _ in stream:
            pass
        for _ in range(1_000):
            await asyncio.sleep(0.01)
            if len(lab.ledger_df()) == 6:
                break
        await asyncio.sleep(0.2)

    with warnings.catch_warnings():
        # LiteLLM leaves coroutines of its own behind when a loop ends.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=ResourceWarning)
        asyncio.run(talk())
    assert len(lab.ledger_df()) == 6
    assert lab.ledger_df()["success"].all()


def test_what_the_callback_recorded_is_known_when_the_log_is_imported(lab: Lab, litellm: Any) -> None:
    payloads = []

    class Keeping(LabLogger):
        def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            payloads.append(json.loads(json.dumps(kwargs["standard_logging_object"], default=str)))
            super().log_success_event(kwargs, response_obj, start_time, end_time)

    litellm.callbacks = [Keeping(lab)]
    litellm.completion(model="gpt-4o-mini", messages=MESSAGES, mock_response="At the harbour.")
    waited_for(lambda: len(lab.ledger_df()) == 1)
    before = lab.ledger_df()
    assert lab.import_litellm(payloads)["already_there"] == 1
    pd.testing.assert_frame_equal(lab.ledger_df(), before)


def test_a_call_that_cannot_be_recorded_goes_on_with_a_warning(lab: Lab, litellm: Any) -> None:
    logger = LabLogger(lab)
    with pytest.warns(al.UnrecordedUsageWarning, match=r"gpt-4o-mini.*standard_logging_object"):
        logger.log_success_event({"model": "gpt-4o-mini"}, None, None, None)
    lab.close()
    with pytest.warns(al.UnrecordedUsageWarning, match="LabClosed"):
        logger.log_success_event({"model": "m", "standard_logging_object": ROW}, None, None, None)


def test_without_litellm_the_logger_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['litellm'] = None\n"
        "import autom8_lab as al\n"
        "from autom8_lab.importers import LabLogger\n"
        "try:\n    LabLogger(al.open(':memory:', embedding_model='hash'))\n"
        "except al.LabError as exc:\n    print(exc)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'autom8_lab[litellm]'" in result.stdout
