"""Checks: vectors are stored and found, by each engine, and the model works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..embedding import HashEncoder, load_encoder
from .workbench import HASH, Workbench, check, expect

if TYPE_CHECKING:
    from ..lab import Lab

TEXTS = [f"Item {n} of shelf {n % 7} in hall {n % 13}, weight {n * n % 101}." for n in range(150)]
QUERY = "shelf 3 in hall 5"


def _expected(encoder: HashEncoder, ids: list[int]) -> list[str]:
    """The nearest texts, worked out without any engine."""
    import numpy as np

    vectors = np.stack([encoder.encode_query(TEXTS[n]) for n in ids]).astype(np.float64)
    wanted = encoder.encode_query(QUERY).astype(np.float64)
    similarities = vectors @ wanted / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted))
    order = sorted(zip(-similarities.round(6), map(str, ids), strict=True))
    return [name for _, name in order[:10]]


def _engine(bench: Workbench, engine: str) -> None:
    encoder = HashEncoder(dimensions=HASH["embedding_dimensions"])
    with bench.fresh(engine, vector_engine=engine, metric="cosine", **HASH) as lab:
        rows = [{"content": text, "context_id": str(n)} for n, text in enumerate(TEXTS)]
        lab.store_contexts(rows, progress=False)
        if engine == "hnsw":
            lab.build_vector_index(progress=False)
        _compare(lab, engine, _expected(encoder, list(range(150))))
        gone = [int(name) for name in _expected(encoder, list(range(150)))[:3]]
        for number in gone:
            lab.delete_context(str(number))
        _compare(lab, engine, _expected(encoder, [n for n in range(150) if n not in gone]))


def _compare(lab: Lab, engine: str, expected: list[str]) -> None:
    found = lab.search_df(QUERY, method="semantic", k=10, min_similarity=-1)
    used, why = found.attrs["engine"], found.attrs["engine_reason"]
    expect(used == engine, f"{used} answered: {why}")
    rounded = sorted(zip(-found["similarity"].round(6), found["context_id"], strict=True))
    names = [name for _, name in rounded]
    expect(names == expected, f"the ten nearest are {names}, and should be {expected}")


@check("vectors")
def the_exact_engine_finds_the_nearest_texts(bench: Workbench) -> None:
    """The fallback that is always there."""
    _engine(bench, "exact")


@check("vectors")
def sqlite_vec_finds_the_nearest_texts(bench: Workbench) -> None:
    """Vectors in the file."""
    _engine(bench, "sqlite-vec")


@check("vectors")
def an_hnsw_index_finds_the_nearest_texts(bench: Workbench) -> None:
    """The index beside large files."""
    _engine(bench, "hnsw")


@check("vectors")
def a_new_text_is_found_by_meaning_at_once_and_a_changed_one_anew(bench: Workbench) -> None:
    """Vectors follow the texts."""
    lab = bench.lab
    lab.store_context("Capybaras bathe in warm springs.", context_id="self-test/v", topic="self-test/vectors")
    options = {"method": "semantic", "topic": "self-test/vectors", "min_similarity": -1}
    first = lab.search("Capybaras bathe in warm springs.", **options)  # type: ignore[arg-type]
    expect([hit.context.id for hit in first] == ["self-test/v"], "the text is not found by its own words' vector")
    expect((first[0].similarity or 0) > 0.95, f"a text is only {first[0].similarity} similar to itself")
    lab.update_context("self-test/v", content="Invoices are due within thirty days.")
    second = lab.search("Capybaras bathe in warm springs.", **options)  # type: ignore[arg-type]
    expect((second[0].similarity or 0) < (first[0].similarity or 0) - 0.05, "the vector of the old text still answers")


@check("vectors")
def hybrid_search_explains_its_answers(bench: Workbench) -> None:
    """Text and meaning together."""
    lab = bench.lab
    lab.store_context("Ibex climb dams for salt.", context_id="self-test/ibex", topic="self-test/hybrid")
    hits = lab.search("ibex salt", topic="self-test/hybrid", min_similarity=-1)
    expect([hit.context.id for hit in hits] == ["self-test/ibex"], "hybrid search does not find the text")
    expect(hits[0].text_rank == 1 and hits[0].semantic_rank == 1, "one of the two rankings is missing")
    expect(set(hits[0].matched_terms) == {"ibex", "salt"}, f"the matched terms are {hits[0].matched_terms}")


@check("model")
def the_configured_model_tells_related_texts_from_others(bench: Workbench) -> None:
    """The encoder itself."""
    import numpy as np

    from ..config import LabConfig
    from ..vectors.similarity import checked

    encoder = bench.encoder or load_encoder(LabConfig.load().embedding_model)
    texts = ["The invoice is paid.", "The invoice has been paid already.", "Volcanoes erupt under the sea."]
    vectors = checked(encoder.encode_documents(texts), dimensions=encoder.dimensions, count=3).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    expect(near > far, f"{encoder.name}: related texts are {near:.3f} similar, unrelated ones {far:.3f}")
