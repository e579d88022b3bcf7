"""Lines and JSON values of files: whatever the file, in constant memory, with the place of each."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autom8_lab as al
from autom8_lab.importers import files


def told(path: Path) -> list[object]:
    with files.opened(path) as file:
        return [value if not isinstance(value, al.InvalidValue) else str(value) for _, value in files.json_values(file)]


@given(content=st.binary(max_size=300).map(lambda raw: raw.replace(b"\x00", b"\n")), start=st.integers(0, 5))
@settings(max_examples=200)
def test_lines_are_those_of_the_bytes_and_reading_can_go_on_at_each(content: bytes, start: int) -> None:
    if content[:2] in files.BYTE_ORDER_MARKS or content[:3] == codecs.BOM_UTF8:
        return
    found = list(files.lines(io.BytesIO(content)))
    expected = content.split(b"\n")
    assert [line.content for line in found] == (expected if expected[-1] else expected[:-1])
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    if start < len(found):
        line = found[start]
        rest = list(files.lines(io.BytesIO(content), start=line.end, number=line.number))
        assert rest == found[start + 1 :]


def test_lines_across_chunks_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 7)
    content = "\n".join(f"Zeile {number} mit ü" for number in range(20)).encode()
    assert [line.content for line in files.lines(io.BytesIO(content))] == content.split(b"\n")


def test_a_line_of_100_mb_is_passed_over_in_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "log.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"b": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"c": 3}\n')
    tracemalloc.start()
    assert told(path) == [{"a": 1}, "the line is longer than 16 MB", {"c": 3}]
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gzip"])
def test_encodings_and_packed_files_are_read(tmp_path: Path, mark: str) -> None:
    text = '{"a": "ü"}\r\n\r\n{"b": "漢"}\r\n'
    content = (
        codecs.BOM_UTF16_LE + text.encode(mark)
        if mark == "utf-16-le"
        else text.encode("utf-8" if mark == "gzip" else mark)
    )
    path = tmp_path / "log.jsonl"
    path.write_bytes(gzip.compress(content) if mark == "gzip" else content)
    assert told(path) == [{"a": "ü"}, {"b": "漢"}]


def test_a_byte_that_is_not_utf_8_spoils_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": "caf\xe9"}\n{"b": 2}\n')
    assert told(path) == [{"a": "caf\ufffd"}, {"b": 2}]


def test_a_truncated_last_line_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"b": 2, "c": {"d"')
    first, second = told(path)
    assert first == {"a": 1}
    assert "the file ends within this line" in str(second)


@pytest.mark.parametrize("cut", [30, 100, -1])
def test_a_damaged_packed_file_gives_what_comes_before(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress("".join(f'{{"a": {number}}}\n' for number in range(200)).encode())[:cut])
    with files.opened(path) as file, pytest.raises(al.InvalidValue, match="cannot be read to its end"):
        list(files.json_values(file))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk_bytes", [5, 64, 1 << 20])
def test_arrays_and_documents_come_value_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, chunk_bytes: int
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", chunk_bytes)
    rows = [{"a": number, "b": {"c": [1, "]", "ü"]}} for number in range(30)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert told(path) == rows
    path.write_text(json.dumps(rows[0], indent=indent), encoding="utf-8-sig")
    assert told(path) == [rows[0]]
    path.write_text("\n".join(json.dumps(row, indent=indent) for row in rows))
    assert told(path) == rows


@pytest.mark.parametrize("content", ["", "\n\n", "  ", "\ufeff"])
def test_an_empty_file_has_no_values(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content, encoding="utf-8")
    assert told(path) == []


def test_a_cut_array_gives_what_comes_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, {"a": 2}, {"a":')
    *whole, last = told(path)
    assert whole == [{"a": 1}, {"a": 2}]
    assert "not valid JSON" in str(last)


@pytest.mark.parametrize("content", ["[" * 10_000, "{\n" + '"a":{' * 10_000])
def test_a_document_nested_too_deep_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    (reason,) = told(path)
    assert "too deep" in str(reason)


def test_files_of_a_folder_are_found_by_their_endings_and_sorted(tmp_path: Path) -> None:
    for name in ("b/two.jsonl", "a/one.jsonl.gz", "a/notes.txt", "three.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = files.log_files(tmp_path, endings=[".jsonl"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/one.jsonl.gz", "b/two.jsonl", "three.jsonl"]
    assert files.log_files([tmp_path / "three.jsonl", tmp_path], endings=[".jsonl"])[0] == tmp_path / "three.jsonl"
    assert len(files.log_files([tmp_path / "three.jsonl", tmp_path], endings=[".jsonl"])) == 3
    with pytest.raises(al.NotFound, match="nowhere"):
        files.log_files(tmp_path / "nowhere", endings=[".jsonl"])
