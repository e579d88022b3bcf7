"""A sentence-transformers model exported once: its graph, tokenizer and facts in a folder of the cache."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .model_files import (
    WEIGHT_FILES,
    ModelFiles,
    file_sha256,
    find_model,
    model_id,
    read_json,
    weights_path,
    write_json,
)
from .onnx_encoder import Facts, OnnxEncoder
from .onnx_graph import NotExportable, build_graph

if TYPE_CHECKING:
    from .encoders import Vectors
    from .sentence_transformer import SentenceTransformerEncoder

FORMAT = 1  # of the exported folder; another one is exported anew
GRAPH, WEIGHTS, TOKENIZER, MANIFEST = "model.onnx", "weights.bin", "tokenizer.json", "exported.json"
OWN_GRAPH = Path("onnx", "model.onnx")  # where a model's repository keeps its own
SAME = 0.99999  # the cosine from which on two vectors are the same
LARGEST_PROBE = 1_024  # tokens; a longer text would take minutes with some models
ABANDONED_SECONDS = 3_600
PROBE = "The lighthouse keeper counted 37 ships before the fog came in."
PROBES = [
    PROBE,
    "",
    " ",
    "a",
    "UPPER and lower\n\tcase ",
    "Größe & 東京 🙂 Ελλάδα",
    "e\u0301tude [PAD] <pad> </s>",
    "x" * 40,
]
logger = logging.getLogger(__name__)


def find_exported(name: str, cache: Path, *, gpu_first: bool) -> OnnxEncoder | None:
    """Return the encoder of a model that was exported before, or None; neither torch nor the network is asked.

    With `gpu_first`, None as well where torch found a GPU when the model was exported.
    """
    files = find_model(name, cache=cache)
    return _open(name, files, cache, gpu_first=gpu_first) if files and files.weights_sha256 else None


def export(encoder: SentenceTransformerEncoder, cache: Path, *, gpu_first: bool) -> OnnxEncoder:
    """Export a model and return its encoder, which gives the same vectors.

    The model's own graph serves where its repository ships one. Raises `NotExportable` for a model that does more than
    encode, pool and normalise, and for a graph whose vectors are not torch's; with `gpu_first` also where torch has a
    GPU, on which it is the quicker one for many texts.
    """
    started = time.perf_counter()
    files = encoder.files
    if files is None or files.weights_sha256 is None:
        raise NotExportable(f"no {' or '.join(WEIGHT_FILES)} in the model's folder")
    if gpu_first and _has_gpu():
        raise NotExportable("torch has a GPU here: embedding_device='cpu' chooses onnxruntime")
    facts = facts_of(encoder)
    target = _folder(encoder.name, files, cache)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as temporary:
        _make(encoder, files, facts, Path(temporary), target)
    exported = _open(encoder.name, files, cache, gpu_first=gpu_first)
    if exported is None:
        raise NotExportable(f"the export in {target} cannot be read back")
    logger.info("%s exported for onnxruntime in %.1f s: %s", encoder.name, time.perf_counter() - started, target)
    return exported


def _open(name: str, files: ModelFiles, cache: Path, *, gpu_first: bool) -> OnnxEncoder | None:
    """Return the encoder, or None where the folder is missing, damaged or of another format.

    The files are those that were written, and the graph gives the probe the vector that torch gave it: on another
    processor and with another onnxruntime as well.
    """
    folder = _folder(name, files, cache)
    manifest = read_json(folder / MANIFEST)
    try:
        if manifest is None or (gpu_first and manifest["gpu"]):
            return None
        if not all(_untouched(folder / path, seal) for path, seal in manifest["files"].items()):
            return None
        encoder = _encoder(name, files, folder, manifest["graph"], Facts(**manifest["facts"]))
        probed = encoder.encode_query(PROBE)
        if not similarity(probed[None], np.array([manifest["probe"]], dtype=np.float32)) >= SAME:
            return None
    except Exception as exc:  # whatever a damaged file leads to in the libraries that read it
        logger.info("the exported model in %s cannot be read (%s): it is exported anew", folder, exc)
        return None
    encoder.backend_reason = f"{manifest['origin']}, cosine with torch {manifest['cosine']:.7f}"
    return encoder


def _folder(name: str, files: ModelFiles, cache: Path) -> Path:
    """Return the folder of one model's export: named by its weights, and by all that else decides its vectors."""
    return cache / "onnx" / f"{model_id(Path(name).name, files.weights_sha256)}-{files.facts_sha256[:8]}-{FORMAT}"


def _make(encoder: SentenceTransformerEncoder, files: ModelFiles, facts: Facts, folder: Path, target: Path) -> None:
    from importlib.metadata import version

    weights = weights_path(files.folder)
    assert weights is not None
    _write_tokenizer(encoder, folder, facts)
    expected = _probe_vectors(encoder, facts)
    graph, cosine = _own_or_built(encoder, files, folder, facts, expected)
    made = [path for path in (GRAPH, WEIGHTS, TOKENIZER) if (folder / path).is_file()]
    manifest = {
        "origin": f"exported to {target}" if graph == GRAPH else "the model's own graph",
        "graph": graph,
        "facts": asdict(facts),
        "cosine": cosine,
        "probe": expected[-1].tolist(),
        "gpu": _has_gpu(),
        "files": {path: _seal(folder / path) for path in {*made, graph}},
        "made_by": {name: version(name) for name in ("sentence-transformers", "torch", "onnx", "onnxruntime")},
    }
    write_json(folder / MANIFEST, manifest)
    target.mkdir(exist_ok=True)
    for path in [*made, MANIFEST]:  # each is the old one or the new one at every instant, and the manifest comes last
        shutil.copymode(weights, folder / path)  # who may read the weights may read what was made of them
        (folder / path).replace(target / path)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def facts_of(encoder: SentenceTransformerEncoder) -> Facts:
    """Return what a model does around its graph. Raises `NotExportable` where that is more than we can do."""
    model = encoder.model
    kinds = [type(module).__name__ for module in model]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise NotExportable(f"its modules are {', '.join(kinds)}, not Transformer, Pooling and Normalize")
    pooling = model[1]
    mode = getattr(pooling, "pooling_mode", None) or pooling.get_pooling_mode_str()
    if mode not in ("mean", "cls"):
        raise NotExportable(f"its pooling is {mode!r}, not mean or cls")
    tokenizer = encoder.tokenizer
    if tokenizer is None or model.tokenizer.padding_side != "right" or model.tokenizer.truncation_side != "right":
        raise NotExportable("its tokenizer is not one of the library tokenizers that pads and cuts off at the end")
    if not model.max_seq_length:
        raise NotExportable("it sets no longest text")
    prompts = model.prompts
    return Facts(
        dimensions=encoder.dimensions,
        longest=int(model.max_seq_length),
        special_tokens=int(model.max_seq_length) - encoder.max_tokens,
        pad_id=int(model.tokenizer.pad_token_id),
        pooling=mode,
        normalize=len(kinds) == 3,
        # As encode_query and encode_document choose them.
        query_prompt=prompts.get("query", ""),
        document_prompt=next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), ""),
    )


def _own_or_built(
    encoder: SentenceTransformerEncoder, files: ModelFiles, folder: Path, facts: Facts, expected: Vectors
) -> tuple[str, float]:
    """Return the graph that serves, as a path from the exported folder, and its least cosine with torch's vectors."""

    def verified(graph: str) -> float:
        found = _probe_vectors(_encoder(encoder.name, files, folder, graph, facts), facts)
        cosine = similarity(found, expected)
        if not cosine >= SAME:
            raise NotExportable(f"the graph's vectors are not torch's: cosine {cosine:.6f}, {SAME} is asked for")
        return cosine

    own = files.folder / OWN_GRAPH
    if own.is_file() and not list(own.parent.glob("model.onnx?data*")):
        try:
            return str(own), verified(str(own))
        except Exception as exc:  # a repository's graph may be anything: of another precision, or for another runtime
            logger.info("%s is not used: %s", own, exc)
    _write_graph(encoder, folder)
    return GRAPH, verified(GRAPH)


def _write_tokenizer(encoder: SentenceTransformerEncoder, folder: Path, facts: Facts) -> None:
    from tokenizers import Tokenizer

    assert encoder.tokenizer is not None
    copy = Tokenizer.from_str(encoder.tokenizer.to_str())
    copy.enable_truncation(facts.longest)
    (folder / TOKENIZER).write_text(copy.to_str(), encoding="utf-8")


def _write_graph(encoder: SentenceTransformerEncoder, folder: Path) -> None:
    import onnx

    transformer = encoder.model[0].auto_model
    weights = {name: value.detach().float().cpu().numpy() for name, value in transformer.state_dict().items()}
    # Weights in a file of their own are mapped into memory and shared by processes, and open in a third of the time.
    onnx.save_model(
        build_graph(transformer.config, weights),
        str(folder / GRAPH),
        save_as_external_data=True,
        location=WEIGHTS,
        size_threshold=1_024,
    )


def _probe_vectors(encoder: SentenceTransformerEncoder | OnnxEncoder, facts: Facts) -> Vectors:
    """Return the vectors of the probes and of one text that is too long, last that of `PROBE` as a query."""
    long = " ".join(f"word {number}" for number in range(min(facts.longest, LARGEST_PROBE)))
    queries = [encoder.encode_query(text) for text in (long, PROBE)]
    return np.stack([*encoder.encode_documents(PROBES), *encoder.encode_documents([long]), *queries])


def similarity(found: Vectors, expected: Vectors) -> float:
    """Return the least cosine of two sets of vectors, row by row; below 1 too where the lengths differ, or NaN is in."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return -1.0
    one, other = found.astype(np.float64), expected.astype(np.float64)
    longer = np.maximum(np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1))
    return float((np.einsum("ij,ij->i", one, other) / np.maximum(longer, 1e-12) ** 2).min())


def _encoder(name: str, files: ModelFiles, folder: Path, graph: str, facts: Facts) -> OnnxEncoder:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    identity = model_id(name, files.weights_sha256)
    return OnnxEncoder(name, identity, graph=folder / graph, tokenizer=tokenizer, facts=facts)


def _seal(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": file_sha256(path)}


def _untouched(path: Path, seal: dict[str, Any]) -> bool:
    """Tell whether a file is what was sealed: by size and time, by its digest where a copy has another time."""
    stat = path.stat()
    if stat.st_size != seal["bytes"]:
        return False
    return bool(stat.st_mtime_ns == seal["mtime_ns"] or file_sha256(path) == seal["sha256"])


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(".making-*"):  # of a process that was ended while it exported
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
