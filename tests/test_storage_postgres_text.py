"""Words on PostgreSQL: what the server's statistics say changes how a word is looked for, never what is found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from backends import BACKENDS, database, server

import autom8_lab as al
from autom8_lab.config import LabConfig
from autom8_lab.storage import open_storage
from autom8_lab.storage.base import Storage
from autom8_lab.storage.postgres_text import SMALL_TABLE

pytestmark = pytest.mark.skipif("postgres" not in BACKENDS, reason="PostgreSQL is not asked for")

WORDS = """
    possibly possible possibilities assembly assemblies assembled irreversibly doubly doubled humbly nobly ably probably
    pathology pathologies pathological biology biologies ecology geology physiology embryology symptomatology logy
    us use used using as is vs v ms os es ds d 1s 2s 3 ey eye ay by my oxen skies tie ties sky cries feed agreed
    birth birth-weight birth-weights weight café naïve œuvre straße 12th c++ x-ray
"""
TEXTS = {
    "row": "The birth weight of a birth, its weight, and the birth weight again; weight, weight.",
    "apart": "Birth of a weight, and weight after birth. Of the birth the weight.",
    "repeated": "again again again, birth birth-weight weight",
    "words": WORDS,
    "few": "Us and them: possibly the pathology of assembly vs. its biology. As it is used, with 2s left.",
    "spaced": "  Us  is\tas\n\nvs ;  pathology,  assembly:\u00a0 birth   weight  ",
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Storage]]:
    """The same contexts in a file and on the server."""
    with database() as name:
        addresses = [str(tmp_path_factory.mktemp("words") / "lab.db"), server().address(name)]
        for address in addresses:
            with al.open(address, embedding_model="hash-16", synchronous="OFF") as lab:
                for context_id, text in TEXTS.items():
                    lab.store_context(text, context_id=context_id, topic="heavy birth" if context_id == "few" else None)
                lab.store_context("weight of a topic's neighbour", context_id="border", topic="birth")
        storages = [open_storage(LabConfig.load(db_path=address)) for address in addresses]
        yield storages
        for storage in storages:
            storage.close()


@pytest.mark.parametrize("weights", [{}, {"topic": 3.0, "content": 0.5}], ids=["as they are", "weighted"])
def test_words_have_the_scores_that_sqlite_gives_them(both: list[Storage], weights: dict[str, float]) -> None:
    in_a_row = ["birth weight", "again again", "weight weight", "birth weight again"]
    asked = [[term] for term in dict.fromkeys([*WORDS.split(), *in_a_row])]
    for terms in [*asked, ["us", "pathology", "birth-weight", "vs"]]:
        in_file, on_server = (
            {match.context_id: match.score for match in storage.match_text(terms, k=20, column_weights=weights)}
            for storage in both
        )
        assert in_file
        assert on_server == pytest.approx(in_file, rel=1e-9), terms


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
