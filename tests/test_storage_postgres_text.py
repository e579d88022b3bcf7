"""Words on PostgreSQL: what the server's statistics say changes how a word is looked for, never what is found."""

from __future__ import annotations

import pytest
from backends import BACKENDS, database, server

import autom8_lab as al
from autom8_lab.storage.postgres_text import SMALL_TABLE

pytestmark = pytest.mark.skipif("postgres" not in BACKENDS, reason="PostgreSQL is not asked for")


def test_statistics_of_the_server_change_no_answer() -> None:
    count = SMALL_TABLE + 100
    texts = [
        f"note {number}"
        + " everywhere" * (number % 10 < 6)
        + " often" * (number % 10 < 5)
        + " rare" * (number % 100 == 7)
        for number in range(count)
    ]
    rows = [{"context_id": f"c{number}", "content": text} for number, text in enumerate(texts)]

    def found(address: str, words: str) -> list[tuple[str, float, tuple[str, ...]]]:
        with al.open(address, embedding_model="hash-16") as lab:
            hits = lab.search(words, method="text", k=60)
        return [(hit.context.id, hit.score, hit.matched_terms) for hit in hits]

    with database() as name:
        address = server().address(name)
        with al.open(address, embedding_model="hash-16") as lab:
            lab.store_contexts(rows, progress=False)
        asked = ("everywhere often rare", "everywhere rare", "everywhere", "note often")
        before = [found(address, words) for words in asked]
        server().execute("ANALYZE context_registry", database=name)
        assert [found(address, words) for words in asked] == before
        # A word that more than half have is left out where others tell more.
        assert all("everywhere" not in terms for _, _, terms in before[0])
        assert before[2][0][2] == ("everywhere",)
