"""What can happen to a file, and which rows that leaves whole; for the tests and benchmarks/damage.py."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlite_utils.utils import sqlite3

from autom8_lab.storage.pages import INDEX_INTERIOR, TABLE_INTERIOR, TABLE_LEAF, Cell, PageFile

PAGE = 4096
Damage = Callable[..., None]


@dataclass
class Anatomy:
    """Which tree each page of a sound file belongs to, and the pages on which each row stands."""

    trees: dict[int, str] = field(default_factory=dict)
    interior: set[int] = field(default_factory=set)
    rows: dict[str, dict[int, frozenset[int]]] = field(default_factory=dict)

    def pages_of(self, *trees: str, interior: bool | None = None) -> list[int]:
        """Return the pages of these tables and indexes; only, or no, interior ones."""
        chosen = [page for page, tree in self.trees.items() if tree in trees]
        return [page for page in chosen if interior is None or (page in self.interior) == interior]

    def whole(self, table: str, damaged: set[int]) -> set[int]:
        """Return the rowids of the rows none of whose own pages is among the damaged ones."""
        return {rowid for rowid, pages in self.rows[table].items() if not pages & damaged}


def anatomy(path: Path) -> Anatomy:
    """Look into a sound file that nobody has open."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    roots = connection.execute("SELECT type, name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
    connection.close()
    found = Anatomy()
    with PageFile(path) as file:
        for kind, name, root in [("table", "sqlite_master", 1), *roots]:
            rows = found.rows.setdefault(name, {}) if kind == "table" else {}
            waiting = [root]
            while waiting:
                number = waiting.pop()
                found.trees[number] = name
                page_kind = file.kind(number)
                if page_kind in (TABLE_INTERIOR, INDEX_INTERIOR):
                    found.interior.add(number)
                    waiting += [child for child, _ in file.children(number)]
                if page_kind == TABLE_INTERIOR:
                    continue
                for cell in file.cells(number):
                    assert isinstance(cell, Cell)
                    found.trees.update(dict.fromkeys(cell.overflow, name))
                    if page_kind == TABLE_LEAF:
                        rows[cell.rowid] = frozenset({number, *cell.overflow})
    return found


def differing_pages(before: bytes, after: bytes) -> set[int]:
    """Return the numbers of the pages that are not the same any more, those that are gone included."""
    places = range(0, max(len(before), len(after)), PAGE)
    return {at // PAGE + 1 for at in places if before[at : at + PAGE] != after[at : at + PAGE]}


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def overwrite_pages(path: Path, pages: list[int], draw: random.Random) -> None:
    """Fill pages with random bytes, or with zeros, as one or the other happens to disks."""
    for number in pages:
        write_at(path, (number - 1) * PAGE, draw.randbytes(PAGE) if draw.random() < 0.5 else bytes(PAGE))


def flip_bit(path: Path, draw: random.Random) -> None:
    """Flip one bit, anywhere."""
    place = draw.randrange(path.stat().st_size)
    with path.open("rb") as file:
        file.seek(place)
        byte = file.read(1)[0]
    write_at(path, place, bytes([byte ^ 1 << draw.randrange(8)]))


def cut(path: Path, share: float) -> None:
    """Cut off the end of a file."""
    os.truncate(path, int(path.stat().st_size * (1 - share)))


# What is left after damage

# A row that is useless without a row of another table is whole where that one is.
PARENTS = {
    "context_aliases": ("context_registry", "c.id = t.context_id", "context_key"),
    "decision_contexts": ("agent_decisions", "c.id = t.decision_id", "rowid"),
    "access_results": ("access_log", "c.id = t.access_id", "rowid"),
    "judgments": ("judged_queries", "c.query_id = t.query_id", "rowid"),
    "context_chunks": ("context_registry", "c.context_key = t.context_key", "context_key"),
}
DERIVED = {"sqlite_sequence", "chunk_deletions", "index_state", "care_log", "_sqlite_migrations"}
Rows = dict[str, dict[int, tuple[object, ...]]]


def rows_of(path: Path) -> Rows:
    """Return every row of every table of the lab by rowid; read-only."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '*_fts*' AND name NOT GLOB 'vec_*'"
    ).fetchall()
    found = {}
    for (name,) in tables:
        if name not in DERIVED:
            rows = connection.execute(f'SELECT rowid, * FROM "{name}"').fetchall()
            found[name] = {row[0]: tuple(row[1:]) for row in rows}
    connection.close()
    return found


@dataclass
class Original:
    """A sound file, what is in it, and on which pages each row stands."""

    path: Path
    rows: Rows
    anatomy: Anatomy
    parents: dict[str, dict[int, set[tuple[str, int]]]]
    data: bytes

    def whole_rows(self, damaged: set[int]) -> dict[str, set[int]]:
        """Return the rows whose own pages, and those of the rows they are useless without, are whole."""
        direct = {table: self.anatomy.whole(table, damaged) for table in self.rows}
        return {
            table: {rowid for rowid in whole if all(key in direct[other] for other, key in self.needs(table, rowid))}
            for table, whole in direct.items()
        }

    def needs(self, table: str, rowid: int) -> set[tuple[str, int]]:
        """Return the rows that a row is useless without."""
        return self.parents.get(table, {}).get(rowid, set())


def look_into(path: Path) -> Original:
    """Learn all about a sound file that nobody has open."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    parents: dict[str, dict[int, set[tuple[str, int]]]] = {}
    for table, (other, condition, key) in PARENTS.items():
        sql = f"SELECT t.rowid, c.{key} FROM {table} t JOIN {other} c ON {condition}"
        for rowid, parent in connection.execute(sql):
            parents.setdefault(table, {}).setdefault(rowid, set()).add((other, parent))
    # The chunks of a text are of use together, with their set and their vectors.
    together = """
        SELECT k.chunk_key, s.chunk_key, e.embedding_key, k.set_key FROM context_chunks k
        JOIN context_chunks s USING (context_key, set_key) JOIN embedding_sets m USING (set_key)
        JOIN embeddings e ON e.chunk_hash = s.chunk_hash AND e.model_id = m.model_id
    """
    for rowid, sibling, vector, set_key in connection.execute(together):
        needed = parents.setdefault("context_chunks", {}).setdefault(rowid, set())
        needed |= {("context_chunks", sibling), ("embeddings", vector), ("embedding_sets", set_key)}
    connection.close()
    return Original(path, rows_of(path), anatomy(path), parents, path.read_bytes())


@dataclass
class Verdict:
    """What a repair gave back: of the rows that were whole how many, and which rows are not what they were."""

    whole: int
    saved: int
    unsound: list[tuple[str, int]]

    @property
    def share(self) -> float:
        """The share of the whole rows that was saved."""
        return self.saved / self.whole if self.whole else 1.0


# A reference to a row that is gone is emptied, and the checksum with it.
CLEARED = {"context_registry": {"superseded_by", "checksum"}, "usage_ledger": {"decision_id", "checksum"}}


def judge(original: Original, repaired: Path, damaged: set[int]) -> Verdict:
    """Compare a repaired file with what it was made from."""
    found, whole = rows_of(repaired), original.whole_rows(damaged)
    connection = sqlite3.connect(f"{repaired.absolute().as_uri()}?mode=ro", uri=True)
    columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in found}
    connection.close()
    by_key = {table: identities(table, rows, columns[table]) for table, rows in original.rows.items()}
    saved_keys = {table: identities(table, rows, columns[table]) for table, rows in found.items()}
    saved, unsound = 0, []
    for table, rows in saved_keys.items():
        originals = by_key[table]
        for key, rowid in rows.items():
            before = original.rows[table].get(originals.get(key, -1))
            if before is None or not same(before, found[table][rowid], columns[table], CLEARED.get(table, set())):
                unsound.append((table, rowid))
        wanted = whole[table]
        saved += sum(1 for key, rowid in originals.items() if rowid in wanted and key in rows)
    return Verdict(sum(len(keys) for keys in whole.values()), saved, unsound)


def identities(table: str, rows: dict[int, tuple[object, ...]], columns: list[str]) -> dict[object, int]:
    """Return what tells the rows of a table apart, with their rowids: a number of their own, or their text keys."""
    keyed = {"context_registry", "context_chunks", "embeddings", "embedding_sets", "usage_ledger", "settings_log"}
    if table in keyed:
        return {rowid: rowid for rowid in rows}
    width = 2 if table in ("decision_contexts", "access_results", "judgments", "import_cursors") else 1
    return {row[:width]: rowid for rowid, row in rows.items()}


def same(before: tuple[object, ...], after: tuple[object, ...], columns: list[str], clearable: set[str]) -> bool:
    """Whether a row is what it was, but for references that were emptied."""
    differing = {name for name, a, b in zip(columns, before, after, strict=True) if a != b}
    if differing <= {"checksum"} and not clearable:
        return not differing
    values = dict(zip(columns, after, strict=True))
    return differing <= clearable and all(name == "checksum" or values[name] is None for name in differing)


# Fuzz


def mutate(path: Path, draw: random.Random) -> str:
    """Change a file, and the log beside it if there is one, in one of many ways; return which."""
    log = Path(f"{path}-wal")
    target = log if log.exists() and draw.random() < 0.3 else path
    name = draw.choice(sorted(MUTATIONS))
    data = bytearray(target.read_bytes())
    MUTATIONS[name](data, draw)
    target.write_bytes(data)
    return f"{name} of {'the log' if target == log else 'the file'}"


def _some_bytes(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 3, 30, 300])):
        data[draw.randrange(len(data))] = draw.randrange(256)


def _bytes_of_one_page(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(0, len(data), PAGE)
    for _ in range(draw.choice([1, 5, 50])):
        data[min(start + draw.randrange(PAGE), len(data) - 1)] = draw.randrange(256)


def _heads_of_pages(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 5, 20])):
        place = draw.randrange(0, len(data), PAGE) + draw.randrange(40)
        data[min(place, len(data) - 1)] = draw.choice([0, 1, 2, 5, 10, 13, 127, 128, 255])


def _file_header(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 2, 8])):
        data[min(draw.randrange(16, 100), len(data) - 1)] = draw.choice([0, 1, 2, 3, 4, 127, 128, 255])


def _first_page(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 4, 20])):
        data[min(draw.randrange(100, PAGE), len(data) - 1)] = draw.randrange(256)


def _pages_swapped(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 4])):
        one, two = (draw.randrange(0, max(len(data) - PAGE, 1), PAGE) for _ in range(2))
        data[one : one + PAGE], data[two : two + PAGE] = data[two : two + PAGE], data[one : one + PAGE]


def _page_repeated(data: bytearray, draw: random.Random) -> None:
    one, two = (draw.randrange(0, max(len(data) - PAGE, 1), PAGE) for _ in range(2))
    data[one : one + PAGE] = data[two : two + PAGE]


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def _longer(data: bytearray, draw: random.Random) -> None:
    data += draw.randbytes(draw.choice([1, 100, PAGE, 5 * PAGE]))


def _hole(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    length = min(draw.choice([10, 1000, 3 * PAGE]), len(data) - start)
    data[start : start + length] = bytes(length) if draw.random() < 0.5 else draw.randbytes(length)


def _text_of_schema(data: bytearray, draw: random.Random) -> None:
    words = [b"CREATE", b"TABLE", b"INDEX", b"TRIGGER", b"checksum", b"context_registry", b"TEXT", b"INTEGER", b"vec0"]
    others = [b"SELECT", b"VIEWS", b"x", b"((((((", b"fts5", b"--", b"'", b"randomblob"]
    word, other = draw.choice(words), draw.choice(others)
    places = [at for at in range(len(data) - len(word)) if data.startswith(word, at)][:400]
    for at in draw.sample(places, min(len(places), draw.choice([1, 3]))):
        data[at : at + len(word)] = other[: len(word)].ljust(len(word))


def _pointers(data: bytearray, draw: random.Random) -> None:
    """Let the pointers of interior and overflow pages lead anywhere."""
    for _ in range(draw.choice([1, 6])):
        start = draw.randrange(0, len(data), PAGE)
        place = start + draw.choice([0, 8, draw.randrange(PAGE - 4)])
        value = draw.choice([0, 1, draw.randrange(len(data) // PAGE + 2), start // PAGE + 1, 2**31 - 1])
        data[place : min(place + 4, len(data))] = value.to_bytes(4, "big")[: max(len(data) - place, 0)]


MUTATIONS: dict[str, Callable[[bytearray, random.Random], None]] = {
    function.__name__.strip("_"): function
    for function in (
        _some_bytes,
        _bytes_of_one_page,
        _heads_of_pages,
        _file_header,
        _first_page,
        _pages_swapped,
        _page_repeated,
        _cut,
        _longer,
        _hole,
        _text_of_schema,
        _pointers,
    )
}


def fuzz(pattern: str, folder: str, seed: int) -> dict[str, str]:
    """Damage a copy and open, check and repair it; return how each ended. Anything but an end or a LabError raises."""
    import shutil
    import warnings

    import autom8_lab as al

    workplace = Path(folder) / str(seed)
    workplace.mkdir()
    path = workplace / "lab.db"
    for ending in ("", "-wal"):
        if Path(f"{pattern}{ending}").exists():
            shutil.copy(f"{pattern}{ending}", f"{path}{ending}")
    ends = {"mutation": mutate(path, random.Random(seed))}
    for ending in ("", "-wal"):  # what opening it does to the file must not change what is repaired
        if Path(f"{path}{ending}").exists():
            shutil.copy(f"{path}{ending}", f"{workplace}/other.db{ending}")

    def tell(name: str, action: Callable[[], object]) -> None:
        try:
            ends[name] = str(action())
        except al.LabError as exc:
            ends[name] = type(exc).__name__

    def use() -> str:
        with al.open(path, embedding_model="hash-64", statement_seconds=10) as lab:
            return use_lab(lab)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", al.LabWarning)
        tell("check", lambda: f"{len(al.check_file(path))} findings")
        tell("repair", lambda: f"{al.repair(f'{workplace}/other.db', to=workplace / 'new.db')['saved']} saved")
        tell("use", use)
    shutil.rmtree(workplace)
    return ends


def use_lab(lab: object) -> str:
    """Ask a damaged lab for everything; what it answers is sound, or a LabError."""
    import autom8_lab as al

    said = []
    for name, question in {
        "health": lambda: lab.health(),  # type: ignore[attr-defined]
        "check": lambda: lab.check(),  # type: ignore[attr-defined]
        "list": lambda: lab.list_contexts(include_expired=True, include_superseded=True),  # type: ignore[attr-defined]
        "text": lambda: lab.search("harbour tide", method="text"),  # type: ignore[attr-defined]
        "semantic": lambda: lab.search("harbour tide", method="semantic"),  # type: ignore[attr-defined]
        **{
            name: lambda name=name: getattr(lab, name)()
            for name in (
                "ledger_df contexts_df usage_df latency_df model_performance_df decisions_df "
                "searches_df accesses_df shown_df storage_df judgments_df settings_df stats"
            ).split()
        },
    }.items():
        try:
            question()
        except al.LabError as exc:
            said.append(f"{name}: {type(exc).__name__}")
    return ", ".join(said) or "all answered"
