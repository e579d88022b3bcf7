"""Models run by onnxruntime: the vectors of sentence-transformers, from a folder that is exported once."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from other_process import run_python
from tiny_models import LENGTH, as_fetched, edit_json, tiny_model

import autom8_lab as al
from autom8_lab.embedding import encoders, load_encoder
from autom8_lab.embedding.chunking import count_tokens
from autom8_lab.embedding.model_files import OFFLINE_MODEL, find_model, offline_model_path
from autom8_lab.embedding.onnx_encoder import BATCH_TOKENS, OnnxEncoder, batches_by_length, usable_cores
from autom8_lab.embedding.onnx_export import SAME, export, find_exported, similarity
from autom8_lab.embedding.sentence_transformer import SentenceTransformerEncoder

TEXTS = [
    "",
    " ",
    "the lighthouse keeper counted a ship before the fog came in",
    "UPPER Größe <pad> </s> \n\t 東京 🙂 e\u0301",
    "harbour crane " * LENGTH,
    "a",
    "counted ship s " * 4,
    "the",
] * 3


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_loaded", {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the BERT family; do not change it."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy of the model that may be changed."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def afresh(folder: Path | str, cache: str, **options: Any) -> encoders.LoadedEncoder:
    """Load a model as another process would."""
    encoders._loaded.clear()
    return load_encoder(str(folder), cache_dir=cache, **options)


def exported_folder(cache: str) -> Path:
    (folder,) = Path(cache, "onnx").iterdir()
    return folder


def assert_same(one: Any, other: Any, texts: list[str] = TEXTS) -> None:
    assert similarity(one.encode_documents(texts), other.encode_documents(texts)) >= SAME
    for text in texts[:8]:
        assert similarity(one.encode_query(text)[None], other.encode_query(text)[None]) >= SAME
        assert one.encode_query(text).shape == (one.dimensions,)


# The same vectors


@pytest.mark.parametrize(
    "options",
    [
        {"family": "Roberta"},
        {"family": "MPNet", "normalize": False},
        {"family": "DistilBert", "pooling": "cls"},
        {"family": "Bert", "lower": True, "length": 16},
        {"family": "Bert", "prompts": {"query": "the red ", "passage": "a crane ", "other": "x "}},
        {"family": "Bert", "prompts": {"query": "the red ", "document": "was ", "corpus": "no "}, "pooling": "cls"},
        {"family": "Bert", "prompts": {"x": "large word "}, "default_prompt_name": "x"},
    ],
    ids=lambda options: "-".join(options),
)
def test_vectors_are_those_of_sentence_transformers(tmp_path: Path, cache: str, options: dict[str, Any]) -> None:
    folder = tiny_model(tmp_path / "tiny", **options)
    ours, theirs = afresh(folder, cache, backend="onnx"), load_encoder(str(folder), backend="torch", cache_dir=cache)
    assert isinstance(ours, OnnxEncoder)
    assert isinstance(theirs, SentenceTransformerEncoder)
    assert (ours.model_id, ours.name) == (theirs.model_id, theirs.name)
    assert (ours.dimensions, ours.max_tokens) == (theirs.dimensions, theirs.max_tokens)
    assert count_tokens(TEXTS, ours) == count_tokens(TEXTS, theirs)
    assert_same(ours, theirs)
    vectors = theirs.encode_documents(["a ship", "the fog"])
    assert similarity(vectors[:1], vectors[1:]) < 0.99  # such weights tell texts apart, or this would show nothing


@pytest.fixture(scope="module")
def real_pair() -> tuple[Any, Any]:
    if offline_model_path() is None:
        pytest.skip("needs the extra offline-model")
    return load_encoder(OFFLINE_MODEL, backend="onnx"), load_encoder(OFFLINE_MODEL, backend="torch")


@settings(derandomize=True, deadline=None, max_examples=15, database=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=4))
def test_the_real_models_vectors_are_the_same_for_any_text(real_pair: tuple[Any, Any], texts: list[str]) -> None:
    ours, theirs = real_pair
    assert similarity(ours.encode_documents(texts), theirs.encode_documents(texts)) >= SAME
    assert similarity(ours.encode_query(texts[0])[None], theirs.encode_query(texts[0])[None]) >= SAME


def test_the_real_models_vectors_are_the_same_on_real_texts(real_pair: tuple[Any, Any], shared_data: Path) -> None:
    ours, theirs = real_pair
    lines = (shared_data / "scifact" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    texts = [json.loads(line)["text"][: 200 * (number % 12)] for number, line in enumerate(lines)]
    assert similarity(ours.encode_documents(texts), theirs.encode_documents(texts)) >= SAME


def test_half_a_character_is_refused_as_torch_refuses_it(real_pair: tuple[Any, Any]) -> None:
    errors = []
    for encoder in real_pair:
        with pytest.raises((TypeError, UnicodeEncodeError, ValueError)) as caught:
            encoder.encode_query("\ud800")
        errors.append(type(caught.value))
    assert len(errors) == 2


def test_no_texts_give_no_rows_and_the_right_width(made: Path, cache: str) -> None:
    vectors = afresh(made, cache).encode_documents([])
    assert (vectors.shape, vectors.dtype) == ((0, 32), np.float32)


# Batches


@settings(derandomize=True, deadline=None, database=None)
@given(lengths=st.lists(st.integers(2, 700), max_size=300))
def test_batches_hold_every_text_once_and_waste_little(lengths: list[int]) -> None:
    batches = list(batches_by_length(lengths))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[place] for place in batch)
        assert padded <= BATCH_TOKENS or len(batch) == 1
    longest = [max(lengths[place] for place in batch) for batch in batches]
    shortest = [min(lengths[place] for place in batch) for batch in batches]
    assert all(one >= other for one, other in zip(shortest, longest[1:], strict=False))


def test_a_text_has_the_same_vector_in_any_company(made: Path, cache: str) -> None:
    encoder = afresh(made, cache)
    many = [" ".join(["ship", "fog", "crane"][: number % 4] + ["the"] * (number % 19)) for number in range(300)]
    together = encoder.encode_documents(many)
    alone = np.concatenate([encoder.encode_documents([text]) for text in many])
    np.testing.assert_allclose(together, alone, atol=1e-5)


# Which runs a model, and why


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"family": "Electra"}, "model type 'electra' is not one of bert, roberta"),
        ({"pooling": "max"}, "its pooling is 'max', not mean or cls"),
        ({"pooling": ("mean", "cls")}, "its pooling is ('mean', 'cls'), not mean or cls"),
        ({"dense": True}, "its modules are Transformer, Pooling, Dense, Normalize, not"),
        ({"hidden_act": "silu"}, "activation 'silu' is not one of gelu"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_another_kind_of_model_runs_on_torch_and_says_why(
    tmp_path: Path, cache: str, options: dict[str, Any], reason: str
) -> None:
    folder = tiny_model(tmp_path / "tiny", **options)
    encoder = afresh(folder, cache)
    assert isinstance(encoder, SentenceTransformerEncoder)
    assert encoder.backend == "torch"
    assert reason in encoder.backend_reason
    assert encoder.encode_documents(["a ship"]).shape == (1, encoder.dimensions)
    with pytest.raises(al.ModelUnavailable) as caught:
        afresh(folder, cache, backend="onnx")
    assert reason in str(caught.value)
    assert "embedding_backend='auto'" in str(caught.value)
    assert not list(Path(cache).rglob("*.bin"))


def test_torch_and_a_device_can_be_asked_for(made: Path, cache: str) -> None:
    assert afresh(made, cache).backend == "onnx"
    assert afresh(made, cache, device="cpu").backend == "onnx"
    asked = afresh(made, cache, backend="torch")
    assert (asked.backend, asked.backend_reason) == ("torch", "embedding_backend='torch'")
    other = afresh(made, cache, device="cpu:0")
    assert (other.backend, other.backend_reason) == ("torch", "embedding_device='cpu:0'")
    with pytest.raises(al.ModelUnavailable, match="embedding_device='cpu:0'"):
        afresh(made, cache, device="cpu:0", backend="onnx")


def test_where_torch_has_a_gpu_it_runs_the_model_unless_the_cpu_is_asked_for(made: Path, cache: str) -> None:
    assert afresh(made, cache).backend == "onnx"
    edit_json(exported_folder(cache) / "exported.json", gpu=True)
    files = Path(cache)
    assert find_exported(str(made), files, gpu_first=True) is None
    assert find_exported(str(made), files, gpu_first=False) is not None
    assert afresh(made, cache, device="cpu").backend == "onnx"
    assert afresh(made, cache, backend="onnx").backend == "onnx"


def test_a_model_without_safe_weights_in_its_folder_runs_on_torch(made: Path, model: Path, cache: str) -> None:
    import safetensors.torch
    import torch

    weights = model / "model.safetensors"
    state = safetensors.torch.load_file(weights)
    weights.unlink()
    for number, names in enumerate((list(state)[:5], list(state)[5:]), start=1):
        safetensors.torch.save_file(
            {name: state[name] for name in names}, model / f"model-{number}.safetensors", metadata={"format": "pt"}
        )
    index = {name: f"model-{1 if name in list(state)[:5] else 2}.safetensors" for name in state}
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": index}), encoding="utf-8"
    )
    in_parts = afresh(model, cache)
    assert in_parts.backend_reason == "no model.safetensors or pytorch_model.bin in the model's folder"
    assert_same(in_parts, afresh(made, cache))
    torch.save(state, model / "pytorch_model.bin")
    for path in model.glob("model*.safetensors*"):
        path.unlink()
    assert afresh(model, cache).backend == "onnx"


# The exported folder


def test_a_model_is_exported_once(made: Path, cache: str) -> None:
    first = afresh(made, cache)
    folder = exported_folder(cache)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(before) == {"model.onnx", "weights.bin", "tokenizer.json", "exported.json"}
    assert first.model_id.split("@")[1] in folder.name
    assert str(folder) in first.backend_reason
    again = afresh(made, cache)
    assert again is not first
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert_same(first, again)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "weights-cut": lambda folder: os.truncate(folder / "weights.bin", 1_000),
    "weights-flipped": lambda folder: flip(folder / "weights.bin"),
    "weights-gone": lambda folder: (folder / "weights.bin").unlink(),
    "graph-flipped": lambda folder: flip(folder / "model.onnx"),
    "graph-empty": lambda folder: os.truncate(folder / "model.onnx", 0),
    "tokenizer-cut": lambda folder: os.truncate(folder / "tokenizer.json", 50),
    "manifest-cut": lambda folder: os.truncate(folder / "exported.json", 50),
    "manifest-of-others": lambda folder: (folder / "exported.json").write_text('{"files": {}}', encoding="utf-8"),
    "facts-changed": lambda folder: edit_json(folder / "exported.json", facts={"pooling": "cls"}),
    "another-probe": lambda folder: edit_json(folder / "exported.json", probe=[1.0] * 32),
    "folder-empty": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_made_anew(made: Path, cache: str, damage: str) -> None:
    good = afresh(made, cache)
    other = shutil.copytree(cache, f"{cache}-damaged")  # the good one's files are mapped into memory
    folder = exported_folder(other)
    expected = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "exported.json"}
    assert find_exported(str(made), Path(other), gpu_first=True) is not None
    DAMAGES[damage](folder)
    assert find_exported(str(made), Path(other), gpu_first=True) is None
    again = afresh(made, other)
    assert again.backend == "onnx"
    assert_same(good, again)
    assert find_exported(str(made), Path(other), gpu_first=True) is not None
    assert {name: (folder / name).read_bytes() for name in expected} == expected


def test_an_export_is_hashed_only_where_its_times_are_not_those_it_was_made_with(made: Path, cache: str) -> None:
    afresh(made, cache)
    encoders._loaded.clear()
    weights = exported_folder(cache) / "weights.bin"
    made_at = weights.stat().st_mtime_ns
    data = bytearray(weights.read_bytes())
    data[0] ^= 1  # the last bit of one weight, which no vector shows
    weights.unlink()
    weights.write_bytes(data)
    assert find_exported(str(made), Path(cache), gpu_first=True) is None
    os.utime(weights, ns=(made_at, made_at))
    assert find_exported(str(made), Path(cache), gpu_first=True) is not None


def test_an_export_that_was_copied_serves(made: Path, cache: str, tmp_path: Path) -> None:
    good = afresh(made, cache)
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy, copy_function=shutil.copyfile)  # with new times
    found = find_exported(str(made), copy, gpu_first=True)
    assert found is not None
    assert_same(good, found)


@pytest.mark.parametrize("place", ["", "onnx"])
def test_a_cache_that_cannot_be_written_leaves_the_model_to_torch(made: Path, tmp_path: Path, place: str) -> None:
    cache = tmp_path / "cache"
    (cache / place).parent.mkdir(exist_ok=True)
    (cache / place).write_text("a file where the folder should be", encoding="utf-8")
    encoder = afresh(made, str(cache))
    assert encoder.backend == "torch"
    assert str(cache) in encoder.backend_reason
    assert encoder.encode_query("a ship").shape == (32,)


def test_changed_weights_and_changed_settings_get_an_export_of_their_own(
    made: Path, model: Path, tmp_path: Path, cache: str
) -> None:
    first = afresh(model, cache)
    edit_json(model / "1_Pooling" / "config.json", pooling_mode="cls")
    pooled = afresh(model, cache)
    shutil.copy(tiny_model(tmp_path / "other", seed=8) / "model.safetensors", model / "model.safetensors")
    reweighted = afresh(model, cache)
    assert first.model_id == pooled.model_id != reweighted.model_id
    assert len(list(Path(cache, "onnx").iterdir())) == 3
    for encoder in (first, pooled, reweighted):
        assert encoder.backend == "onnx"
    assert similarity(first.encode_documents(TEXTS), pooled.encode_documents(TEXTS)) < SAME
    assert_same(pooled, tiny_pooled(made, tmp_path))


def tiny_pooled(made: Path, tmp_path: Path) -> Any:
    folder = Path(shutil.copytree(made, tmp_path / "pooled"))
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    return load_encoder(str(folder), backend="torch", cache_dir=str(tmp_path / "cache"))


def test_who_may_not_read_the_weights_may_not_read_the_export(model: Path, cache: str) -> None:
    (model / "model.safetensors").chmod(0o600)
    afresh(model, cache)
    assert {path.stat().st_mode & 0o777 for path in exported_folder(cache).iterdir()} == {0o600}


def test_several_at_once_export_one_model(made: Path, cache: str) -> None:
    place = Path(cache)
    torch_encoders = [SentenceTransformerEncoder(str(made), cache=place) for _ in range(4)]
    start = threading.Barrier(4)

    def work(encoder: SentenceTransformerEncoder) -> OnnxEncoder:
        start.wait()
        return export(encoder, place, gpu_first=False)

    with ThreadPoolExecutor(4) as threads:
        exported = list(threads.map(work, torch_encoders))
    for encoder in exported:
        assert_same(encoder, torch_encoders[0])
    assert [path.name for path in place.joinpath("onnx").iterdir()] == [exported_folder(cache).name]
    assert find_exported(str(made), place, gpu_first=True) is not None


def test_what_an_export_that_was_ended_left_behind_goes_with_the_next(made: Path, cache: str) -> None:
    old, young = (Path(cache, "onnx", f".making-{name}") for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(b"half")
    os.utime(old, (1, 1))
    afresh(made, cache)
    assert not old.exists()
    assert young.exists()


# A model that ships its own graph


def ship(model: Path, cache: str) -> Path:
    """Put the model's graph where a repository keeps it, in one file."""
    import onnx

    afresh(model, cache)
    graph = onnx.load(exported_folder(cache) / "model.onnx")
    shutil.rmtree(cache)
    (model / "onnx").mkdir()
    onnx.save_model(graph, str(model / "onnx" / "model.onnx"))
    return model / "onnx" / "model.onnx"


def test_a_models_own_graph_serves_and_nothing_is_built(model: Path, cache: str) -> None:
    own = ship(model, cache)
    encoder = afresh(model, cache)
    assert encoder.backend_reason.startswith("the model's own graph, cosine with torch ")
    assert {path.name for path in exported_folder(cache).iterdir()} == {"tokenizer.json", "exported.json"}
    assert_same(encoder, afresh(model, cache, backend="torch"))
    assert afresh(model, cache).backend_reason == encoder.backend_reason
    own.unlink()
    assert afresh(model, cache).backend_reason.startswith("exported to")


def test_a_models_own_graph_with_other_vectors_is_not_used(model: Path, cache: str, tmp_path: Path) -> None:
    own = ship(model, cache)
    other = tiny_model(tmp_path / "other", seed=8)
    shutil.copy(ship(other, cache), own)
    encoder = afresh(model, cache)
    assert encoder.backend_reason.startswith("exported to")
    assert_same(encoder, afresh(model, cache, backend="torch"))
    own.write_bytes(b"no graph at all")
    shutil.rmtree(cache)
    assert afresh(model, cache).backend_reason.startswith("exported to")


def test_its_own_graph_makes_a_model_of_another_family_run(tmp_path: Path, cache: str) -> None:
    folder = tiny_model(tmp_path / "tiny", "Electra")
    assert afresh(folder, cache).backend == "torch"
    twin = Path(shutil.copytree(folder, tmp_path / "twin"))
    edit_json(twin / "config.json", model_type="bert", architectures=["BertModel"])
    (folder / "onnx").mkdir()
    shutil.copy(ship(twin, cache), folder / "onnx" / "model.onnx")
    encoder = afresh(folder, cache)
    assert encoder.backend_reason.startswith("the model's own graph")
    assert_same(encoder, afresh(folder, cache, backend="torch"))


# The hub's cache


def test_a_fetched_model_is_run_from_the_hubs_cache(
    made: Path, model: Path, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "hub"))
    as_fetched(model, tmp_path / "hub", "sentence-transformers/tiny-model")
    ours = afresh("tiny-model", cache)
    assert ours.backend == "onnx"
    theirs = afresh("sentence-transformers/tiny-model", cache, backend="torch")
    local = afresh(made, cache)
    assert ours.model_id == theirs.model_id == local.model_id.replace("tiny@", "tiny-model@")
    assert_same(ours, local)
    assert_same(ours, theirs)


# One model for a whole process, its threads and its forks


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("50000 100000\n", 1), ("100000 100000\n", 1), ("max 100000\n", None), ("", None), (None, None)],
)
def test_no_more_threads_than_the_container_may_keep_busy(tmp_path: Path, quota: str | None, cores: int | None) -> None:
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(quota, encoding="ascii")
    everything = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_cores(path) == (cores or everything)


def test_threads_share_one_session(made: Path, cache: str) -> None:
    encoder = afresh(made, cache)
    expected = encoder.encode_documents(TEXTS)
    queries = [encoder.encode_query(text) for text in TEXTS]

    def work(number: int) -> bool:
        place = number % len(TEXTS)
        return bool(
            np.array_equal(encoder.encode_documents(TEXTS), expected)
            and np.array_equal(encoder.encode_query(TEXTS[place]), queries[place])
            and count_tokens([TEXTS[4]], encoder) == [2 * LENGTH]
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(64)))


FORKED = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from autom8_lab.embedding import load_encoder
encoder = load_encoder(sys.argv[1], cache_dir=sys.argv[2])
texts = ["the harbour crane"] * 40
before = encoder.encode_documents(texts)
child = os.fork()
if child == 0:
    same = (encoder.encode_documents(texts) == before).all() and encoder.encode_query("a").shape == (32,)
    sys.exit(0 if same else 3)  # through all of the interpreter's own endings
status = os.waitpid(child, 0)[1]
print(json.dumps([encoder.backend, status, bool((encoder.encode_documents(texts) == before).all())]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_process_encodes_and_ends(made: Path, cache: str) -> None:
    afresh(made, cache)
    assert run_python(FORKED, made, cache, TOKENIZERS_PARALLELISM="false") == ["onnx", 0, True]


QUIET = """
import json, os, sys
from pathlib import Path
from autom8_lab.embedding import load_encoder
encoder = load_encoder(sys.argv[1], cache_dir=sys.argv[2])
encoder.encode_query("a")
found = [str(path) for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*")]
print(json.dumps([encoder.backend, os.environ["ORT_DISABLE_TELEMETRY"], found]))
"""


def test_onnxruntime_tells_nobody_about_models(made: Path, cache: str, tmp_path: Path) -> None:
    afresh(made, cache)
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home)}
    # It keeps an identifier of the machine and a queue of events in the platform's cache folder.
    assert run_python(QUIET, made, cache, **places) == ["onnx", "1", []]


# In a lab


WITHOUT_TORCH = """
import json, sys
import autom8_lab as al
with al.open(sys.argv[1]) as lab:
    frame = lab.search_df("lifting gear in a gale", method="semantic")
    lab.store_context("Another text.", context_id="another")
    health = lab.health()
    print(json.dumps([frame["context_id"].tolist(), frame["similarity"].tolist(), health["embedding_backend"],
        sorted({"torch", "transformers", "sentence_transformers", "onnx"} & set(sys.modules))]))
"""


def test_a_lab_searches_and_stores_without_importing_torch(tmp_path: Path) -> None:
    if offline_model_path() is None:
        pytest.skip("needs the extra offline-model")
    with al.open(tmp_path / "lab.db") as lab:
        lab.store_context("The harbour crane stops above 14 m/s.", context_id="crane")
        lab.store_context("The tide tables are in the office.", context_id="tides")
        expected = lab.search_df("lifting gear in a gale", method="semantic")
    found, similarities, backend, imported = run_python(WITHOUT_TORCH, tmp_path / "lab.db")
    assert found == expected["context_id"].tolist() == ["crane", "tides"]
    assert similarities == pytest.approx(expected["similarity"].tolist(), abs=1e-6)
    assert backend == "onnx"
    assert imported == []


def test_a_lab_goes_on_with_its_vectors_when_the_backend_changes(made: Path, tmp_path: Path, cache: str) -> None:
    options = {"embedding_model": str(made), "cache_dir": cache}
    with al.open(tmp_path / "lab.db", embedding_backend="torch", **options) as lab:
        lab.store_context("the harbour crane", context_id="crane")
        assert lab.search("crane", method="semantic")[0].similarity is not None
        assert lab.health()["embedding_backend"] == "torch"
        assert lab.health()["embedding_backend_reason"] == "embedding_backend='torch'"
    with al.open(tmp_path / "lab.db", **options) as lab:
        (hit,) = lab.search("the harbour crane", method="semantic")
        assert hit.similarity == pytest.approx(1, abs=1e-5)
        assert lab.health()["embedding_backend"] == "onnx"
        assert cache in lab.health()["embedding_backend_reason"]
        assert lab.stats()["embeddings"] == 1


def test_health_says_what_runs_the_model_once_it_is_known(made: Path, tmp_path: Path, cache: str) -> None:
    with al.open(tmp_path / "lab.db", embedding_model=str(made), cache_dir=cache) as lab:
        before = lab.health()
        assert (before["embedding_backend"], "no text" in before["embedding_backend_reason"]) == (None, True)
    with al.open(":memory:", embedding_model="hash-64") as lab:
        lab.store_context("a text")
        assert lab.health()["embedding_backend"] == "hash"
    with al.open(":memory:", embedding_model="no/such-model") as lab:
        with pytest.warns(al.PendingEmbeddingWarning):
            lab.store_context("a text")
        assert lab.health()["embedding_backend"] is None
        assert "no/such-model" in lab.health()["embedding_backend_reason"]


def test_the_folder_of_the_cache_is_a_setting(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "autom8.yaml").write_text(
        f"database:\n  cache_dir: kept\n  embedding_model: {made}\n  db_path: ':memory:'\n", encoding="utf-8"
    )
    monkeypatch.delenv("AUTOM8_CACHE_DIR")
    with al.open() as lab:
        lab.store_context("a ship")
        assert lab.health()["embedding_backend"] == "onnx"
    assert find_model(str(made), cache=tmp_path / "kept") is not None
    assert exported_folder(str(tmp_path / "kept")).is_dir()
