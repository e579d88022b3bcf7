"""YAML files as plain values: no objects, no surprises, no bombs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidValue

if TYPE_CHECKING:
    import yaml

MAX_FILE_BYTES = 10_000_000
MAX_VALUES = 1_000_000


def plain_yaml(path: Path, *, error: type[InvalidValue] = InvalidValue) -> Any:
    """Return what a YAML file says, as None, bools, numbers, texts, dates, lists and dicts.

    Raises `error` for a file that cannot be read or is no YAML, for tags that would build objects, for keys given
    twice, and for aliases that stand for more than a million values ("billion laughs").
    """
    text = _text(path, error)
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, path, error, {})
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as exc:
        if isinstance(exc, InvalidValue):
            raise
        raise error(f"{path} is not valid YAML: {exc}") from exc
    except RecursionError as exc:
        raise error(f"{path} is not valid YAML: it is nested too deep") from exc
    finally:
        if loader is not None:
            loader.dispose()


def _text(path: Path, error: type[InvalidValue]) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise error(f"{path} has more than {MAX_FILE_BYTES:,} bytes: give a smaller file")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise error(f"{path} is not valid YAML: {exc}") from exc
    except OSError as exc:
        raise error(f"{path} cannot be read ({exc.strerror}): check the path") from exc


def _count(node: yaml.Node, path: Path, error: type[InvalidValue], counts: dict[int, int]) -> int:
    """Return how many values a node stands for, aliases written out."""
    if id(node) not in counts:
        counts[id(node)] = MAX_VALUES + 1  # what an alias to a collection inside itself comes to
        pairs = [item for item in node.value if isinstance(item, tuple)] if isinstance(node.value, list) else []
        keys = set()
        for key, _ in pairs:
            if isinstance(key.value, str) and (key.tag, key.value) in keys:
                raise error(f"{path}: {key.value!r} is given twice (line {key.start_mark.line + 1}): keep one of them")
            keys.add((key.tag, key.value) if isinstance(key.value, str) else id(key))
        children = [part for pair in pairs for part in pair] or (node.value if isinstance(node.value, list) else [])
        counts[id(node)] = 1 + sum(_count(child, path, error, counts) for child in children)
    if counts[id(node)] > MAX_VALUES:
        raise error(f"{path}: its aliases stand for more than {MAX_VALUES:,} values: write plain values")
    return counts[id(node)]
