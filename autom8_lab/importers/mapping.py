"""Which column of somebody's table is which field of a call: told by the user, or guessed from common names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..entries import USAGE
from ..errors import InvalidValue, did_you_mean
from ..validation import shortened

# What a column can be besides a field of the ledger, and what becomes of it.
DERIVED = {
    "uncached_input_tokens": "input_tokens, with what the cache gave and took added",
    "total_tokens": "the one of input_tokens and output_tokens that is not there",
    "latency_s": "latency_ms",
    "ttft_s": "ttft_ms",
    "ended_at": "latency_ms, from at",
    "first_token_at": "ttft_ms, from at",
    "status": "success",
    "prompt": "a context, with store_texts=True",
    "response": "a context, with store_texts=True",
}
FIELDS = (*(name for name in USAGE if name not in ("source", "metadata")), *DERIVED)
REQUIRED = ("at", "model")

# The first name that a table has is taken. Names without their unit ("latency", "duration") are nobody's guess.
COMMON = {
    "at": "at timestamp time created_at datetime datetime_utc start_time started_at startTime request_time event_time"
    " logged_at created date ts usage_date_utc",
    "model": "model model_name response_model request_model llm_model model_id deployment engine model_slug"
    " model_permaslug model_version",
    "provider": "provider custom_llm_provider llm_provider model_provider provider_name vendor",
    "operation": "operation operation_name call_type request_type",
    "uncached_input_tokens": "uncached_input_tokens usage_input_tokens_no_cache input_tokens_no_cache",
    "input_tokens": "input_tokens prompt_tokens tokens_prompt native_tokens_prompt num_input_tokens input_token_count"
    " prompt_token_count tokens_in n_prompt_tokens usage_input_tokens",
    "output_tokens": "output_tokens completion_tokens tokens_completion native_tokens_completion num_output_tokens"
    " output_token_count candidates_token_count tokens_out n_completion_tokens generated_tokens usage_output_tokens",
    "cache_read_tokens": "cache_read_tokens cache_read_input_tokens cached_tokens cached_input_tokens input_cached_tokens"
    " cached_content_token_count native_tokens_cached prompt_cached_tokens usage_input_tokens_cache_read",
    "cache_write_tokens": "cache_write_tokens cache_creation_input_tokens cache_creation_tokens cache_write_input_tokens",
    "reasoning_tokens": "reasoning_tokens reasoning_output_tokens thoughts_token_count native_tokens_reasoning",
    "total_tokens": "total_tokens token_count num_tokens",
    "latency_ms": "latency_ms duration_ms request_duration_ms response_time_ms elapsed_ms generation_time_ms",
    "latency_s": "latency_s latency_seconds duration_s duration_seconds elapsed_seconds response_time_s",
    "ttft_ms": "ttft_ms time_to_first_token_ms first_token_ms",
    "ttft_s": "ttft_s time_to_first_token_s time_to_first_token_seconds ttft_seconds",
    "ended_at": "ended_at end_time endTime completed_at finished_at",
    "first_token_at": "first_token_at completion_start_time completionStartTime",
    "cost_actual_usd": "cost_actual_usd cost_usd total_cost_usd usd cost total_cost cost_total response_cost spend price_usd",
    "quality_score": "quality_score quality",
    "success": "success succeeded is_success",
    "status": "status outcome status_code http_status",
    "error_type": "error_type error_class exception_type error_code error exception",
    "agent": "agent agent_name",
    "decision_id": "decision_id",
    "source_id": "source_id request_id generation_id call_id response_id completion_id span_id id uuid",
    "prompt": "prompt messages input question",
    "response": "response completion output answer",
}
ANTHROPIC = {"cache_read_input_tokens", "cache_creation_input_tokens"}  # beside them, input_tokens is without the cache
GUESS_DEPTH = 4


def plain(name: str) -> str:
    """Return a column's name as the table of common names has it.

    >>> plain("Prompt Tokens"), plain("completionStartTime"), plain("usage.prompt_tokens")
    ('prompt_tokens', 'completion_start_time', 'usage.prompt_tokens')
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9.]+", "_", snake.lower()).strip("_")


def guessed(columns: Iterable[str]) -> dict[str, str]:
    """Return a mapping of fields to the columns that most likely hold them; each column is taken once.

    Of nested values the names are paths, "usage.prompt_tokens", and their last part counts.

    >>> guessed(["created", "model", "usage.prompt_tokens", "usage.completion_tokens"])
    {'at': 'created', 'model': 'model', 'input_tokens': 'usage.prompt_tokens', 'output_tokens': 'usage.completion_tokens'}
    """
    known: dict[str, str] = {}
    for name in sorted(columns, key=lambda name: name.count(".")):
        known.setdefault(plain(name), name)
        known.setdefault(plain(name).rpartition(".")[2], name)
    found: dict[str, str] = {}
    for field, names in COMMON.items():
        column: str | None = next((known[name] for name in map(plain, names.split()) if name in known), None)
        if column is not None and column not in found.values():
            found[field] = column
    total = plain(found.get("input_tokens", ""))
    if total.endswith("input_tokens") and "uncached_input_tokens" not in found and known.keys() & ANTHROPIC:
        found["uncached_input_tokens"] = found.pop("input_tokens")
    return found


def checked(mapping: Any, columns: Iterable[str]) -> dict[str, str]:
    """Return a user's mapping of fields to columns. Raises `InvalidValue` for what cannot be one."""
    names = list(columns)
    if not isinstance(mapping, Mapping):
        raise InvalidValue(f"mapping={shortened(mapping)}: give a dict of field and column, or 'guess'")
    for field, column in mapping.items():
        if field not in FIELDS and not (isinstance(field, str) and field.startswith("metadata.") and field[9:]):
            raise InvalidValue(f"mapping has the field {field!r}{did_you_mean(str(field), FIELDS)}")
        if column not in names:
            raise InvalidValue(f"mapping[{field!r}]={shortened(column)} is no column{did_you_mean(str(column), names)}")
    missing = [field for field in REQUIRED if field not in mapping]
    if missing:
        raise InvalidValue(f"mapping says nothing of {' and '.join(missing)}: add {{'{missing[0]}': one of {names}}}")
    return {str(field): str(column) for field, column in mapping.items()}


def columns_of(rows: Iterable[Any]) -> list[str]:
    """Return the names in some rows, of nested values as paths, in the order of their first appearance."""
    found: dict[str, None] = {}

    def collect(row: Mapping[Any, Any], prefix: str, depth: int) -> None:
        for name, value in row.items():
            if isinstance(value, Mapping) and value and depth:
                collect(value, f"{prefix}{name}.", depth - 1)
            else:
                found[f"{prefix}{name}"] = None

    for row in rows:
        if isinstance(row, Mapping):
            collect(row, "", GUESS_DEPTH)
    return list(found)
