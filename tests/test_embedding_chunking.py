"""Chunks cover every character, keep to their size, share what was promised, and are texts worth a vector."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autom8_lab.embedding import Encoder, HashEncoder
from autom8_lab.embedding.chunking import WORD, ChunkFormat, chunk_text, count_tokens, count_words, text_hash
from autom8_lab.embedding.model_files import offline_model_path
from autom8_lab.records import Chunk

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMATS: list[ChunkFormat] = ["auto", "markdown", "plain"]
HASH = HashEncoder(dimensions=8)
PIECES = [
    *("word ", "A longer sentence ends here. ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\t", "   ", "\u00a0", "\u2028"),
    *("🙂", "👩\u200d👩\u200d👧\u200d👦", "🇪🇺", "e\u0301", "a" + "".join(map(chr, range(0x300, 0x318))), "\ufeff"),
    *("שלום עולם ", "مرحبا بالعالم ", "\u202eback\u202c ", "中文字符没有空格", "ไม่มีช่องว่าง", "nospaceatall" * 4),
    *("# Heading\n", "## Lower\n\n", "- item\n", "1. first\n", "```\ncode()\n\n```\n", "```", "| a | b |\n|---|---|\n"),
    *("> quote\n", "[link](target) ", "***", "<b>html</b>\n", "---\n", "\\", "$x^2$ ", "https://example.org/a?b=c#d "),
]
texts = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from([1, 1, 1, 2, 30])).map(lambda pair: pair[0] * pair[1])
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    min_size=1,
    max_size=40,
).map("".join)
sizes = st.sampled_from([8, 9, 20, 60]).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


class ByRealTokens:
    """As much of an encoder as chunking needs: the real model's tokenizer, without the weights."""

    max_tokens = 254

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer


def quick(examples: int) -> Any:
    return settings(derandomize=True, deadline=None, max_examples=examples, database=None)


@pytest.fixture(scope="module")
def real() -> Any:
    folder = offline_model_path()
    if folder is None:
        pytest.skip("needs the extra offline-model")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ByRealTokens(tokenizer)


def chunked(
    text: str, size: int, overlap: int = 0, format: ChunkFormat = "auto", *, encoder: Encoder = HASH
) -> list[Chunk]:
    (count,) = count_tokens([text], encoder)
    return chunk_text(text, encoder, token_count=count, chunk_tokens=size, overlap_tokens=overlap, format=format)


def check(text: str, size: int, overlap: int, format: ChunkFormat, encoder: Any) -> None:
    chunks = chunked(text, size, overlap, format, encoder=encoder)
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert (chunks[0].start, chunks[-1].end) == (0, len(text))
    pieces = [text[chunk.start : chunk.end] for chunk in chunks]
    assert [chunk.chunk_hash for chunk in chunks] == [text_hash(piece) for piece in pieces]
    for before, after in pairwise(chunks):
        assert before.start < after.start <= before.end < after.end
    shared = [text[after.start : before.end] for before, after in pairwise(chunks)]
    assert max(count_tokens(shared, encoder) if shared else [0]) <= overlap
    if len(chunks) > 1:
        assert all(piece.strip() for piece in pieces)
        assert max(count_tokens(pieces, encoder)) <= min(size, encoder.max_tokens)


@quick(200)
@example(text="word " * 50 + "\n\n", size=(9, 3))
@example(text="\n\n" + "word " * 50, size=(9, 3))
@example(text="\r\n" * 50 + "word " * 50 + "\r\n" * 50, size=(8, 7))
@example(text="nospaces" * 5_000, size=(8, 0))
@example(text="中" * 500, size=(8, 2))
@given(text=texts, size=sizes)
@pytest.mark.parametrize("format", FORMATS)
def test_chunks_of_any_text_cover_it_in_order_and_keep_to_their_size(
    format: ChunkFormat, text: str, size: tuple[int, int]
) -> None:
    check(text, *size, format, HASH)


@quick(60)
@example(text="中文字符没有空格" * 60, size=(8, 2))
@example(text="nospaceatall" * 500, size=(9, 4))
@given(text=texts, size=sizes)
@pytest.mark.parametrize("format", FORMATS)
def test_chunks_by_the_real_models_tokens_cover_the_text_and_keep_to_their_size(
    real: Any, format: ChunkFormat, text: str, size: tuple[int, int]
) -> None:
    check(text, *size, format, real)


@pytest.mark.parametrize("text", ["", " ", "\n", "word", "two words", "🙂", "# Heading\n\nand a text."])
@pytest.mark.parametrize("format", FORMATS)
def test_a_text_that_fits_is_one_chunk(text: str, format: ChunkFormat) -> None:
    assert chunked(text, 250, 50, format) == [Chunk(0, 0, len(text), text_hash(text))]


@pytest.mark.parametrize("size", [8, 250])
def test_the_longest_text_that_fits_is_one_chunk_and_one_word_more_is_two(size: int) -> None:
    text = " ".join(["word"] * size)
    assert len(chunked(text, size)) == 1
    assert len(chunked(text + " more", size)) == 2


def test_a_model_that_reads_less_than_the_setting_gets_chunks_that_it_reads_whole(real: Any) -> None:
    text = "the quick brown fox jumps over the lazy dog . " * 300
    pieces = [text[chunk.start : chunk.end] for chunk in chunked(text, 4_000, encoder=real)]
    counts = count_tokens(pieces, real)
    assert len(pieces) > 10
    assert max(counts) <= 254
    assert min(counts[:-1]) > 200


def test_an_overlap_that_is_longer_than_the_model_reads_shrinks_with_the_chunks(real: Any) -> None:
    # Cut to one token less than the chunk, it would give a chunk for nearly every word, each 254 words long.
    text = "word " * 1_000
    chunks = chunked(text, 1_000, 500, encoder=real)
    shared = count_tokens([text[after.start : before.end] for before, after in pairwise(chunks)], real)
    assert len(chunks) <= 8
    assert all(100 <= count <= 130 for count in shared[:-1])


def test_neighbours_share_words_up_to_the_overlap() -> None:
    words = [f"w{number}" for number in range(1_000)]
    text = " ".join(words)
    for overlap in (0, 1, 10, 49):
        chunks = chunked(text, 50, overlap, "plain")
        shared = [len(text[after.start : before.end].split()) for before, after in pairwise(chunks)]
        assert set(shared[:-1]) == {overlap}
        assert shared[-1] <= overlap
        assert {len(text[chunk.start : chunk.end].split()) for chunk in chunks[:-1]} == {50}


def test_without_overlap_the_chunks_put_together_are_the_text() -> None:
    randomly = random.Random(1)
    for format in FORMATS:
        text = "".join(randomly.choice(PIECES) for _ in range(3_000))
        assert "".join(text[chunk.start : chunk.end] for chunk in chunked(text, 20, 0, format)) == text


def test_positions_count_characters_and_not_bytes() -> None:
    text = "🙂🙂🙂 ünïcödé wörds 日本語 and more words to split here. " * 20
    for chunk in chunked(text, 12, 4):
        assert text_hash(text[chunk.start : chunk.end]) == chunk.chunk_hash
    assert text[chunk.start : chunk.end].endswith("split here. ")


def test_plain_text_is_cut_between_sentences_where_they_fit() -> None:
    text = "The first sentence has seven words here. " * 30
    pieces = [text[chunk.start : chunk.end] for chunk in chunked(text, 30, 0, "plain")]
    assert len(pieces) > 5
    assert all(piece.strip().startswith("The first") and piece.strip().endswith("here.") for piece in pieces)


def test_markdown_is_cut_at_headings_and_fences_stay_whole(real: Any) -> None:
    section = "# Heading\n\nSome words about it, a dozen or so in all, no more.\n\n```python\nx = 1\n\ny = 2\n```\n\n"
    for encoder in (HASH, real):
        for format in FORMATS[:2]:
            chunks = chunked(section * 20, 40, 0, format, encoder=encoder)
            pieces = [(section * 20)[chunk.start : chunk.end] for chunk in chunks]
            assert len(pieces) == 20
            assert all(piece.lstrip().startswith("# Heading") for piece in pieces)


# Underlined headings: Markdown cuts before them, plain text knows nothing of them, and they are no mark for us.
UNDERLINED = "A few words here. More of them.\n\nTitle\n=====\n\nOne more sentence follows.\n\n" * 20


@pytest.mark.parametrize(
    "mark", ["# Title\n", "###### Deep\n", "```\ncode\n```\n", "- item\n", "* item\n", "1. item\n"]
)
def test_markdown_is_recognised_by_its_marks_at_the_start_of_a_line(mark: str) -> None:
    auto, markdown, plain = (chunked(UNDERLINED + mark, 20, 0, format) for format in FORMATS)
    assert auto == markdown
    assert markdown != plain


def test_prose_with_marks_inside_its_lines_is_plain() -> None:
    text = "Issue #12 costs 3 - 4 euros * tax. We met at 7.\nThen 2.5 hours. #hashtag 1. a ```b```\n\n" + UNDERLINED
    auto, markdown, plain = (chunked(text, 20, 0, format) for format in FORMATS)
    assert auto == plain
    assert markdown != plain


def test_a_chunk_is_named_by_its_text_alone() -> None:
    text = "word " * 40
    assert text_hash(text) == hashlib.sha256(text.encode()).hexdigest()
    alone, (first, second) = chunked(text, 40), chunked(text + text, 40, 0, "plain")
    assert alone[0].chunk_hash == first.chunk_hash == second.chunk_hash == text_hash(text)
    assert chunked(text[:-1], 40)[0].chunk_hash != alone[0].chunk_hash


def test_words_and_marks_are_counted_where_there_is_no_tokenizer() -> None:
    counted = {"": 0, "  \n": 0, "one": 1, "one two": 2, "one, two!": 4, "don't": 3, "a_b1": 1, "日本": 1, "🙂🙂": 2}
    assert count_tokens(list(counted), HASH) == list(counted.values())
    assert count_tokens([], HASH) == []


def test_the_real_tokens_are_counted_without_special_ones_and_without_a_limit(real: Any) -> None:
    assert count_tokens(["", "word", "embeddings", "word " * 1_000], real) == [0, 1, 4, 1_000]
    assert count_tokens([], real) == []


def test_a_long_text_is_split_in_less_than_a_few_seconds(real: Any) -> None:
    import time

    text = "It was a long sentence, and it went on about nothing in particular. " * 3_000
    started = time.perf_counter()
    chunks = chunked(text, 250, 50, encoder=real)
    assert time.perf_counter() - started < 15  # about 2 s on one core; quadratic work would take minutes
    assert (chunks[0].start, chunks[-1].end) == (0, len(text))


def test_words_of_ascii_are_counted_as_those_of_any_text() -> None:
    letters = [chr(number) for number in range(128)]
    texts = [*letters, *(first + second for first in letters for second in letters), "It's 3.5 km, naïvely.", ""]
    assert [count_words(text) for text in texts] == [len(WORD.findall(text)) for text in texts]
