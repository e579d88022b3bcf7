"""A whole book as one context: every character is in a chunk, and a sentence from its middle has its position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import autom8_lab as al
from autom8_lab.embedding import HashEncoder
from autom8_lab.embedding.model_files import offline_model_path


class RealTokens(HashEncoder):
    """The real model's tokens, so that the chunks are the real ones, with vectors that cost nothing."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(dimensions=384)
        self.name = self.model_id = "real-tokens"
        self.max_tokens = 254
        self.tokenizer = tokenizer


@pytest.fixture(scope="module")
def encoder() -> RealTokens:
    folder = offline_model_path()
    if folder is None:
        pytest.skip("needs the extra offline-model")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return RealTokens(tokenizer)


def test_war_and_peace_is_one_context_of_which_every_character_is_found(
    shared_data: Path, encoder: RealTokens, tmp_path: Path
) -> None:
    # As published: with a byte order mark and carriage returns.
    book = (shared_data / "gutenberg" / "war_and_peace_2600.txt").read_bytes().decode("utf-8")
    middle = len(book) // 2
    sentence = max(book[middle - 3_000 : middle + 3_000].split(". "), key=len)[:300]
    path = tmp_path / "book.db"
    with al.open(path, encoder=encoder, synchronous="OFF") as lab:
        lab.store_context(book, context_id="war-and-peace")
        assert lab.get_context("war-and-peace").content == book
        covered = 0
        for row in lab._storage.rows("context_chunks", order_by=["position"]):
            assert row["start_char"] <= covered < row["end_char"]
            covered = row["end_char"]
        assert covered == len(book)
        for method in ("text", "semantic", "hybrid"):
            hit = lab.search(sentence, method=method, k=1)[0]
            assert hit.chunk_start is not None
            assert hit.chunk_end is not None
            start = book.index(sentence)
            assert hit.chunk_start < start + len(sentence), method
            assert hit.chunk_end > start, method
            assert hit.chunk == book[hit.chunk_start : hit.chunk_end]
