"""Labels out of texts and searches: how similar two texts are, and whether what a search finds first answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .labels import Labels, labels_of, read_pairs

if TYPE_CHECKING:
    from ..embedding import Encoder
    from ..records import Metric
    from ..retrieval import Found


def pair_labels(pairs: Any, encoder: Encoder, metric: Metric) -> Labels:
    """Return the similarity of each pair of texts, each text encoded once, with its label."""
    from ..indexing import encode_in_batches
    from ..vectors.similarity import similarity

    texts, labels, rows = read_pairs(pairs)
    distinct = list(dict.fromkeys(text for pair in texts for text in pair))
    vectors = dict(zip(distinct, encode_in_batches(distinct, encoder, False), strict=True))
    scores = [float(similarity(vectors[a][None], vectors[b], metric=metric)[0]) for a, b in texts]
    return labels_of(scores, labels, rows)


def search_labels(
    queries: Mapping[str, str],
    grades: Mapping[str, Mapping[str, int]],
    find: Callable[[str], Found],
    notes: tuple[str, ...] = (),
) -> Labels:
    """Return for each judged query how similar the most similar context is, and whether it is relevant.

    A context without a grade counts as not relevant, as everywhere; a query without any result is left out.
    """
    scores, right, rows, unjudged, empty = [], [], [], 0, 0
    for query_id, query in queries.items():
        if query_id not in grades:
            continue
        nearest = list(find(query).near.values())[:1]
        if not nearest:
            empty += 1
            continue
        grade = grades[query_id].get(nearest[0].context_id)
        unjudged += grade is None and bool(grades[query_id])
        scores.append(nearest[0].similarity)
        right.append((grade or 0) > 0)
        rows.append({"query": query, "context_id": nearest[0].context_id})
    said = [f"{unjudged} first results have no grade and count as wrong"] if unjudged else []
    said += [f"{empty} queries without results are left out"] if empty else []
    found = labels_of(scores, right, rows)
    return Labels(found.scores, found.right, found.rows, (*notes, *said))
