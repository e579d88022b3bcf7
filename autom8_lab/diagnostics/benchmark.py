"""The benchmark: what a lab reaches on this machine, each figure measured in turns with its bare alternative."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, ModelUnavailable, did_you_mean
from ..frames import frame
from ..indexing import progress_bar
from ..validation import integer_value, names_value, positive_integer
from .workbench import new_folder

if TYPE_CHECKING:
    import pandas as pd

    from ..embedding import Encoder
    from .figures.material import Bench, Sizes
    from .figures.rounds import Row

PARTS = ("encode", "store", "read", "search", "large", "connections", "start")
LIBRARIES = ("sqlite-utils", "sqlite-vec", "usearch", "numpy", "pandas", "onnxruntime", "tokenizers")


def benchmark(
    size: str = "standard",
    *,
    parts: str | Sequence[str] | None = None,
    seed: int = 0,
    encoder: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **numbers: Any,
) -> pd.DataFrame:
    """Measure how fast a lab works on this machine, and return a row per figure.

    It works in files of its own, made in `folder` (default: the system's temporary one) and removed at the end; no
    lab of yours is opened, and settings are the defaults. `size` is "quick" (half a minute), "standard" (minutes) or
    "full" (100,000 vectors); `numbers` replace the size's own: contexts (of the lab that is read and searched), batch
    (texts stored at once), vectors, connections (numbers of processes at one file), operations (of all processes in
    a round), calls (in a round), repeats (rounds). `parts` are some of "encode", "store", "read", "search", "large",
    "connections", "start". `encoder` is the model that encodes queries (default: the configured one where it can be
    loaded, else "hash"); documents get vectors that cost nothing, except where a row says "encoded".

    `figure` is the median over the rounds, with quartiles, in `unit`; `better` says whether "higher" or "lower" is.
    `against` names the bare alternative, measured in turns with it in the same run; `ratio` is the figure over
    `against_figure`. Where a bar is set for these sizes, `bar_on` says of what, and `held` whether it was reached
    with no `errors` and nothing `lost`. `attrs` tells machine, versions, sizes, seed and encoder.

    >>> figures = benchmark("quick", parts="read", contexts=50, calls=5, repeats=1, encoder="hash")
    >>> figures[["what", "unit", "against"]].values.tolist()
    [['get_context', '/s', 'SELECT by id']]
    """
    from .figures.material import Bench
    from .figures.rounds import COLUMNS

    sizes, chosen = _sizes(size, numbers), _parts(parts)
    if not 0 <= integer_value(seed, "seed") < 2**31:
        raise InvalidValue(f"seed={seed}: give a whole number from 0 to {2**31 - 1}")
    using, reason, settings = _encoder(encoder)
    is_model, started = not using.name.startswith("hash-"), time.perf_counter()
    rows: list[Row] = []
    shown = progress if progress is not None else "ipykernel" in sys.modules or sys.stderr.isatty()
    with new_folder("autom8_lab-benchmark-", folder) as place:
        with progress_bar(len(chosen), "parts", shown) as bar:
            for name in chosen:
                # Each part in a folder of its own, removed at once: the disk holds one at a time.
                with tempfile.TemporaryDirectory(dir=place) as own:
                    rows += _measured(name, Bench(Path(own), sizes, seed, using, is_model, settings=settings))
                bar.update(1)
    attrs = {
        "machine": machine(),
        "sizes": asdict(sizes),
        "seed": seed,
        "encoder": using.model_id,
        "encoder_reason": reason,
        "seconds": round(time.perf_counter() - started, 1),
    }
    return frame(rows, COLUMNS, attrs=attrs)


def _measured(name: str, bench: Bench) -> list[Row]:
    from .figures import encoding, large, processes, searching, storing
    from .figures.bars import judged

    parts: dict[str, Callable[[Bench], Iterator[Row]]] = {
        "encode": encoding.encode_figures,
        "store": storing.store_figures,
        "read": storing.read_figures,
        "search": searching.search_figures,
        "large": large.large_figures,
        "connections": processes.connection_figures,
        "start": processes.start_figures,
    }
    return [judged(row, asdict(bench.sizes), is_model=bench.is_model) for row in parts[name](bench)]


def _sizes(name: str, numbers: Mapping[str, Any]) -> Sizes:
    from .figures.material import SIZES

    if name not in SIZES:
        raise InvalidValue(f"size={name!r}{did_you_mean(str(name), SIZES)}; there are {', '.join(SIZES)}")
    checked: dict[str, Any] = {}
    for key, value in numbers.items():
        if key not in asdict(SIZES[name]):
            raise InvalidValue(f"no number {key!r}{did_you_mean(key, asdict(SIZES[name]))}")
        if key != "connections":
            checked[key] = positive_integer(value, key, at_most=10_000_000)
        elif isinstance(value, int | str) or not list(value):
            raise InvalidValue(f"connections={value!r}: give numbers of processes, such as (1, 4, 20)")
        else:
            checked[key] = tuple(positive_integer(count, key, at_most=1_000) for count in value)
    return replace(SIZES[name], **checked)


def _parts(given: str | Sequence[str] | None) -> list[str]:
    names = list(PARTS) if given is None else names_value(given, "parts")
    for name in names:
        if name not in PARTS:
            raise InvalidValue(f"no part {name!r}{did_you_mean(str(name), PARTS)}; there are {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def _encoder(name: str | None) -> tuple[Encoder, str, dict[str, Any]]:
    """Return the encoder of queries, why that one, and the settings that a lab needs to load it."""
    from ..config import LabConfig
    from ..embedding import load_encoder

    config = LabConfig.load()
    how = {"device": config.embedding_device, "backend": config.embedding_backend, "cache_dir": config.cache_dir}
    settings = {f"embedding_{key}" if key != "cache_dir" else key: value for key, value in how.items() if value}
    try:
        encoder = load_encoder(name or config.embedding_model, **how)  # type: ignore[arg-type]
    except ModelUnavailable as exc:
        if name is not None:
            raise
        return load_encoder("hash"), f"hashed words stand in for the model: {exc}", {}
    return encoder, f"{'asked for' if name else 'configured'}; {encoder.backend}: {encoder.backend_reason}", settings


def machine() -> dict[str, Any]:
    """Return what figures depend on: cores, system, Python, SQLite, and the versions of the libraries."""
    from sqlite_utils.utils import sqlite3

    from .. import __version__
    from ..config.advice import this_machine

    versions = {"autom8_lab": __version__}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cores": this_machine(".").cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "versions": versions,
    }


def markdown_table(figures: pd.DataFrame) -> str:
    """Return the frame of `benchmark` as a Markdown table.

    >>> import pandas as pd
    >>> row = {"what": "get_context", "how": None, "figure": 12_345.6, "unit": "/s", "against": "SELECT by id", "ratio": 0.31}
    >>> print(markdown_table(pd.DataFrame([{**row, "bar_on": "figure", "bar": 10_000.0, "held": True}])))
    | what | figure | against | ratio | bar | held |
    |---|---|---|---|---|---|
    | `get_context` | 12,300/s | SELECT by id | 0.31 | at least 10,000/s | yes |
    """
    lines = ["| what | figure | against | ratio | bar | held |", "|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in figures.to_dict("records")]
    return "\n".join(lines)


def _cells(row: dict[Any, Any]) -> Iterable[str]:
    import pandas as pd

    unit, has_ratio, has_bar = row["unit"], not pd.isna(row["ratio"]), not pd.isna(row["bar_on"])
    what = re.sub(r"^(\w+_\w+|search)\b", r"`\1`", row["what"])
    yield what if pd.isna(row["how"]) else f"{what}: {row['how']}"
    yield with_unit(row["figure"], unit)
    yield row["against"] if has_ratio else ""
    yield short(row["ratio"]) if has_ratio else ""
    bar = row["bar"] if has_bar else None
    side = "at least" if unit in ("/s", "recall@10") else "at most"
    yield "" if bar is None else f"{side} {short(bar) if row['bar_on'] == 'ratio' else with_unit(bar, unit)}"
    yield "" if pd.isna(row["held"]) else "yes" if row["held"] else "no"


def short(value: float) -> str:
    """Return a number with three significant digits.

    >>> short(12_345.6), short(0.3051), short(49.96)
    ('12,300', '0.305', '50')
    """
    digits = float(f"{value:.3g}")
    return f"{digits:,.0f}" if abs(digits) >= 100 else f"{digits:.3g}"


def with_unit(value: float, unit: str) -> str:
    """Return a figure with its unit, as in "12,300/s" or "2.5 ms"."""
    return f"{short(value)}{unit}" if unit.startswith("/") else f"{short(value)} {unit}"
