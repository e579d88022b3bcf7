"""LiteLLM: the rows of its SpendLogs table, its logging payloads, and a callback that records calls as they happen.

https://docs.litellm.ai/docs/proxy/db_info and https://docs.litellm.ai/docs/proxy/logging_spec. The cost that LiteLLM
worked out is kept as `cost_actual_usd`, beside the lab's own estimate; the bill (`import_billing`) says who was right.
"""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..collecting import seldom_collected
from ..errors import InvalidValue, LabError, UnrecordedUsageWarning
from ..validation import shortened
from .recording import Entry
from .usages import tokens_of
from .values import (
    REMEMBERED_CHARS,
    amount,
    at,
    document,
    first,
    id_text,
    instant,
    labels,
    mapping,
    milliseconds,
    outcome,
    text,
)

if TYPE_CHECKING:
    from .jobs import Job
    from .report import ImportReport

SOURCE = "litellm"
ENDINGS = (".jsonl", ".json", ".csv")
OPERATIONS = {
    "completion": "chat",
    "responses": "chat",
    "anthropic_messages": "chat",
    "generate_content": "generate_content",
    "text_completion": "text_completion",
    "embedding": "embeddings",
    "rerank": "rerank",
}
WORLDWIDE_ID_CHARS = 16


@seldom_collected()
def import_logs(job: Job, logs: Any) -> ImportReport:
    """Import SpendLogs rows or logging payloads from a file, a folder, a DataFrame or dicts."""
    for file, rows in job.tables(logs, endings=ENDINGS):
        for place, row in rows:
            if isinstance(row, InvalidValue):
                job.recorder.refuse(row, file=file, place=place)
            else:
                job.take(read, row, file=file, place=place)
            job.flush_if_full()
    return job.finished()


def read(row: Any) -> Iterator[Entry]:
    """Yield the call of a row or payload. Raises `InvalidValue`."""
    if type(row) is not dict and not isinstance(row, Mapping):
        raise InvalidValue(f"a row is {shortened(row)}: give rows of LiteLLM's SpendLogs or its logging payloads")
    get, details = row.get, mapping(row.get("metadata"))
    start, end = instant(get("startTime"), "startTime"), instant(get("endTime"), "endTime")
    tokens = _tokens(row, details)
    served = outcome(get("cache_hit")) is True
    latency = amount(get("request_duration_ms"), "request_duration_ms")
    call = {
        "source": SOURCE,
        "source_id": _identity(row),
        "at": start,
        "model": text(get("model"), "model") or text(get("model_group"), "model_group"),
        "provider": text(get("custom_llm_provider"), "custom_llm_provider"),
        "operation": _operation(get("call_type")),
        # From its own cache LiteLLM answers without a call: nothing was used, whatever the row repeats.
        **({"input_tokens": 0, "output_tokens": 0} if served else tokens),
        "cost_actual_usd": _cost(row, tokens, served),
        "latency_ms": milliseconds(start, end) if latency is None else latency,
        "ttft_ms": _first_token(row, start, end),
        **_status(row, details),
        "metadata": labels(
            cache_hit=True if served else None,
            served_output_tokens=tokens.get("output_tokens") if served else None,
            team=first(get("team_id"), details.get("user_api_key_team_id")),
            key=details.get("user_api_key_alias"),
            user=first(get("user"), details.get("user_api_key_user_id")),
            end_user=get("end_user"),
            session=first(get("session_id"), get("trace_id")),
            model_group=get("model_group"),
            tags=_tags(get("request_tags")),
        ),
    }
    yield Entry(call, _Texts(row))


class _Texts(Mapping[str, Any]):
    """The last message and the answer of a row, read when somebody asks."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def __getitem__(self, role: str) -> Any:
        if role == "prompt":
            return _last(document(self._row.get("messages")))
        return _answer(document(self._row.get("response")))

    def __iter__(self) -> Iterator[str]:
        return iter(("prompt", "response"))

    def __len__(self) -> int:
        return 2


def _identity(row: Mapping[str, Any]) -> str | None:
    name = id_text(first(row.get("request_id"), row.get("id")), "request_id")
    if name is None or len(name) >= WORLDWIDE_ID_CHARS:
        return name
    # Some servers number their answers anew: LiteLLM's own id of the call tells them apart.
    call = text(row.get("litellm_call_id"), "litellm_call_id")
    return f"{name}@{call}" if call else name


def _operation(call_type: Any) -> str:
    word = text(call_type, "call_type") or "completion"
    plain = word if word in OPERATIONS else word.removeprefix("a")
    return OPERATIONS.get(plain, word)


def _tokens(row: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, int]:
    more, usage = mapping(details.get("additional_usage_values")), mapping(details.get("usage_object"))
    return tokens_of(
        # Its prompt_tokens include the cache whatever the provider.
        {"prompt_tokens": None, **more, **usage}
        if more or type(usage) is not dict or "prompt_tokens" not in usage
        else usage,
        input_tokens=row.get("prompt_tokens"),
        output_tokens=row.get("completion_tokens"),
    )


def _cost(row: Mapping[str, Any], tokens: Mapping[str, int], served: bool) -> float | None:
    cost = amount(first(row.get("spend"), row.get("response_cost")), "spend")
    # For a model that it does not know LiteLLM writes 0.
    unknown = cost == 0 and not served and any(tokens.values())
    return None if unknown else cost


def _first_token(row: Mapping[str, Any], start: Any, end: Any) -> float | None:
    """Return the time to first token; of an answer that came at once LiteLLM writes its end."""
    came = instant(row.get("completionStartTime"), "completionStartTime")
    return milliseconds(start, came) if came is not None and (end is None or came < end) else None


def _status(row: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    said = outcome(first(row.get("status"), details.get("status")))
    if said is not False:
        return {"success": said}
    error = mapping(first(row.get("error_information"), details.get("error_information")))
    return {
        "success": said,
        "error_type": text(first(error.get("error_class"), error.get("error_code")), "error_class"),
    }


def _tags(value: Any) -> str | None:
    known = isinstance(value, str) and len(value) <= REMEMBERED_CHARS
    return _written_tags(value) if known else _joined(document(value))


@functools.lru_cache(maxsize=1_024)
def _written_tags(value: str) -> str | None:
    return _joined(document(value))


def _joined(found: Any) -> str | None:
    return ", ".join(map(str, found)) or None if isinstance(found, list) else None


def _last(messages: Any) -> Any:
    if isinstance(messages, list):
        return at(messages[-1], "content") if messages else None
    return messages if isinstance(messages, str) else at(messages, "content")


def _answer(response: Any) -> Any:
    choices = at(response, "choices")
    if isinstance(choices, list) and choices:
        return first(at(choices[0], "message", "content"), at(choices[0], "text"))
    return response if isinstance(response, str) else None


# Live


class _Lab(Protocol):
    def record_usage(self, model: str, **fields: Any) -> int:
        """Record one call."""


class LabLogger:
    """A callback for `litellm.callbacks` that records every call in a lab: `litellm.callbacks = [LabLogger(lab)]`.

    A call that cannot be recorded is an `UnrecordedUsageWarning`, never an error of the call. Logs of the same proxy
    that are imported later find the same calls. Needs litellm (`pip install 'autom8_lab[litellm]'`) when it is made.
    """

    def __new__(cls, lab: _Lab) -> LabLogger:
        """Make one, which is a `CustomLogger` of LiteLLM too."""
        try:
            from litellm.integrations.custom_logger import CustomLogger
        except ImportError as exc:
            raise LabError("LabLogger needs litellm: pip install 'autom8_lab[litellm]'") from exc
        kind = cls if issubclass(cls, CustomLogger) else type(cls.__name__, (cls, CustomLogger), {})
        return object.__new__(kind)

    def __init__(self, lab: _Lab) -> None:
        super().__init__()
        self.lab = lab
        # LiteLLM takes two loggers for one, and leaves out the second, unless their plain public attributes differ.
        self.lab_number = id(lab)

    def _record(self, kwargs: Mapping[str, Any]) -> None:
        try:
            payload = kwargs.get("standard_logging_object")
            if not payload:
                raise InvalidValue("LiteLLM gave no standard_logging_object")
            for entry in read({"litellm_call_id": kwargs.get("litellm_call_id"), **payload}):
                self.lab.record_usage(**entry.row)
        except Exception as exc:
            message = f"a call of {kwargs.get('model')} was not recorded: {type(exc).__name__}: {exc}"
            warnings.warn(message, UnrecordedUsageWarning, stacklevel=2)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record a call that succeeded."""
        self._record(kwargs)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record a call that failed."""
        self._record(kwargs)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record a call that succeeded."""
        await asyncio.to_thread(self._record, kwargs)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record a call that failed."""
        await asyncio.to_thread(self._record, kwargs)
