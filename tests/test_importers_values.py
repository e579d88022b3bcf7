"""Values of other programs' logs: numbers, times, names and JSON, or the reason why not."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.importers import values

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (812, 812),
        ("812", 812),
        (" 812 ", 812),
        (812.0, 812),
        ("8.12e2", 812),
        (0, 0),
        (None, None),
        ("", None),
        (float("nan"), None),
    ],
)
def test_a_count_is_read_from_what_logs_write(given_value: Any, expected: int | None) -> None:
    found = values.count(given_value, "input_tokens")
    assert found == expected
    assert found is None or type(found) is int


@pytest.mark.parametrize(
    "bad", [-1, "-1", 0.5, "many", True, [1], math.inf, "Infinity", 100_000_001, 10**400, "9" * 5000]
)
def test_a_count_that_no_call_can_have_is_refused(bad: Any) -> None:
    with pytest.raises(al.InvalidValue, match="input_tokens"):
        values.count(bad, "input_tokens")


@pytest.mark.parametrize(
    "written",
    [
        "2026-05-01T12:00:00Z",
        "2026-05-01T12:00:00.000Z",
        "2026-05-01 12:00:00",
        "2026-05-01 12:00:00 UTC",
        "2026-05-01T14:00:00+02:00",
        1_777_636_800,
        1_777_636_800.0,
        "1777636800",
        1_777_636_800_000,
        1_777_636_800_000_000,
        1_777_636_800_000_000_000,
        "1777636800000000000",
        datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_a_time_is_read_from_what_logs_write(written: Any) -> None:
    found = values.instant(written, "at")
    assert found == NOON
    assert found is not None
    assert found.tzinfo is UTC


def test_a_time_without_a_zone_is_in_the_zone_that_is_given() -> None:
    assert values.instant("2026-05-01T14:00:00", "at", zone=ZoneInfo("Europe/Berlin")) == NOON


@given(st.datetimes(datetime(2015, 1, 1), datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=UTC)))
def test_nanoseconds_since_1970_keep_their_microseconds(time: datetime) -> None:
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    nanoseconds = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000
    assert values.instant(nanoseconds, "at") == time
    assert values.instant(str(nanoseconds), "at") == time


@pytest.mark.parametrize("bad", ["yesterday", "2026-13-01", "Z", math.inf, [1], True, "1" * 400, 10**30])
def test_what_is_no_time_is_refused(bad: Any) -> None:
    with pytest.raises(al.InvalidValue, match="at="):
        values.instant(bad, "at")


def test_tokens_are_counted_as_the_ledger_defines_them() -> None:
    anthropic = {"input_tokens": 3, "cache_read_tokens": 100, "cache_write_tokens": 20, "output_tokens": 7}
    assert values.token_counts(**anthropic, input_without_cache=True)["input_tokens"] == 123
    assert values.token_counts(**anthropic)["input_tokens"] == 123  # less than its parts: it cannot include them
    openai = {"input_tokens": 123, "cache_read_tokens": 100, "output_tokens": 7, "reasoning_tokens": 5}
    assert values.token_counts(**openai) == openai
    assert values.token_counts(output_tokens=7, reasoning_tokens=9)["output_tokens"] == 16
    assert values.token_counts() == {}


@pytest.mark.parametrize(("word", "said"), [("success", True), ("OK", True), (200, True), ("STATUS_CODE_ERROR", False)])
def test_a_status_word_tells_success(word: Any, said: bool) -> None:
    assert values.outcome(word) is said


@pytest.mark.parametrize("word", [None, "pending", "", 302, "partially"])
def test_a_status_that_says_neither_tells_nothing(word: Any) -> None:
    assert values.outcome(word) is None


def test_http_errors_are_failures() -> None:
    assert (values.outcome(429), values.outcome("503")) == (False, False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1', "not valid JSON"),
        ("[" * 10_000, "too deep"),
        ('{"a":' * 10_000, "too deep"),
        ('{"input_tokens": 1, "input_tokens": 900}', "'input_tokens' is there twice"),
        ('{"x": {"a": 1, "b": 2, "a": 3}}', "'a' is there twice"),
        ("1" * 5_000, "not usable JSON"),
    ],
)
def test_json_that_cannot_be_trusted_is_refused(text: str, reason: str) -> None:
    with pytest.raises(al.InvalidValue, match=reason):
        values.parsed(text)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(), st.lists, max_leaves=20))
def test_json_comes_back_as_it_was(value: Any) -> None:
    import json

    assert values.parsed(json.dumps(value).encode()) == value


def pairs_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


JSON_PARTS = [
    *('{ } [ ] : , {} [] "a": "b": {"a":1} {"a":1,"a":2} {"a":1,"\\u0061":2} [1,] {"a":1,} a \' " \\ //'.split(" ")),
    *('"a" "\\u0061" "\\ud83d\\ude00" "\\ud800" "\\udc00" "\\u00" "\\x" "\\/" "\\u0000" "é" "\ufffd"'.split(" ")),
    *("1 0 -0 -0.0 01 -01 1. .5 + - 1E5 1e400 -1e400 1e-400 5e-324 0e0 0x10 1_0 1e5e 0.1".split(" ")),
    *("NaN nan -NaN Infinity -Infinity inf true false null True".split(" ")),
    *("18446744073709551616 -9223372036854775809 2.2250738585072011e-308".split(" ")),
    *("9" * 400, "9" * 5_000, "9" * 5_000 + ".5", "[" * 150 + "]" * 150, "[" * 300 + "]" * 300),
    *(" ", "\t", "\n", "\r", "\x0c", "\x00", "\ufeff", '"\x01"', '"\x7f"', '"\n"'),
]


@given(
    st.lists(st.sampled_from(JSON_PARTS), max_size=8).map("".join).map(str.encode)
    | st.tuples(st.sampled_from(['{"a": [%s]}', "%s"]), st.floats().map(repr) | st.integers().map(str)).map(
        lambda form_and_number: (form_and_number[0] % form_and_number[1]).encode()
    )
    | st.lists(st.sampled_from([*(part.encode() for part in JSON_PARTS), b"\xff", b"\xed\xa0\x80"])).map(b"".join)
)
def test_json_is_read_as_the_standard_library_reads_it_or_refused(text: bytes) -> None:
    import json

    try:
        plain = text.decode(errors="replace").strip(" \t\r\n")
        expected = json.loads(plain, object_pairs_hook=pairs_once)
    except (ValueError, AssertionError, RecursionError):
        with pytest.raises(al.InvalidValue):
            values.parsed(text)
    else:
        assert repr(values.parsed(text)) == repr(expected)  # tells -0.0 from 0, NaN from NaN not, and has the order


def test_a_name_is_one_line_and_labels_are_short() -> None:
    assert values.text("  gpt-4o\n mini ", "model") == "gpt-4o mini"
    assert values.text("   ", "model") is None
    assert values.text(5, "model") == "5"
    for bad in ("x" * 256, "gpt\ufffd4", ["gpt"], True):
        with pytest.raises(al.InvalidValue, match="model"):
            values.text(bad, "model")
    assert values.labels(a="x" * 300, b="", c=None, d=3, e=True, f=[1], g="\ud800") == {
        "a": "x" * 200,
        "d": 3,
        "e": True,
        "g": "?",
    }


@pytest.mark.parametrize(
    ("path", "name"), [("/work/app", "app"), ("C:\\work\\app\\", "app"), ("app", "app"), (None, None)]
)
def test_the_last_part_of_a_path_of_any_system(path: Any, name: str | None) -> None:
    assert values.last_part(path) == name


def test_a_message_is_spoken_as_text() -> None:
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "Yes."},
        "?",
        {"type": "text", "text": "No."},
    ]
    assert values.spoken(parts) == "Yes.\nNo."
    assert values.spoken("Yes.") == "Yes."
    assert values.spoken([]) is values.spoken(None) is values.spoken(5) is None
