"""The HNSW index beside the database: `<database>-hnsw-…`, derived from the BLOBs and never the only copy of anything."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database

from ..errors import LabError, StorageError
from ..forking import new_lock
from ..records import Metric
from ..vectors.exact import VectorMatrix
from ..vectors.hnsw import EXPANSIONS, HnswIndex
from ..vectors.saved import SavedVectors, VectorsFile
from ..vectors.similarity import Array32, Array64
from .sqlite_chunks import BATCH, Keys, Position, caught_up, current_position, deleted_since, vectors_since

ENOUGH_RECALL = 0.99
RECALL_QUERIES = 200
RECALL_AT = 10
PROBES = 32  # vectors compared with the file's when an index is opened
MERGE_ROWS = 2_000  # new vectors, beside a fiftieth of all, that are compared one by one before they join the graph

FACTS = ("vectors", "recall_at_10", "recall_queries", "expansion", "file_bytes", "seconds")

NO_KEYS, NO_CLOSENESS = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)

Read = Callable[[], AbstractContextManager[Database]]


@dataclass(frozen=True)
class Ready:
    """An index as it was saved, and what has changed since."""

    index: HnswIndex
    saved: SavedVectors
    facts: dict[str, Any]
    built_at: Position
    position: Position
    removed: Keys
    added: VectorMatrix

    @property
    def lag(self) -> int:
        """How many vectors are not in the graph, or should not be."""
        return len(self.added) + len(self.removed)

    @property
    def worth_merging(self) -> bool:
        """Whether enough has changed to build again."""
        return self.lag > MERGE_ROWS + len(self.index) // 50

    def nearest(self, vector: Array32, count: int) -> tuple[Keys, Array64]:
        """Return the attributes of the `count` nearest chunks, shape (5, n), in no order, and their similarities.

        They are the nearest as far as the graph knows, which orders by rounded vectors: whoever is as close as the
        last one but for rounding is there, too.
        """
        # Removed ones stand in the way of others: as many more are asked for as there may be among so many.
        size = count + max(6, count // 4)
        spare = min(len(self.removed), 16 + 2 * size * len(self.removed) // max(len(self.index), 1))
        keys, closeness = self.index.search(vector, min(size + spare, len(self.index)))
        if len(self.removed):
            stays = ~np.isin(keys, self.removed)
            keys, closeness = keys[stays], closeness[stays]
        added, near = self._nearest_added(vector, size)
        together = np.concatenate([closeness, near]) if len(added) else closeness
        if len(together) > count:
            last = np.partition(together, -count)[-count] - self.index.rounding
            keys, added = keys[closeness >= last], added[near >= last]
        rows = self.saved.rows_of(keys)
        attributes, similarities = self.saved.attributes(rows), self.saved.similarity(vector, rows)
        if len(added):
            attributes = np.concatenate([attributes, self.added.attributes(added)], axis=1)
            similarities = np.concatenate([similarities, self.added.similarity(vector, added)])
        return attributes, similarities

    def _nearest_added(self, vector: Array32, count: int) -> tuple[Keys, Array32]:
        """Return the nearest rows of those that are not in the graph yet, and how close they are."""
        if not len(self.added):
            return NO_KEYS, NO_CLOSENESS
        closeness = self.added.closeness(vector)
        best = np.argsort(-closeness)[:count]
        best = best[closeness[best] > -np.inf]
        return best, closeness[best]


class HnswFile:
    """Opens, checks, builds and saves the index of one database file, and keeps it in step.

    The index is described by a JSON file that names it with its SHA-256: a graph that was damaged or belongs to other
    vectors is not used.
    """

    def __init__(self, path: Path, *, metric: Metric) -> None:
        self.metric = metric
        self._path = path
        self._lock = new_lock()
        self._ready: Ready | None = None
        self._looked_for: int | None = None
        self._stopping = threading.Event()
        self._builder: threading.Thread | None = None
        self.problem: str | None = None

    def forget(self) -> None:
        """Look for the index anew, because the database is another one now."""
        with self._lock:
            self._ready = self._looked_for = None

    @property
    def building(self) -> bool:
        """Whether an index is being built in the background."""
        return self._builder is not None and self._builder.is_alive()

    def ready(self, database: Database, now: Position) -> Ready | None:
        """Return the index of a set in step with the file as it is now, or None, with the reason in `problem`."""
        set_key = now.set_key
        with self._lock:
            if self._looked_for != set_key:
                self._ready, self._looked_for = self._opened(database, set_key), set_key
            if self._ready is None:
                return None
            if not self._ready.position.covers(now):
                self._ready = _in_step(database, self._ready, now)
            return self._ready

    def _opened(self, database: Database, set_key: int) -> Ready | None:
        description = self._described()
        if description is None:
            return None
        try:
            position = Position(set_key, description["chunk_key"], description["deletion_key"])
            if description["set_key"] != set_key or description["metric"] != self.metric:
                raise ValueError("it belongs to other vectors")
            for name, digest in (("file", "sha256"), ("vectors_file", "vectors_sha256")):
                with self._path.with_name(description[name]).open("rb") as opened:
                    if hashlib.file_digest(opened, "sha256").hexdigest() != description[digest]:
                        raise ValueError("its content is not what was written")
            index = HnswIndex.opened(self._path.with_name(description["file"]), metric=self.metric)
            index.expansion = int(description["expansion"])
            saved = self._saved_vectors(database, description, position)
            _compare(database, index, saved, position)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as exc:
            self.problem = f"the HNSW index is built again: {exc}"
            return None
        self.problem = None
        return _fresh(database, index, saved, description, position)

    def _saved_vectors(self, database: Database, facts: dict[str, Any], position: Position) -> SavedVectors:
        path, dimensions = self._path.with_name(facts["vectors_file"]), _dimensions(database, position.set_key)
        return SavedVectors(path, rows=int(facts["rows"]), dimensions=dimensions, metric=self.metric)

    def _described(self) -> dict[str, Any] | None:
        try:
            description = json.loads(self._description.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.problem = "there is no HNSW index yet"
            return None
        except (OSError, ValueError) as exc:
            self.problem = f"the HNSW index is built again: {exc}"
            return None
        return description if isinstance(description, dict) else None

    @property
    def _description(self) -> Path:
        return self._path.with_name(f"{self._path.name}-hnsw.json")

    # Building

    def build_in_background(self, read: Read, set_key: int) -> None:
        """Start to build or renew the index in a thread, unless one is at it."""
        with self._lock:
            if self.building or self._stopping.is_set():
                return
            self._builder = threading.Thread(
                target=self._build_quietly, args=(read, set_key), name="autom8_lab-hnsw", daemon=True
            )
            self._builder.start()

    def _build_quietly(self, read: Read, set_key: int) -> None:
        try:
            self.build(read, set_key, threads=1)
        except (LabError, OSError, RuntimeError) as exc:
            # Searches go on without it; health() says why.
            self.problem = f"the HNSW index could not be built: {exc}"

    def build(
        self, read: Read, set_key: int, *, threads: int = 0, progress: Callable[[int], None] = lambda count: None
    ) -> dict[str, Any]:
        """Build the index, or add to it what is new, measure its recall, save it, and return the facts about it."""
        vectors_path = self._temporary("vectors")
        try:
            with VectorsFile(vectors_path) as file:
                return self._built(file, read, set_key, threads=threads, progress=progress)
        except (OSError, RuntimeError) as exc:
            raise StorageError(f"{self._description} cannot be written ({exc}): searches stay exact") from exc
        finally:
            vectors_path.unlink(missing_ok=True)

    def _built(
        self,
        file: VectorsFile,
        read: Read,
        set_key: int,
        *,
        threads: int,
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        started = time.perf_counter()
        with read() as database:
            now = current_position(database, set_key)
            base = self.ready(database, now)
            dimensions = _dimensions(database, set_key)
            judge = _Judge(database, set_key, metric=self.metric, dimensions=dimensions)
        index, after = HnswIndex(dimensions=dimensions, metric=self.metric), 0
        if base is not None and len(base.removed) * 3 < len(base.index):
            index = HnswIndex.opened(self._path.with_name(base.facts["file"]), metric=self.metric, writable=True)
            index.remove(base.removed)
            after = base.built_at.chunk_key
        at = Position(set_key, 0, now.deletion_key)
        while not self._stopping.is_set():
            with read() as database:
                batch = next(vectors_since(database, at, limit=BATCH), None)
            if batch is None:
                break
            attributes, vectors = batch
            judge.see(vectors)
            file.add(attributes, vectors)
            new = attributes[0] > after
            if new.any():
                # In an empty graph, threads may add vectors that no other is linked to, which no search reaches.
                index.add(attributes[0, new], vectors[new], threads=threads if len(index) else 1)
            at = replace(at, chunk_key=int(attributes[0, -1]))
            progress(len(vectors))
        else:
            raise StorageError("the lab was closed while its HNSW index was built: build it when it is open again")
        with read() as database:
            facts = judge.measured(index, database)
        facts |= {
            "rows": file.rows,
            "vectors_sha256": file.finished(),
            "seconds": round(time.perf_counter() - started, 3),
        }
        facts = self._saved(index, file.path, {**facts, "metric": self.metric, **vars(at)})
        with read() as database, self._lock:
            saved = self._saved_vectors(database, facts, at)
            self._ready, self._looked_for = _fresh(database, index, saved, facts, at), set_key
        self.problem = None
        return facts

    def _temporary(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}-hnsw-{os.getpid()}-{threading.get_ident()}-{name}.tmp")

    def _saved(self, index: HnswIndex, vectors_path: Path, facts: dict[str, Any]) -> dict[str, Any]:
        """Put the files of an index in place, its description last, and take those of the one before away."""
        temporary = self._temporary("graph")
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
            index.save(temporary)
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            graph, vectors = (
                self._path.with_name(f"{self._path.name}-hnsw-{name[:12]}")
                for name in (digest, facts["vectors_sha256"])
            )
            size = temporary.stat().st_size + vectors_path.stat().st_size
            names = {"file": graph.name, "vectors_file": vectors.name}
            facts = {**facts, **names, "file_bytes": size, "sha256": digest}
            os.replace(temporary, graph)
            os.replace(vectors_path, vectors)
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
            os.replace(temporary, self._description)
        finally:
            temporary.unlink(missing_ok=True)
        for other in self._path.parent.glob(f"{self._path.name}-hnsw-*[0-9a-f]"):
            if other not in (graph, vectors):
                with suppress(OSError):  # another process may still have it mapped
                    other.unlink()
        return facts

    def close(self) -> None:
        """Stop building and let go of the index."""
        self._stopping.set()
        if self._builder is not None:
            self._builder.join()
        self._ready = None


class _Judge:
    """Finds the true nearest of some queries while the vectors pass by, and holds an index against them.

    The queries are stored vectors with noise of half their length: near to texts, but none of them.
    """

    def __init__(self, database: Database, set_key: int, *, metric: Metric, dimensions: int) -> None:
        rng = np.random.default_rng(0)
        rows = database.execute("SELECT chunk_key FROM context_chunks WHERE set_key = ?", [set_key])
        keys = np.fromiter((row[0] for row in rows), dtype=np.int64)
        chosen = rng.choice(keys, size=min(RECALL_QUERIES, len(keys)), replace=False)
        stored = _stored(database, chosen)[1]
        noise = rng.normal(size=stored.shape)
        lengths = np.linalg.norm(stored, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        self._queries = (stored + noise * lengths / 2).astype(np.float32)
        self._metric = metric
        self._best = np.full((len(stored), RECALL_AT), -np.inf, dtype=np.float32)

    def see(self, vectors: Array32) -> None:
        """Take in a batch of vectors."""
        best = np.concatenate([self._best, self._closeness(self._queries, vectors)], axis=1)
        self._best = -np.partition(-best, RECALL_AT - 1, axis=1)[:, :RECALL_AT]

    def _closeness(self, queries: Array32, vectors: Array32) -> Array32:
        products: Array32 = queries @ vectors.T
        if self._metric == "cosine":
            products /= np.linalg.norm(vectors, axis=1)
        elif self._metric == "l2":
            products = 2 * products - np.square(vectors).sum(axis=1)
        return products

    def measured(self, index: HnswIndex, database: Database) -> dict[str, Any]:
        """Return recall@10 with the smallest expansion that reaches it, or with the largest.

        Who is as near as the tenth counts: which of several equal ones is found does not matter.
        """
        tenth = self._best.min(axis=1)
        floor = np.where(np.isfinite(tenth), tenth - 1e-5 * np.abs(tenth) - 1e-6, -np.inf)
        recall = 1.0
        for expansion in EXPANSIONS:
            index.expansion = expansion
            hits = 0
            for query, least in zip(self._queries, floor, strict=True):
                _, vectors = _stored(database, index.search(query, RECALL_AT)[0])
                hits += int((self._closeness(query[None], vectors) >= least).sum())
            recall = hits / max(1, int(np.isfinite(self._best).sum()))
            if recall >= ENOUGH_RECALL:
                break
        facts = {"vectors": len(index), "recall_at_10": round(recall, 4), "recall_queries": len(self._queries)}
        return {**facts, "expansion": index.expansion}


def _stored(database: Database, keys: Keys) -> tuple[Keys, Array32]:
    rows = database.execute(
        """
        SELECT k.chunk_key, e.vector FROM context_chunks k JOIN embedding_sets s USING (set_key)
        JOIN embeddings e USING (chunk_hash, model_id) WHERE k.chunk_key IN (SELECT value FROM json_each(?))
        """,
        [json.dumps(keys.tolist())],
    ).fetchall()
    vectors = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.float32)
    width = len(vectors) // max(len(rows), 1)
    return np.array([row[0] for row in rows], dtype=np.int64), vectors.reshape(len(rows), width)


def _compare(database: Database, index: HnswIndex, saved: SavedVectors, position: Position) -> None:
    """Raise ValueError where the index is not one of the file's vectors up to a position."""
    now = current_position(database, position.set_key)
    rows = database.execute(
        "SELECT chunk_key FROM context_chunks WHERE set_key = ? AND chunk_key <= ?",
        [position.set_key, position.chunk_key],
    )
    alive = np.fromiter((row[0] for row in rows), dtype=np.int64)
    gone = deleted_since(database, position)
    if not now.covers(position) or not index.contains(alive).all():
        raise ValueError("the file holds other vectors")
    if not len(alive) + int(index.contains(gone).sum()) == len(index) == len(saved):
        raise ValueError("it holds vectors that the file does not")
    keys, vectors = _stored(
        database, np.random.default_rng(0).choice(alive, size=min(PROBES, len(alive)), replace=False)
    )
    mine, theirs = vectors, index.vectors(keys)
    alike = np.allclose(mine / _lengths(mine), theirs / _lengths(theirs), atol=1e-2)
    if not alike or saved.vectors(saved.rows_of(keys)).tobytes() != mine.tobytes():
        raise ValueError("its vectors are not the file's")


def _lengths(vectors: Array32) -> Array32:
    lengths: Array32 = np.linalg.norm(vectors, axis=1, keepdims=True)
    return lengths


def _dimensions(database: Database, set_key: int) -> int:
    row = database.conn.execute("SELECT dimensions FROM embedding_sets WHERE set_key = ?", [set_key]).fetchone()
    return int(row[0])


def _fresh(
    database: Database, index: HnswIndex, saved: SavedVectors, facts: dict[str, Any], position: Position
) -> Ready:
    empty = VectorMatrix(dimensions=_dimensions(database, position.set_key), metric=index.metric)
    ready = Ready(index, saved, facts, position, position, NO_KEYS, empty)
    return _in_step(database, ready, current_position(database, position.set_key))


def _in_step(database: Database, ready: Ready, now: Position) -> Ready:
    gone = deleted_since(database, ready.position)
    removed = np.union1d(ready.removed, gone[ready.index.contains(gone)]) if len(gone) else ready.removed
    added, position = caught_up(database, ready.added, ready.position, now)
    return replace(ready, removed=removed, added=added, position=position)
