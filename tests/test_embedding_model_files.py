"""Models are found on this disk, and their digests are computed again only when a file has changed."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

import autom8_lab as al
from autom8_lab.embedding import model_files
from autom8_lab.embedding.model_files import ModelFiles, cache_folder, find_model, read_json, write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model's."""
    made = tmp_path / "model"
    (made / "1_Pooling").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "config.json").write_text("{}", encoding="utf-8")
    (made / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def files_of(folder: Path, cache: Path) -> ModelFiles:
    files = find_model(str(folder), cache=cache)
    assert files is not None
    return files


def test_the_digest_is_that_of_the_weights(folder: Path, cache: Path) -> None:
    expected = hashlib.sha256(b"weights").hexdigest()
    assert files_of(folder, cache) == files_of(folder, cache)
    assert files_of(folder, cache).weights_sha256 == expected
    assert not files_of(folder, cache).fetched
    (folder / "pytorch_model.bin").write_bytes(b"older weights")
    assert files_of(folder, cache).weights_sha256 == expected


def test_a_folder_without_weights_has_no_digest(folder: Path, cache: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert files_of(folder, cache).weights_sha256 is None


def test_digests_are_remembered(folder: Path, cache: Path) -> None:
    before = files_of(folder, cache)
    (memory,) = (cache / "models").iterdir()
    known = json.loads(memory.read_text(encoding="utf-8"))
    memory.write_text(json.dumps(known | {"weights_sha256": "as remembered"}), encoding="utf-8")
    assert files_of(folder, cache).weights_sha256 == "as remembered"
    memory.write_text("{", encoding="utf-8")
    assert files_of(folder, cache) == before
    assert json.loads(memory.read_text(encoding="utf-8")) == known


def test_changed_weights_are_noticed_though_size_and_time_are_as_before(folder: Path, cache: Path) -> None:
    before = files_of(folder, cache)
    weights = folder / "model.safetensors"
    stat = weights.stat()
    time.sleep(0.02)  # of a file system's clock
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert weights.stat().st_mtime_ns == stat.st_mtime_ns
    assert files_of(folder, cache).weights_sha256 == hashlib.sha256(b"WEIGHTS").hexdigest() != before.weights_sha256


@pytest.mark.parametrize("name", ["config.json", "1_Pooling/config.json", "vocab.txt", "sentencepiece.bpe.model"])
def test_every_setting_and_vocabulary_counts(folder: Path, cache: Path, name: str) -> None:
    before = files_of(folder, cache)
    (folder / name).write_text("other", encoding="utf-8")
    changed = files_of(folder, cache)
    assert changed.weights_sha256 == before.weights_sha256
    assert changed.facts_sha256 != before.facts_sha256
    (folder / "README.md").write_text("other", encoding="utf-8")
    assert files_of(folder, cache) == changed


def test_a_cache_that_cannot_be_written_costs_only_time(folder: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be", encoding="utf-8")
    assert files_of(folder, cache).weights_sha256 == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_refused_with_the_remedy(folder: Path, cache: Path) -> None:
    (folder / "model.safetensors").chmod(0)
    with pytest.raises(al.ModelUnavailable, match=r"cannot be read .* check its permissions"):
        find_model(str(folder), cache=cache)


def fetched(root: Path, repository: str, weights: bytes = b"weights") -> Path:
    kept = root / f"models--{repository.replace('/', '--')}"
    snapshot = kept / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc123", encoding="ascii")
    (snapshot / "model.safetensors").write_bytes(weights)
    return snapshot


def test_what_the_hubs_client_has_fetched_is_found_by_name(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "hub"))
    snapshot = fetched(tmp_path / "hub", "sentence-transformers/tiny")
    other = fetched(tmp_path / "hub", "someone/tiny", b"others")
    plain = fetched(tmp_path / "hub", "plain-name")
    found = {name: find_model(name, cache=cache) for name in ("tiny", "someone/tiny", "plain-name", "no-such", "a/b/c")}
    assert {name: files and files.folder for name, files in found.items()} == {
        "tiny": snapshot,
        "someone/tiny": other,
        "plain-name": plain,
        "no-such": None,
        "a/b/c": None,
    }
    assert all(files is None or files.fetched for files in found.values())


def test_a_snapshot_without_weights_has_to_be_fetched(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "hub"))
    snapshot = fetched(tmp_path / "hub", "sentence-transformers/tiny")
    (snapshot / "model.safetensors").unlink()
    assert find_model("tiny", cache=cache) is None


def test_the_name_of_a_model_says_which_weights_it_has() -> None:
    assert model_files.model_id("/models/tiny", "0123456789abcdef") == "tiny@0123456789ab"
    assert model_files.model_id("someone/tiny", "0123456789abcdef") == "tiny@0123456789ab"
    assert model_files.model_id("someone/tiny", None) == "someone/tiny"


def test_the_cache_is_where_the_setting_the_variable_or_the_platform_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOM8_CACHE_DIR", str(tmp_path / "variable"))
    assert cache_folder(str(tmp_path / "setting")) == tmp_path / "setting"
    assert cache_folder() == tmp_path / "variable"
    monkeypatch.delenv("AUTOM8_CACHE_DIR")
    assert cache_folder().name in ("autom8_lab", "Cache")


def test_a_file_of_the_cache_is_never_half_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "value.json"
    values = [{"number": number, "filling": "x" * 20_000} for number in range(8)]
    writers = [
        threading.Thread(target=lambda value=value: [write_json(path, value) for _ in range(20)]) for value in values
    ]
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.append(read_json(path))
    for writer in writers:
        writer.join()
    assert read_json(path) in values
    assert all(value in values for value in seen)
    assert [item.name for item in path.parent.iterdir()] == ["value.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", None])
def test_a_damaged_or_missing_file_of_the_cache_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "value.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) is None
