"""Any table of calls: the mapping that is guessed, shown and used, and rows from everywhere."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import autom8_lab as al
from autom8_lab.importers import mapping, tables
from autom8_lab.importers.recording import BATCH_ROWS
from autom8_lab.lab import Lab

BOTH_BACKENDS = True

CALLS = [
    {
        "id": f"call-{number}",
        "created": f"2026-05-0{number + 1}T12:00:00Z",
        "model_name": "gpt-4o-mini",
        "vendor": "openai",
        "prompt_tokens": 800 + number,
        "completion_tokens": 100 + number,
        "cached_tokens": 10,
        "duration_ms": 930.5,
        "status": "success" if number else "error",
        "team": "core",
    }
    for number in range(3)
]
GUESS = {
    "at": "created",
    "model": "model_name",
    "provider": "vendor",
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "cache_read_tokens": "cached_tokens",
    "latency_ms": "duration_ms",
    "status": "status",
    "source_id": "id",
}


def table(folder: Path, form: str) -> Any:
    frame = pd.DataFrame(CALLS)
    path = folder / f"calls.{form}"
    if form == "frame":
        return frame
    if form == "generator":
        return (dict(row) for row in CALLS)
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in CALLS))
    elif form == "json":
        path.write_text(json.dumps(CALLS, indent=1))
    elif form == "csv":
        frame.to_csv(path, index=False)
    elif form == "tsv":
        frame.to_csv(path, index=False, sep="\t", lineterminator="\r\n", encoding="utf-8-sig")
    elif form == "csv.gz":
        path.write_bytes(gzip.compress(frame.to_csv(index=False, sep=";").encode()))
    else:
        frame.to_parquet(path)
    return path


FORMS = ["frame", "generator", "jsonl", "json", "csv", "tsv", "csv.gz", "parquet"]


@pytest.mark.parametrize("form", FORMS)
def test_a_guessed_mapping_is_shown_before_it_is_used(lab: Lab, tmp_path: Path, form: str) -> None:
    report = lab.import_rows(table(tmp_path, form))
    assert (report["dry_run"], report["new"], len(lab.ledger_df())) == (True, 3, 0)
    assert report.mapping == GUESS
    assert report.unused_columns == ["team"]
    shown = repr(report)
    assert "input_tokens ← prompt_tokens" in shown
    assert "mapping='guess'" in shown
    report = lab.import_rows(
        table(tmp_path, form), mapping={**report.mapping, "metadata.team": "team"}, source="gateway"
    )
    assert (report["new"], report["refused"], report["dry_run"]) == (3, 0, False)
    frame = lab.ledger_df()
    assert frame["input_tokens"].tolist() == [800, 801, 802]
    assert frame["success"].tolist() == [False, True, True]
    assert frame["latency_ms"].tolist() == [930.5] * 3
    assert frame["source_id"].tolist() == ["call-0", "call-1", "call-2"]
    assert frame["source"].unique().tolist() == ["gateway"]
    assert frame["cost_usd"].gt(0).all()
    assert lab.usage_df(by="metadata.team")["calls"].tolist() == [3]
    again = lab.import_rows(table(tmp_path, form), mapping="guess", source="gateway")
    assert (again["new"], again["already_there"]) == (0, 3)


def test_a_file_that_has_not_changed_by_a_byte_is_not_read_again(lab: Lab, tmp_path: Path) -> None:
    path = table(tmp_path, "csv")
    lab.import_rows(path, mapping="guess")
    assert lab.import_rows(path, mapping="guess")["unchanged_files"] == 1
    assert lab.import_rows(path)["already_there"] == 3  # a preview tells all the same
    assert lab.import_rows(path, mapping="guess", resume=False)["already_there"] == 3
    other = {name: column for name, column in GUESS.items() if name != "source_id"}
    assert lab.import_rows(path, mapping=other)["new"] == 3  # read otherwise it says something else
    path.write_text(path.read_text().replace(",801,", ",901,"))
    report = lab.import_rows(path, mapping="guess")
    assert (report["unchanged_files"], report["read"], report["updated"]) == (0, 3, 1)
    assert 901 in lab.ledger_df()["input_tokens"].tolist()


def test_a_table_with_the_ledgers_own_names_needs_no_mapping(lab: Lab) -> None:
    own = [{"at": "2026-05-01T12:00:00Z", "model": "gpt-4o", "input_tokens": 5, "output_tokens": 6, "source_id": "1"}]
    assert lab.import_rows(own)["new"] == 1


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            [
                "timestamp",
                "model",
                "usage.prompt_tokens",
                "usage.completion_tokens",
                "usage.prompt_tokens_details.cached_tokens",
            ],
            {"input_tokens": "usage.prompt_tokens", "cache_read_tokens": "usage.prompt_tokens_details.cached_tokens"},
        ),
        (
            [
                "created_at",
                "model",
                "input_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "output_tokens",
            ],
            {"uncached_input_tokens": "input_tokens", "cache_write_tokens": "cache_creation_input_tokens"},
        ),
        (
            ["startTime", "endTime", "completionStartTime", "model", "Prompt Tokens", "spend"],
            {
                "at": "startTime",
                "ended_at": "endTime",
                "first_token_at": "completionStartTime",
                "cost_actual_usd": "spend",
            },
        ),
        (["time", "model", "latency", "duration", "score"], {"at": "time", "model": "model"}),
    ],
)
def test_common_names_are_known_and_ambiguous_ones_are_not_guessed(
    columns: list[str], expected: dict[str, str]
) -> None:
    found = mapping.guessed(columns)
    assert expected.items() <= found.items()
    assert "latency" not in found.values()
    assert "score" not in found.values()
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"modell": "model_name"}, "did you mean 'model'"),
        ({"model": "modelname"}, "did you mean 'model_name'"),
        ({"model": "model_name"}, "nothing of at"),
        ({"metadata.": "team"}, "metadata."),
        ("guesss", "give a dict"),
        (5, "give a dict"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_refused(lab: Lab, bad: Any, message: str) -> None:
    with pytest.raises(al.InvalidValue, match=message):
        lab.import_rows(CALLS, mapping=bad)


def test_a_table_without_a_time_or_model_says_what_is_missing(lab: Lab) -> None:
    with pytest.raises(al.InvalidValue, match="no column looks like at or model"):
        lab.import_rows([{"tokens": 5}], mapping="guess")
    assert lab.import_rows([], mapping="guess")["read"] == 0


def test_times_units_and_totals_are_worked_out(lab: Lab) -> None:
    given = [
        {
            "when": "2026-05-01 14:00:00",
            "end": "2026-05-01 14:00:02",
            "m": "claude-sonnet-4-5",
            "plain": "3",
            "read": 100.0,
            "write": "20",
            "all": 150,
            "wait": "0.25",
        }
    ]
    chosen = {
        "at": "when",
        "ended_at": "end",
        "model": "m",
        "uncached_input_tokens": "plain",
        "cache_read_tokens": "read",
        "cache_write_tokens": "write",
        "total_tokens": "all",
        "ttft_s": "wait",
    }
    lab.import_rows(given, mapping=chosen, timezone="Europe/Berlin")
    row = lab.ledger_df().iloc[0]
    assert row["at"] == pd.Timestamp("2026-05-01T12:00:00Z")
    assert (row["input_tokens"], row["output_tokens"], row["latency_ms"], row["ttft_ms"]) == (123, 27, 2_000, 250)
    with pytest.raises(al.InvalidValue, match="Europe/Berlin"):
        lab.import_rows(given, mapping=chosen, timezone="Mars")


def test_rows_without_an_id_are_known_by_what_they_say(lab: Lab, tmp_path: Path) -> None:
    bare = [{name: value for name, value in row.items() if name != "id"} for row in [*CALLS, CALLS[0]]]
    first = lab.import_rows(bare, mapping="guess")
    assert first["new"] == 4  # two calls that say the same are two calls
    assert lab.import_rows(bare, mapping="guess")["new"] == 0
    assert lab.import_rows(pd.DataFrame(bare[::-1]), mapping="guess")["new"] == 0
    assert lab.import_rows([*bare, CALLS[1] | {"id": None}], mapping="guess")["new"] == 1


def test_a_bad_row_is_listed_and_stops_nothing(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    lines = [
        "created,model,prompt_tokens,completion_tokens,quality",
        "2026-05-01T12:00:00Z,gpt-4o,5,6,0.5",
        "2026-05-01T12:00:01Z,gpt-4o,-5,6,",
        "2026-05-01T12:00:02Z,gpt-4o,5",
        "2026-05-01T12:00:03Z,gpt-4o,5,6,7",
        '2026-05-01T12:00:04Z,"gpt\n-4o",5,6,1',
        "2199-05-01T12:00:05Z,gpt-4o,5,6,",
        ",,,,",
        "",
        "2026-05-01T12:00:06Z,gpt-4o,NaN,Infinity,",
        "2026-05-01T12:00:07Z,gpt-4o,5,6,1,2",
        "2026-05-01T12:00:08Z,gpt-4o,caf\xe9,6,",
        "2026-05-01T12:00:09Z,gpt-4o,nan,6,",
    ]
    path.write_bytes("\r\n".join(lines).encode("latin-1"))
    report = lab.import_rows(path, mapping="guess")
    assert (report["new"], report["refused"]) == (3, 8)
    assert lab.ledger_df()["model"].tolist() == ["gpt-4o", "gpt -4o", "gpt-4o"]
    assert lab.usage_df()["input_tokens"].sum() == 10
    reasons = report.refused_df().set_index("place")["reason"]
    assert "-5" in reasons["line 3"]
    assert "3 cells where the header has 5" in reasons["line 4"]


def test_a_quote_that_never_closes_does_not_swallow_memory(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LINE_BYTES", 10_000)
    limit = csv.field_size_limit()
    path = tmp_path / "calls.csv"
    path.write_text(
        'created,model,prompt_tokens\n2026-05-01,gpt-4o,5\n2026-05-01,"gpt-4o,5\n' + "2026-05-02,gpt-4o,5\n" * 2_000
    )
    report = lab.import_rows(path, mapping="guess")
    assert report["refused"] >= 1
    assert "field larger than field limit" in report.refused_df().loc[0, "reason"]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("content", ["a,b,a\n1,2,3\n", ""])
def test_headers_that_cannot_be_used(lab: Lab, tmp_path: Path, content: str) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(content)
    if content:
        with pytest.raises(al.InvalidValue, match="two columns 'a'"):
            lab.import_rows(path)
    else:
        assert lab.import_rows(path)["read"] == 0


def test_frames_with_times_missing_cells_and_numpy_values(lab: Lab) -> None:
    frame = pd.DataFrame(
        {
            "at": pd.to_datetime(["2026-05-01T12:00:00Z", None]),
            "model": ["gpt-4o", "gpt-4o"],
            "input_tokens": np.array([5, 6], dtype=np.int32),
            "output_tokens": pd.array([7, None], dtype="Int64"),
            "success": [True, None],
            "error_type": [None, "Timeout"],
        }
    )
    report = lab.import_rows(frame)
    assert (report["new"], report["refused"]) == (1, 1)
    row = lab.ledger_df().iloc[0]
    assert (row["at"], row["output_tokens"], row["success"]) == (datetime(2026, 5, 1, 12, tzinfo=UTC), 7, True)
    with pytest.raises(al.InvalidValue, match="two columns 'at'"):
        lab.import_rows(pd.concat([frame, frame], axis=1))


def test_texts_become_contexts(lab: Lab) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is the crane?"}]
    given = [{**CALLS[0], "messages": json.dumps(messages), "answer": "At the harbour."}]
    assert lab.import_rows(given, mapping="guess", store_texts=True)["contexts"] == 2
    assert {item.content: item.topic for item in lab.list_contexts()} == {
        "Where is the crane?": "prompt",
        "At the harbour.": "response",
    }


def test_a_path_or_row_that_is_none_says_so(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(al.NotFound, match="nowhere"):
        lab.import_rows(tmp_path / "nowhere.csv")
    report = lab.import_rows([CALLS[0], 5, ["gpt"]], mapping=GUESS)
    assert (report["new"], report["refused"]) == (1, 2)
    with pytest.raises(al.InvalidValue, match="give a DataFrame"):
        lab.import_rows(5)  # type: ignore[arg-type]


def test_a_failed_call_keeps_its_error(lab: Lab) -> None:
    lab.import_rows([{**CALLS[0], "error": "RateLimitError"}, {**CALLS[1], "error": ""}], mapping="guess")
    assert lab.ledger_df()["error_type"].fillna("").tolist() == ["RateLimitError", ""]


def test_of_many_calls_told_again_the_new_and_the_changed_ones_are_found(lab: Lab) -> None:
    def call(number: int, output_tokens: int = 1) -> dict[str, Any]:
        given = {
            "source_id": f"call-{number}",
            "at": "2026-05-01T12:00:00Z",
            "model": "gpt-4o-mini",
            "provider": "openai",
        }
        return {**given, "input_tokens": number, "output_tokens": output_tokens}

    size = BATCH_ROWS + 50
    lab.import_rows([call(number) for number in range(size)], mapping="guess")
    told = [call(number, 7 if number == size - 3 else 1) for number in range(size + 40)]
    told.append({**call(size + 40), "model": "nobody-knows"})
    expected = {"new": 41, "updated": 1, "already_there": size - 1, "unpriced": 1}
    for dry_run in (True, False):
        report = lab.import_rows(told, mapping="guess", dry_run=dry_run)
        assert {name: report[name] for name in expected} == expected
    found = lab.ledger_df().set_index("source_id")
    assert (len(found), found["output_tokens"].sum()) == (size + 41, size + 41 + 6)
    assert found.loc[f"call-{size + 39}", "cost_estimated_usd"] > 0
    assert lab.check().empty
