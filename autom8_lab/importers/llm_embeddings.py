"""The embeddings database of the `llm` command line: its collections as contexts, with the vectors that they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..drafts import draft
from ..embedding.chunking import text_hash
from ..errors import InvalidValue, StorageError, did_you_mean
from ..indexing import Index
from ..records import Chunk
from .llm_logs import opened, total
from .values import instant, mapping

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..storage import Storage
    from ..storage.foreign import ForeignFile
    from ..storing import Storing
    from .jobs import Job
    from .report import ImportReport

SOURCE = "llm-embeddings"
PREFIX = "llm/"  # of the names of its models here
NEEDED = {"collections": ("id", "name", "model"), "embeddings": ("collection_id", "id", "embedding", "content")}
COLUMNS = ("collection_id", "id", "embedding", "content", "metadata", "updated")
BATCH_ROWS = 500


class _Item(NamedTuple):
    row: dict[str, Any]  # the fields of a context
    model: str
    vector: NDArray[Any]


def import_embeddings(
    job: Job,
    path: str | Path | None,
    *,
    collection: str | None,
    index: Index,
    storing: Storing,
    resolve: Callable[[str], str],
) -> ImportReport:
    """Store the texts of collections as contexts and keep their vectors."""
    with opened(path, name="embeddings.db") as file:
        job.report.add("files")
        collections = _collections(file, collection)
        target = _Target(job.storage, index, storing, resolve)
        with job.bar(total(file, ["embeddings"]), "texts") as bar:
            try:
                items = _items(job, file, collections)
                while batch := list(islice(items, BATCH_ROWS)):
                    _store(job, target, batch)
                    bar.update(len(batch))
            except StorageError as exc:
                job.recorder.refuse(exc, file=file.path.name, place="embeddings")
    return job.report


def _collections(file: ForeignFile, wanted: str | None) -> dict[int, dict[str, Any]]:
    found = file.tables()
    for table, columns in NEEDED.items():
        lacking = [name for name in columns if name not in found.get(table, ())]
        if lacking:
            raise InvalidValue(
                f"{file.path} is no embeddings database of llm that can be read ({table} has no {', '.join(lacking)}): "
                "give the path that `llm collections path` prints"
            )
    rows = {row["id"]: row for row in file.rows("collections", NEEDED["collections"])}
    if wanted is None:
        return rows
    names = [row["name"] for row in rows.values()]
    if wanted not in names:
        raise InvalidValue(f"{file.path} has no collection {wanted!r}{did_you_mean(wanted, names)}")
    return {key: row for key, row in rows.items() if row["name"] == wanted}


def _items(job: Job, file: ForeignFile, collections: Mapping[int, Mapping[str, Any]]) -> Iterator[_Item]:
    for row in file.rows("embeddings", COLUMNS):
        collection = collections.get(row["collection_id"])
        if collection is None:
            continue
        job.report.add("read")
        try:
            item = _item(row, collection)
            draft(item.row, now=job.now())  # so that what cannot be a context is listed, and stops nothing
            yield item
        except InvalidValue as exc:
            job.report.refuse(file.path.name, f"{collection['name']} {row['id']}", str(exc))


def _item(row: Mapping[str, Any], collection: Mapping[str, Any]) -> _Item:
    import numpy as np

    from ..vectors.similarity import checked

    content = row["content"]
    if not isinstance(content, str) or not content.strip():
        raise InvalidValue("its text is not in the file (`llm embed --store` keeps it)")
    raw = row["embedding"]
    if not isinstance(raw, bytes) or not raw or len(raw) % 4:
        raise InvalidValue("its vector is no row of 32-bit numbers")
    vector = checked(np.frombuffer(raw, dtype="<f4"), dimensions=len(raw) // 4)[0]
    context = {
        "content": content.replace("\0", " "),
        "context_id": f"llm:{collection['name']}:{row['id']}"[:255],
        "topic": " ".join(str(collection["name"]).split())[:255] or None,
        "source": SOURCE,
        "metadata": {**mapping(row["metadata"]), "collection": collection["name"], "llm_id": row["id"]},
        "created_at": instant(row["updated"], "updated"),
    }
    return _Item(context, f"{PREFIX}{collection['model']}", vector)


@dataclass(frozen=True)
class _Target:
    storage: Storage
    index: Index
    storing: Storing
    resolve: Callable[[str], str]


def _store(job: Job, target: _Target, batch: Sequence[_Item]) -> None:
    for model, dimensions in dict.fromkeys((item.model, len(item.vector)) for item in batch):
        items = [item for item in batch if (item.model, len(item.vector)) == (model, dimensions)]
        if job.report["dry_run"]:
            job.report.add("new", len(items))
            continue
        kept = target.index.set_for(model=model, dimensions=dimensions)
        if kept.dimensions != dimensions:
            for item in items:
                reason = f"its vector has {dimensions} dimensions, the others of {model!r} have {kept.dimensions}"
                job.report.refuse(None, item.row["context_id"], reason)
            continue
        # In a transaction nothing is encoded, as is right where the vectors that serve are there already.
        with target.storage.transaction() if kept.state == "active" else nullcontext():
            rows = [item.row for item in items]
            outcomes = target.storing.store_rows(rows, if_exists="update", batch_size=BATCH_ROWS, progress=False)
            with target.storage.transaction():
                _keep_vectors(job, target, items, outcomes, kept.set_key)


def _keep_vectors(
    job: Job, target: _Target, items: Sequence[_Item], outcomes: Sequence[Mapping[str, Any]], set_key: int
) -> None:
    names = {"stored": "new", "duplicate": "new", "updated": "updated"}
    chunks, vectors = {}, {}
    for item, outcome in zip(items, outcomes, strict=True):
        chunk = Chunk(0, 0, len(item.row["content"]), text_hash(item.row["content"]))
        chunks[target.resolve(outcome["context_id"])] = [chunk]
        vectors[chunk.chunk_hash] = item.vector
        job.report.add(names.get(outcome["outcome"], "already_there"))
    target.storage.put_chunks(chunks, set_key=set_key, vectors=vectors)
