"""Parquet files that are hostile, damaged or only unusual: each ends in a report or an error that names the remedy."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import autom8_lab as al
from autom8_lab.lab import Lab

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MICROSECONDS = 1_777_636_800_000_000  # of the same noon


def calls(count: int = 3, **columns: Any) -> Any:
    """A table of calls that used 5, 6, 7 … tokens and gave 7 each."""
    given = {
        "id": [f"call-{number}" for number in range(count)],
        "created": pa.array([NOON + timedelta(seconds=number) for number in range(count)], pa.timestamp("us", "UTC")),
        "model": pa.array(["gpt-4o"] * count, pa.string()),
        "prompt_tokens": pa.array(range(5, 5 + count), pa.int64()),
        "completion_tokens": pa.array([7] * count, pa.int64()),
    }
    return pa.table({**given, **columns})


def written(folder: Path, table: Any, **options: Any) -> Path:
    path = folder / "calls.parquet"
    pq.write_table(table, path, **options)
    return path


def sums(lab: Lab) -> list[float]:
    frame = lab.ledger_df()
    return [len(frame), frame["input_tokens"].sum(), frame["output_tokens"].sum()]


def without_footer(content: bytes) -> bytes:
    """Return a file of which the end was lost and written anew: the length of its footer is right, the footer is not."""
    length = int.from_bytes(content[-8:-4], "little")
    return content[: -8 - length] + bytes(255 - byte for byte in content[-8 - length : -8]) + content[-8:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1",
        without_footer,
        lambda content: b"model,created\ngpt-4o,2026-05-01\n" * 9,
        lambda content: b"PAR1",
        lambda content: b"PAR1" * 500,
        lambda content: b"",
    ],
    ids=["cut", "cut by a byte", "absurd footer", "damaged footer", "CSV", "only magic", "all magic", "empty"],
)
def test_a_file_that_is_no_parquet_says_so_and_imports_nothing(lab: Lab, tmp_path: Path, damage: Any) -> None:
    path = written(tmp_path, calls(500))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(al.InvalidValue, match=r"calls\.parquet cannot be read as Parquet \(.+\): write it again"):
        lab.import_rows(path, mapping="guess")
    assert sums(lab) == [0, 0, 0]


def test_a_damaged_group_of_rows_is_listed_and_the_others_are_imported(lab: Lab, tmp_path: Path) -> None:
    path = written(tmp_path, calls(3_000), row_group_size=1_000, compression="zstd", use_dictionary=False)
    group = pq.read_metadata(path).row_group(1)
    start, end = group.column(0).data_page_offset, group.column(4).data_page_offset
    content = bytearray(path.read_bytes())
    content[start:end] = b"\xff" * (end - start)
    path.write_bytes(content)
    report = lab.import_rows(path, mapping="guess")
    assert (report["new"], report["refused"]) == (2_000, 1)
    assert report.refused_df()["place"].tolist() == ["row 1000"]
    assert "cannot be read from here to row 1999" in report.refused_df()["reason"].iloc[0]
    expected = [*range(5, 1_005), *range(2_005, 3_005)]
    assert sums(lab) == [2_000, sum(expected), 7 * 2_000]


def test_two_columns_of_one_name_are_refused_instead_of_one_being_taken(lab: Lab, tmp_path: Path) -> None:
    table = calls()
    columns = [*table.columns, pa.array([100, 200, 300])]
    path = written(tmp_path, pa.Table.from_arrays(columns, names=[*table.column_names, "prompt_tokens"]))
    with pytest.raises(al.InvalidValue, match="two columns 'prompt_tokens': rename one"):
        lab.import_rows(path, mapping="guess")


@pytest.mark.parametrize(
    ("name", "column", "kept", "reason"),
    [
        ("created", pa.array([MICROSECONDS, 2**62, -(2**62)], pa.timestamp("us")), [5], "date value out of range"),
        ("created", pa.array([MICROSECONDS, 2**62, 0], pa.timestamp("us", "UTC")), [5], "date value out of range"),
        ("created", pa.array([MICROSECONDS] * 3, pa.timestamp("us", "Mars/Base")), [], "created=.* cannot be read"),
        ("created", pa.array([MICROSECONDS, None, 0], pa.timestamp("us", "UTC")), [5], "at is missing"),
        ("created", pa.array([MICROSECONDS * 2, 0, MICROSECONDS], pa.timestamp("us", "UTC")), [7], "in the future"),
        ("created", pa.array([1, 2, 3], pa.time64("us")), [], "is no"),
        ("prompt_tokens", pa.array([-1, 2, 3]), [2, 3], "input_tokens=-1 is no number of tokens"),
        ("prompt_tokens", pa.array([2**63 - 1, 2, 3]), [2, 3], f"={2**63 - 1} is more than one call can use"),
        ("prompt_tokens", pa.array([2**64 - 1, 2, 3], pa.uint64()), [2, 3], "more than one call can use"),
        ("prompt_tokens", pa.array([1.5, math.inf, 3.0]), [3], "is no number of tokens"),
        ("prompt_tokens", pa.array([Decimal("1.50"), Decimal("2.00"), None]), [2, None], "is no number of tokens"),
        ("prompt_tokens", pa.array([True, False, None]), [None], "is no finite number"),
        ("prompt_tokens", pa.array([[1], [2], []]), [], "is no finite number"),
        ("model", pa.array(["gpt-4o", None, "gpt-4o"]).dictionary_encode(), [5, 7], "model is missing"),
        ("model", pa.array([b"gpt-4o", b"\xff", None]), [], "is no text"),
        ("model", pa.array(["gpt-4o", "gpt\0", ""]), [5], "NUL character"),
        ("latency_ms", pa.array([math.nan, -1.0, math.inf]), [5], "latency_ms=-1.0 is below 0"),
    ],
)
def test_a_value_that_no_call_can_have_is_listed_and_stops_nothing(
    lab: Lab, tmp_path: Path, name: str, column: Any, kept: list[int | None], reason: str
) -> None:
    path = written(tmp_path, calls(**{name: column}))
    report = lab.import_rows(path, mapping="guess")
    assert (report["read"], report["new"], report["refused"]) == (3, len(kept), 3 - len(kept))
    assert report.refused_df()["reason"].str.contains(reason).any(), report.refused_df()["reason"].tolist()
    assert sums(lab) == [len(kept), sum(value or 0 for value in kept), 7 * len(kept)]


def test_a_text_that_is_not_utf_8_costs_its_row_alone(lab: Lab, tmp_path: Path) -> None:
    offsets_and_bytes = pa.array([b"gpt-4o", b"\xff\xfe", b"gpt-4o"]).buffers()[1:]
    path = written(tmp_path, calls(model=pa.StringArray.from_buffers(3, *offsets_and_bytes)))
    report = lab.import_rows(path, mapping="guess")
    assert report.refused_df()["place"].tolist() == ["row 1"]
    assert "utf-8" in report.refused_df()["reason"].iloc[0]
    assert sums(lab) == [2, 12, 14]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([MICROSECONDS], pa.timestamp("us", "Europe/Berlin")), NOON),
        (pa.array([MICROSECONDS * 1_000 + 1], pa.timestamp("ns", "UTC")), NOON),
        (pa.array([MICROSECONDS // 1_000], pa.timestamp("ms")), NOON),
        (pa.array([MICROSECONDS // 1_000_000], pa.int64()), NOON),
        (pa.array([date(2026, 5, 1)]), datetime(2026, 5, 1, tzinfo=UTC)),
        (pa.array(["2026-05-01T14:00:00+02:00"]).dictionary_encode(), NOON),
    ],
)
def test_times_of_every_type_are_read(lab: Lab, tmp_path: Path, column: Any, expected: datetime) -> None:
    lab.import_rows(written(tmp_path, calls(1, created=column)), mapping="guess")
    assert lab.ledger_df().loc[0, "at"] == expected


def test_nested_columns_are_mapped_by_their_paths(lab: Lab, tmp_path: Path) -> None:
    usage = [{"prompt_tokens": 5, "details": {"cached_tokens": 2, "kinds": ["a", "b"]}}, None, {"prompt_tokens": None}]
    table = calls(usage=usage, labels=pa.array([[("k", 1), ("k", 2)]] * 3, pa.map_(pa.string(), pa.int64())))
    report = lab.import_rows(written(tmp_path, table.drop_columns(["prompt_tokens"])), mapping="guess")
    assert report.mapping["input_tokens"] == "usage.prompt_tokens"
    assert (report["new"], report["refused"]) == (3, 0)
    assert lab.ledger_df()["input_tokens"].fillna(-1).tolist() == [5, -1, -1]
    assert lab.ledger_df()["cache_read_tokens"].fillna(-1).tolist() == [2, -1, -1]


def test_a_file_without_rows_or_columns_is_nothing_to_import(lab: Lab, tmp_path: Path) -> None:
    for table in (calls(0), pa.table({})):
        report = lab.import_rows(written(tmp_path, table), mapping="guess")
        assert (report["read"], report["new"], report["refused"]) == (0, 0, 0)


PEAK = """
import re, sys
import autom8_lab as al
with al.open(sys.argv[1], embedding_model="hash-64") as lab:
    report = lab.import_rows(sys.argv[2], mapping="guess")
# `ru_maxrss` would begin with the peak of the process that started this one.
print(report["new"], re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_a_group_of_rows_that_is_larger_than_memory_is_read_in_parts(tmp_path: Path) -> None:
    count = 120_000
    prompts = pa.array([f"{number:08}" * 500 for number in range(count)])  # 480 MB
    options = {"row_group_size": count, "compression": "none", "use_dictionary": False}
    path = written(tmp_path, calls(count, prompt=prompts), **options)
    assert pq.read_metadata(path).num_row_groups == 1
    assert path.stat().st_size > 450e6
    command = [sys.executable, "-c", PEAK, str(tmp_path / "lab.db"), str(path)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    new, kilobytes = map(int, ended.stdout.split())
    assert new == count
    assert kilobytes < 400_000
