"""The usage objects of providers' answers, as logs keep them: OpenAI's two, Anthropic's, Google's and LiteLLM's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .values import counts_of, first

# Where the classes stand, alone or within another object; the first that is there holds.
CACHE_READ = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("cache_read_input_tokens", ""),
    ("cached_content_token_count", ""),
    ("cachedContentTokenCount", ""),
    ("prompt_cache_hit_tokens", ""),
)
CACHE_WRITE = (
    ("prompt_tokens_details", "cache_write_tokens"),
    ("prompt_tokens_details", "cache_creation_tokens"),
    ("input_tokens_details", "cache_write_tokens"),
    ("cache_creation_input_tokens", ""),
)
REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens", ""),
    ("thoughts_token_count", ""),
    ("thoughtsTokenCount", ""),
)
# Anthropic's own usage has the cache beside the input, and no name of another provider's.
ANTHROPIC = frozenset({"cache_read_input_tokens", "cache_creation_input_tokens"})
OTHERS = frozenset({"prompt_tokens", "prompt_tokens_details", "input_tokens_details"})


def _found(usage: Mapping[str, Any], places: Iterable[tuple[str, str]]) -> Any:
    for name, within in places:
        found = usage.get(name)
        if found is not None and within:
            found = found.get(within) if type(found) is dict else None
        if found is not None and found != "":
            return found
    return None


def tokens_of(usage: Any, *, input_tokens: Any = None, output_tokens: Any = None) -> dict[str, int]:
    """Return the counts that a usage object tells, the totals given beside it first. Raises `InvalidValue`.

    >>> tokens_of({"input_tokens": 3, "output_tokens": 7, "cache_read_input_tokens": 100})["input_tokens"]
    103
    >>> tokens_of({"prompt_tokens": 103, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 100}})
    {'input_tokens': 103, 'cache_read_tokens': 100, 'output_tokens': 7}
    """
    names = usage if isinstance(usage, dict) else {}
    anthropic = not ANTHROPIC.isdisjoint(names) and OTHERS.isdisjoint(names)
    told = {
        "input_tokens": first(input_tokens, names.get("prompt_tokens"), names.get("input_tokens")),
        "output_tokens": first(output_tokens, names.get("completion_tokens"), names.get("output_tokens")),
        "cache_read_tokens": _found(names, CACHE_READ),
        "cache_write_tokens": _found(names, CACHE_WRITE),
        "reasoning_tokens": _found(names, REASONING),
    }
    return counts_of(told, input_without_cache=anthropic)
