"""Long texts to overlapping chunks, by the model's own tokens."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Literal

from ..records import Chunk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .encoders import Encoder

ChunkFormat = Literal["auto", "markdown", "plain"]
# A heading, a fence or a list at the start of a line; prose seldom has either.
MARKDOWN = re.compile(r"^(#{1,6} \S|```|[-*] \S|\d+\. \S)", re.MULTILINE)
WORD = re.compile(r"\w+|[^\w\s]")
# Each of ASCII's characters as "w" for one of a word, "." for a mark, or a space; bytes.translate wants all 256.
KINDS = bytes(
    ord("w" if re.match(r"\w", letter) else " " if re.match(r"\s", letter) else ".") for letter in map(chr, range(256))
)


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text as UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def count_tokens(texts: Sequence[str], encoder: Encoder) -> list[int]:
    """Count each text's tokens, special ones left out; an encoder without a tokenizer counts words and marks."""
    if encoder.tokenizer is None:
        return list(map(count_words, texts))
    return [len(item) for item in encoder.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def count_words(text: str) -> int:
    """Count words and marks.

    >>> count_words("It's 3.5 km, naïvely.")
    10
    """
    if not text.isascii():
        return len(WORD.findall(text))
    kinds = b" " + text.encode().translate(KINDS)  # ten times as fast as to find them
    return kinds.count(b" w") + kinds.count(b".w") + kinds.count(b".")


def chunk_text(
    text: str,
    encoder: Encoder,
    *,
    token_count: int,
    chunk_tokens: int,
    overlap_tokens: int,
    format: ChunkFormat,
) -> list[Chunk]:
    """Split a text into chunks of at most `chunk_tokens` tokens that together cover every character.

    Splits at the largest semantic boundary that fits (semantic-text-splitter): headings and blocks in Markdown,
    paragraphs, sentences and words in plain text. Neighbours share up to `overlap_tokens`.
    """
    capacity = min(chunk_tokens, encoder.max_tokens)
    if token_count <= capacity:
        return [Chunk(0, 0, len(text), text_hash(text))]
    # Where the model reads less than was asked for, the overlap shrinks with the chunks.
    overlap = min(overlap_tokens * capacity // chunk_tokens, capacity - 1)
    spans = _worth_a_vector(text, _splitter(text, encoder, capacity, overlap, format).chunk_indices(text))
    return [Chunk(position, start, end, text_hash(text[start:end])) for position, (start, end) in enumerate(spans)]


def _worth_a_vector(text: str, pieces: Sequence[tuple[int, str]]) -> list[tuple[int, int]]:
    """Return the spans of the pieces, white space on its own given to its neighbour."""
    spans: list[tuple[int, int]] = []
    start_of_next: int | None = None
    for start, piece in pieces:
        end = start + len(piece)
        if piece.strip():
            spans.append((start if start_of_next is None else start_of_next, end))
            start_of_next = None
        elif spans:
            spans[-1] = (spans[-1][0], end)
        else:
            start_of_next = start if start_of_next is None else start_of_next
    return spans or [(0, len(text))]


def _splitter(text: str, encoder: Encoder, capacity: int, overlap: int, format: ChunkFormat):  # type: ignore[no-untyped-def]
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    markdown = format == "markdown" or (format == "auto" and MARKDOWN.search(text) is not None)
    kind = MarkdownSplitter if markdown else TextSplitter
    if encoder.tokenizer is None:
        return kind.from_callback(count_words, capacity, overlap, trim=False)
    return kind.from_huggingface_tokenizer(encoder.tokenizer, capacity, overlap, trim=False)
