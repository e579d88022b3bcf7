"""Values from users: what can be kept is kept exactly, what cannot says so by name, value and remedy."""

from __future__ import annotations

import copy
import json
import re
import types
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab import validation
from autom8_lab.lab import Lab

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
# The property tests share a lab, and a slow disk or a busy machine is no failure.
PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """One lab in memory for all examples of a property."""
    with al.open(":memory:", embedding_model="hash-16", access_log=False) as lab:
        yield lab


@pytest.fixture(scope="module")
def empty() -> Iterator[Lab]:
    """One lab in memory that every refused value leaves empty."""
    with al.open(":memory:", embedding_model="hash-16") as lab:
        yield lab


class Priority(IntEnum):
    HIGH = 3


class Topic(StrEnum):
    TOOLS = "tools"


# Ids


def test_new_ids_are_different_and_can_be_used_as_they_are() -> None:
    ids = [validation.new_id() for _ in range(2_000)]
    assert len(set(ids)) == 2_000
    assert all(re.fullmatch(r"[0-9a-f]{24}", name) for name in ids)


def test_new_ids_sort_in_the_order_they_were_made() -> None:
    ids = [validation.new_id() for _ in range(2_000)]
    assert ids == sorted(ids)


def test_a_long_value_is_shortened_for_a_message() -> None:
    assert validation.shortened("short") == "'short'"
    assert validation.shortened("x" * 1_000) == f"'{'x' * 59}… (1002 characters)"


def test_a_value_that_cannot_be_shown_does_not_hide_the_message() -> None:
    for value in (10**5_000, [10**5_000]):  # Python refuses to write so many digits
        with pytest.raises(al.InvalidValue, match=r"^priority="):
            validation.integer_value(value, "priority")


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        (None, True),
        (float("nan"), True),
        (np.float64("nan"), True),
        (np.float32("nan"), True),
        (pd.NA, True),
        (pd.NaT, True),
        (np.datetime64("NaT"), True),
        ("", False),
        ("nan", False),
        (0, False),
        (False, False),
        (float("inf"), False),
        ([], False),
        ({}, False),
    ],
)
def test_missing_is_what_frames_put_into_empty_cells(value: object, missing: bool) -> None:
    assert validation.is_missing(value) is missing


# Texts and names


@pytest.mark.parametrize(
    "text",
    [
        "x",
        " outer spaces ",
        "tabs\tand\r\nlines",
        "\ufeffbyte order mark",
        "שלום עליכם",
        "👩‍👩‍👧‍👦",
        "\u202eright to left",
        "\u0301combining",
        "\U0010ffff",
        "'; DROP TABLE context_registry; --",
        "\x01\x1b[31m",
        Topic.TOOLS,
        np.str_("numpy"),
    ],
)
def test_any_legal_text_is_kept_as_it_is(shared: Lab, text: str) -> None:
    assert validation.text_value(text, "content") == text
    context_id = shared.store_context(text)
    assert shared.get_context(context_id).content == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "content=None is a NoneType: give a str"),
        (b"bytes", "content=b'bytes' is a bytes: give a str"),
        (5, "content=5 is a int: give a str"),
        (["a"], r"content=\['a'\] is a list: give a str"),
        ("", "content='' is empty: give some text"),
        (" \n\t ", r"content=' \\n\\t ' is empty: give some text"),
        ("a\0b", r"content has a NUL character at position 1: remove it with .replace\('\\0', ''\)"),
        ("ab\ud800", "content has half a surrogate pair at position 2: decode its source with errors='replace'"),
        ("\udfffab", "content has half a surrogate pair at position 0"),
    ],
)
def test_a_text_that_cannot_be_kept_says_why_and_what_to_do(empty: Lab, value: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=f"^{message}"):
        validation.text_value(value, "content")
    with pytest.raises(al.InvalidValue, match=f"^{message}"):
        empty.store_context(value)
    assert empty.list_contexts() == []


def test_a_text_that_is_too_long_says_how_long_it_may_be() -> None:
    assert validation.text_value("x" * 10, "content", max_chars=10) == "x" * 10
    with pytest.raises(al.InvalidValue, match="content has 11 characters: at most 10 are kept, split it first"):
        validation.text_value("x" * 11, "content", max_chars=10)


@pytest.mark.parametrize(
    "name", ["a", "topic/with-dashes", "two words", "日本語", "%_*?", "'quoted\"", "x" * 255, "../../etc", "null", "1"]
)
def test_a_name_may_be_any_short_text(shared: Lab, name: str) -> None:
    assert validation.name_value(name, "topic") == name
    context_id = f"id of {name}"[:255]
    shared.store_context(f"Text of {name}", context_id=context_id, topic=name, source=name)
    context = shared.get_context(context_id)
    assert (context.id, context.topic, context.source) == (context_id, name, name)
    assert [item.id for item in shared.list_contexts(topic=name, source=name)] == [context_id]
    assert [hit.context.id for hit in shared.search("text", topic=name)] == [context_id]


@pytest.mark.parametrize("field", ["context_id", "topic", "source"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "='' is empty: give some text"),
        ("  ", "='  ' is empty"),
        (" a", "=' a' starts or ends with white space: give 'a'"),
        ("a\n", r"='a\\n' starts or ends with white space: give 'a'"),
        ("a\nb", r"='a\\nb' has the control character '\\n': remove it"),
        ("a\x7fb", r"='a\\x7fb' has the control character '\\x7f': remove it"),
        ("a\x85b", r"='a\\x85b' has the control character"),
        ("a\0b", " has a NUL character at position 1"),
        ("a\ud800", " has half a surrogate pair at position 1"),
        ("x" * 256, " has 256 characters: at most 255 are kept"),
        (5, "=5 is a int: give a str"),
        (b"a", "=b'a' is a bytes: give a str"),
        (["a"], r"=\['a'\] is a list: give a str"),
        ({"a": 1}, "={'a': 1} is a dict: give a str"),
    ],
)
def test_a_hostile_name_is_refused_by_field_value_and_remedy(empty: Lab, field: str, value: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=f"^{field}{message}"):
        empty.store_context("Text.", **{field: value})
    with pytest.raises(al.InvalidValue, match=f"^row 0: {field}{message}"):
        empty.store_contexts([{"content": "Text.", field: value}])
    assert empty.list_contexts() == []


@pytest.mark.parametrize("value", ["", " a", "a\0", "\ud800", 5, None, ["a"], b"a"])
def test_every_verb_refuses_a_hostile_id(empty: Lab, value: Any) -> None:
    verbs = (empty.get_context, empty.update_context, empty.delete_context, empty.pin_context, empty.unpin_context)
    for verb in verbs:
        with pytest.raises(al.InvalidValue, match="context_id"):
            verb(value)


# Numbers and flags


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (-5, -5),
        (3.0, 3),
        (np.int64(7), 7),
        (np.uint8(7), 7),
        (np.float64(2.0), 2),
        (Priority.HIGH, 3),
        (2**31 - 1, 2**31 - 1),
        (1 - 2**31, 1 - 2**31),
    ],
)
def test_whole_numbers_are_taken_from_every_library(value: Any, expected: int) -> None:
    result = validation.integer_value(value, "priority")
    assert (result, type(result)) == (expected, int)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        np.True_,
        1.5,
        float("nan"),
        float("inf"),
        2**31,
        -(2**31),
        10**400,
        "5",
        None,
        [],
        {},
        1j,
        np.array([1, 2]),
        np.array([1]),
        pd.NA,
        int,
    ],
    ids=repr,
)
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(al.InvalidValue, match=r"^priority=.*: give a whole number within ±2\*\*31"):
        validation.integer_value(value, "priority")


def test_a_positive_number_has_its_limits_in_the_message() -> None:
    assert validation.positive_integer(1, "k", at_most=10) == 1
    assert validation.positive_integer(np.int64(10), "k", at_most=10) == 10
    for value in (0, -1, 11):
        with pytest.raises(al.InvalidValue, match=f"k={value}: give a whole number from 1 to 10"):
            validation.positive_integer(value, "k", at_most=10)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), (1, True), (0, False), (1.0, True), (np.True_, True), (np.int64(0), False)],
)
def test_a_flag_is_taken_from_every_library(value: Any, expected: bool) -> None:
    assert validation.flag_value(value, "pinned") is expected


@pytest.mark.parametrize(
    "value",
    [
        "yes",
        "True",
        "",
        2,
        -1,
        0.5,
        float("nan"),
        None,
        [],
        [True],
        np.array([True, False]),
        pd.NA,
        pd.Series([True]),
    ],
    ids=repr,
)
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(al.InvalidValue, match=r"^(?s:pinned=.*): give True or False"):
        validation.flag_value(value, "pinned")


# Metadata


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"": "", " ": " ", "a b": None, "ключ": "значение", "$.a[0]": 1, '"': "'"},
        {"deep": [[[{"x": [1, 2.5, None, True, False, "text"]}]]]},
        {"numbers": [0, -0.0, 2**63 - 1, -(2**63), 1e308, 5e-324]},
        {"long": "x" * 100_000},
        {"space": " \n\t", "control": "\x01\x1f", "emoji": "👩‍👩‍👧‍👦"},
    ],
)
def test_metadata_comes_back_as_it_was(shared: Lab, value: dict[str, Any]) -> None:
    before = copy.deepcopy(value)
    assert validation.metadata_value(value) == value
    context_id = shared.store_context("Text.", metadata=value)
    assert shared.get_context(context_id).metadata == value == before


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(a=1),
        UserDict({"a": 1}),
        types.MappingProxyType({"a": 1}),
        {"a": 1, "nested": types.MappingProxyType({"b": (1, 2)})},
        {"enum": Priority.HIGH, "word": Topic.TOOLS},
    ],
    ids=lambda value: type(value).__name__,
)
def test_metadata_may_be_any_mapping_and_becomes_plain_json(value: Any) -> None:
    result = validation.metadata_value(value)
    assert type(result) is dict
    assert json.loads(json.dumps(result)) == result
    if "nested" in result:
        assert result["nested"] == {"b": [1, 2]}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "metadata='text' is a str: give a dict"),
        ([("a", 1)], r"metadata=\[\('a', 1\)\] is a list: give a dict"),
        ({1: "a"}, "metadata has the key 1: JSON's keys are str"),
        ({None: "a"}, "metadata has the key None: JSON's keys are str"),
        ({"a": {2: "b"}}, r"metadata\['a'\] has the key 2"),
        ({"a": float("nan")}, r"metadata\['a'\]=nan has no place in JSON: give None instead"),
        ({"a": [1, float("inf")]}, r"metadata\['a'\]\[1\]=inf has no place in JSON"),
        ({"a": 2**63}, r"metadata\['a'\]=9223372036854775808 does not fit into 64 bits: give it as a str"),
        ({"a": -(2**63) - 1}, r"metadata\['a'\]=-9223372036854775809 does not fit into 64 bits"),
        ({"a": {1, 2}}, r"metadata\['a'\]=\{1, 2\} is a set, which JSON does not have"),
        ({"a": b"x"}, r"metadata\['a'\]=b'x' is a bytes, which JSON does not have: give a str or number"),
        ({"a": NOW}, r"metadata\['a'\]=datetime.* is a datetime"),
        ({"a": np.int64(1)}, r"metadata\['a'\]=np.int64\(1\) is a int64"),
        ({"a": np.array([1])}, r"metadata\['a'\]=array\(\[1\]\) is a ndarray"),
        ({"a": pd.NA}, r"metadata\['a'\]=<NA> is a NAType"),
        ({"a": object}, r"metadata\['a'\]=<class 'object'> is a type"),
        ({"a": "x\0"}, r"metadata\['a'\] has a NUL character at position 1"),
        ({"a": "  x\0"}, r"metadata\['a'\] has a NUL character at position 3"),
        ({"a": "\ud800"}, r"metadata\['a'\] has half a surrogate pair"),
        ({"a\0": 1}, "key of metadata has a NUL character"),
        ({"\ud800": 1}, "key of metadata has half a surrogate pair"),
        (nested(40), "metadata.* is nested deeper than 32 levels: flatten it"),
        (CIRCLE, "metadata.* is nested deeper than 32 levels"),
        ({"a": "x" * 1_000_001}, "metadata has 1,000,010 characters as JSON: at most 1,000,000 are kept"),
    ],
    ids=range(24),
)
def test_metadata_that_json_cannot_hold_names_the_place(empty: Lab, value: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=f"^{message}"):
        empty.store_context("Text.", metadata=value)
    assert empty.list_contexts() == []


def test_metadata_may_be_32_levels_deep() -> None:
    assert validation.metadata_value(nested(32)) == nested(32)


# NUL and halves of surrogate pairs are refused, and a text of nothing but white space is no content.
characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.text(characters)
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
finite_leaves = leaves.filter(lambda value: not isinstance(value, float) or abs(value) != float("inf"))
documents = st.dictionaries(
    texts,
    st.recursive(
        finite_leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


@PROPERTY
@given(metadata=documents)
def test_any_dict_that_json_can_hold_comes_back_as_metadata(shared: Lab, metadata: dict[str, Any]) -> None:
    context_id = shared.store_context("Text.", metadata=metadata)
    assert shared.get_context(context_id).metadata == json.loads(json.dumps(metadata))


@PROPERTY
@given(content=texts.filter(str.strip))
def test_any_legal_text_comes_back_as_content(shared: Lab, content: str) -> None:
    context_id = shared.store_context(content, topic="property")
    context = shared.get_context(context_id)
    assert context.content == content
    hits = {hit.context.id for hit in shared.search(content, topic="property", method="semantic", k=1_000)}
    assert context_id in hits


def refused_by(check: Callable[[Any, str], Any], value: Any, name: str) -> str | None:
    """Return the message of our refusal, or None; every other error goes on."""
    try:
        check(value, name)
    except al.InvalidValue as exc:
        return str(exc)
    return None


@PROPERTY
@given(name=texts)
def test_any_text_is_a_usable_name_or_refused_by_name(shared: Lab, name: str) -> None:
    refusal = refused_by(validation.name_value, name, "topic")
    if refusal is not None:
        assert refusal.startswith("topic")
        return
    context_id = shared.store_context("Named.", topic=name)
    assert context_id in [item.id for item in shared.list_contexts(topic=name)]


@PROPERTY
@given(
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.integers())
)
def test_a_value_is_used_or_refused_with_our_error(value: Any) -> None:
    for check in (
        validation.text_value,
        validation.name_value,
        validation.integer_value,
        validation.flag_value,
        validation.metadata_value,
        validation.duration,
        validation.moment,
    ):
        assert (refused_by(check, value, "field") or "field").startswith("field")


# Lengths of time


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("15min", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("1.5d", timedelta(hours=36)),
        (" 2 W ", timedelta(weeks=2)),
        ("36500d", timedelta(days=36_500)),
        (timedelta(microseconds=1), timedelta(microseconds=1)),
        (pd.Timedelta("2h"), timedelta(hours=2)),
    ],
)
def test_a_length_of_time_is_a_text_or_a_timedelta(value: Any, expected: timedelta) -> None:
    assert validation.duration(value, "ttl") == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "d",
        "30",
        "30 days",
        "-1d",
        "+1d",
        "1e3s",
        "1d12h",
        "∞d",
        "1y",
        "nan d",
        30,
        30.0,
        True,
        None,
        [],
        b"1d",
        NOW,
    ],
    ids=repr,
)
def test_what_is_no_length_of_time_says_what_to_give(empty: Lab, value: Any) -> None:
    message = r"^ttl=.*: give a timedelta or a text such as '90s', '12h', '30d', '2w'"
    with pytest.raises(al.InvalidValue, match=message):
        validation.duration(value, "ttl")
    if value is not None:
        with pytest.raises(al.InvalidValue, match=message):
            empty.store_context("Text.", ttl=value)
        assert empty.list_contexts() == []


@pytest.mark.parametrize(
    "value",
    ["0d", "0.0s", "36501d", "9" * 400 + "d", "99999999999w", timedelta(0), timedelta(days=-1), timedelta.max],
    ids=lambda value: repr(value)[:20],
)
def test_a_length_of_time_out_of_range_says_the_range(empty: Lab, value: Any) -> None:
    with pytest.raises(al.InvalidValue, match=r"^ttl=.*: give a length of time above zero and up to 36500d"):
        empty.store_context("Text.", ttl=value)
    assert empty.list_contexts() == []


# Moments


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-05-01T12:00:00+00:00", datetime(2026, 5, 1, 12, tzinfo=UTC)),
        ("2026-05-01T12:00:00Z", datetime(2026, 5, 1, 12, tzinfo=UTC)),
        ("2026-05-01 14:00:00+02:00", datetime(2026, 5, 1, 12, tzinfo=UTC)),
        ("2026-05-01T12:00:00.123456Z", datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2026-05-01", datetime(2026, 5, 1, tzinfo=UTC)),
        (date(2026, 5, 1), datetime(2026, 5, 1, tzinfo=UTC)),
        (datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=-3))), datetime(2026, 5, 1, 15, tzinfo=UTC)),
        (pd.Timestamp("2026-05-01T12:00:00.123456789Z"), datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)),
        (pd.Timestamp("2026-05-01", tz="Europe/Berlin"), datetime(2026, 4, 30, 22, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_moment_becomes_a_plain_time_in_utc(shared: Lab, value: Any, expected: datetime) -> None:
    moment = validation.moment(value, "created_at")
    assert (moment, type(moment), moment.tzinfo) == (expected, datetime, UTC)
    context_id = shared.store_context("Text.", created_at=value, metadata={"at": str(value)})
    assert shared.get_context(context_id).created_at == expected
    assert pd.Timestamp(expected) in shared.contexts_df()["created_at"].tolist()


def test_a_length_of_time_is_a_moment_before_now_where_that_is_meant() -> None:
    assert validation.moment("7d", "since", now=NOW) == NOW - timedelta(days=7)
    with pytest.raises(al.InvalidValue, match="expires_at='7d'"):
        validation.moment("7d", "expires_at")


@pytest.mark.parametrize(
    "value", [datetime(2026, 5, 1), "2026-05-01T12:00:00", "20260501T120000", pd.Timestamp("2026-05-01"), pd.NaT]
)
def test_a_time_without_a_zone_is_refused(value: Any) -> None:
    with pytest.raises(al.InvalidValue, match=r"^expires_at=.* has no time zone: add one, for example \+00:00"):
        validation.moment(value, "expires_at")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "tomorrow",
        "2026-13-01",
        "2026-02-30",
        "01.05.2026",
        "2026-05-01T25:00:00Z",
        1_700_000_000,
        0.5,
        True,
        [],
        None,
    ],
    ids=repr,
)
def test_what_is_no_time_says_what_to_give(empty: Lab, value: Any) -> None:
    with pytest.raises(al.InvalidValue, match=r"^expires_at=.*: give "):
        validation.moment(value, "expires_at")
    if value is not None:
        with pytest.raises(al.InvalidValue, match=r"^expires_at=.*: give "):
            empty.store_context("Text.", expires_at=value)
        assert empty.list_contexts() == []


def test_a_time_outside_the_calendar_is_refused() -> None:
    for value in ("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(al.InvalidValue, match=r"expires_at=.* is outside the years 1 to 9999"):
            validation.moment(value, "expires_at")
