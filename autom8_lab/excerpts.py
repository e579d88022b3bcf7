"""Which part of a text answers a query."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from .records import Neighbour

LONG_CHARS = 100_000  # FTS5 takes seconds to cut a passage out of a book
WINDOW_CHARS = 400


def passage_of(
    content: str, near: Neighbour | None, passage: str | None, terms: Sequence[str]
) -> tuple[int | None, int | None]:
    """Return start and end of a text's best chunk, else of the passage FTS5 found, else of where most terms are."""
    if near is not None:
        return near.start, near.end
    if passage is None and terms and len(content) > LONG_CHARS:
        return _densest(content, terms)
    start = content.find(passage) if passage else -1
    return (start, start + len(passage)) if passage and start >= 0 else (None, None)


def _densest(content: str, terms: Sequence[str]) -> tuple[int | None, int | None]:
    """Return the window of a long text that has most of the terms, found by the beginnings of its words."""
    stems = "|".join(re.escape(term[: max(4, len(term) - 3)]) for term in sorted(terms, key=len, reverse=True))
    places = [(match.start(), match[0].lower()) for match in re.finditer(rf"\b(?:{stems})", content, re.IGNORECASE)]
    seen: Counter[str] = Counter()
    best, first = (0, 0), 0
    for start, stem in places:
        seen[stem] += 1
        while places[first][0] < start - WINDOW_CHARS:
            gone = places[first][1]
            seen[gone] -= 1
            if not seen[gone]:
                del seen[gone]
            first += 1
        best = max(best, (len(seen), -places[first][0]))
    start = -best[1]
    return (start, min(start + WINDOW_CHARS, len(content))) if places else (None, None)
