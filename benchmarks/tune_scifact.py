"""tune_search on BEIR SciFact: tuned on the train queries, reported once on the test queries against the default.

    python benchmarks/tune_scifact.py [--data ../shared/data/scifact] [--lab FILE] [--seed 0]

With --lab, a lab that benchmarks/scifact.py kept, of which a copy is used; else the documents are embedded first. The
second part takes the answers of every other query out of the copy and tunes the cutoff on relevance: how often does a
query that nothing answers come back empty, and how often one that has an answer?
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from ir_measures import AP, RR, P, Qrel, R, ScoredDoc, calc_aggregate, nDCG
from scifact import ROOT, load

import autom8_lab as al

Judged = tuple[dict[str, str], dict[str, dict[str, int]]]


def judged(folder: Path, split: str) -> Judged:
    _, queries, rows = load(folder, split)
    grades: dict[str, dict[str, int]] = {}
    for row in rows:
        grades.setdefault(row.query_id, {})[row.doc_id] = row.relevance
    return {name: queries[name] for name in grades}, grades


def tune_ranking(lab: al.Lab, train: Judged, test: Judged, seed: int) -> None:
    started = time.perf_counter()
    advice = lab.tune_search(train[0], judgments=train[1], seed=seed)
    print(f"{advice}\n{time.perf_counter() - started:.0f} s for {len(train[0])} train queries")
    print(advice.tables["settings"].head(5).round(4).to_string())
    methods: dict[str, Any] = {"tuned": dict(advice.settings), "default": {}, "text": {"method": "text"}}
    found = lab.evaluate_search(test[0], judgments=test[1], methods=methods)
    print(f"test, {found.queries} queries:\n{found.table().round(4).to_string()}")
    print(f"greatest difference from ir_measures: {from_ir_measures(lab, test, methods, found):.1e}")
    rows = found.differences.query("method == 'tuned' and against == 'default' and measure == 'nDCG@10'")
    print(rows.round(4).to_string(index=False))


def from_ir_measures(lab: al.Lab, test: Judged, methods: dict[str, Any], found: Any) -> float:
    """Return by how much any mean differs from what ir_measures says of the same rankings."""
    judgments = [Qrel(name, document, grade) for name, grades in test[1].items() for document, grade in grades.items()]
    measures = [nDCG @ 10, R @ 10, P @ 10, RR, AP]
    apart = 0.0
    for method, options in methods.items():
        hits = {name: lab.search(text, k=100, **options) for name, text in test[0].items()}
        run = [ScoredDoc(name, hit.context.id, hit.score) for name, given in hits.items() for hit in given]
        wanted = calc_aggregate(measures, judgments, run)
        means = found.table().loc[method]
        apart = max(apart, *(abs(mean - wanted[one]) for mean, one in zip(means, measures, strict=True)))
    return apart


def take_answers_out(lab: al.Lab, parts: list[Judged], seed: int) -> list[Judged]:
    """Delete the relevant contexts of every other query and return the judgments as they are then."""
    generator = random.Random(seed)
    unanswered = [set(generator.sample(sorted(queries), len(queries) // 2)) for queries, _ in parts]
    kept = {
        name
        for (_, grades), gone in zip(parts, unanswered, strict=True)
        for q in grades
        if q not in gone
        for name in grades[q]
    }
    result = []
    for (queries, grades), gone in zip(parts, unanswered, strict=True):
        own = {q: {} if q in gone else grades[q] for q in grades}
        # A query that shares an answer with one that keeps it is left out.
        shared = {q for q in gone if kept & set(grades[q])}
        result.append(({q: text for q, text in queries.items() if q not in shared}, own))
    present = set(lab.contexts_df()["context_id"])
    for name in {
        c for (_, grades), gone in zip(parts, unanswered, strict=True) for q in gone for c in grades[q]
    } - kept:
        if name in present:
            lab.delete_context(name)
    return result


def tune_cutoff(lab: al.Lab, train: Judged, test: Judged, seed: int) -> None:
    train, test = take_answers_out(lab, [train, test], seed)
    advice = lab.tune_search(train[0], judgments=train[1], what="cutoff", seed=seed)
    print(f"\nnothing may be the answer\n{advice}")
    print({name: round(advice.evidence.details[name], 4) for name in ("ece", "auc")})
    if advice.verdict != "recommend":
        return
    lab.apply(advice)
    for kind, nothing in (("an answer", False), ("none", True)):
        queries = [text for name, text in test[0].items() if (not test[1][name]) == nothing]
        empty = sum(not lab.search(text) for text in queries) / len(queries)
        print(f"test queries that have {kind}: {len(queries)}, of which {empty:.1%} come back empty")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/scifact")
    parser.add_argument("--lab", type=Path, help="a lab that benchmarks/scifact.py --lab made")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train, test = judged(arguments.data, "train"), judged(arguments.data, "test")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scifact.db"
        if arguments.lab:
            shutil.copy(arguments.lab, path)
        with al.open(path) as lab:
            if not arguments.lab:
                lab.store_contexts(load(arguments.data, "test")[0], if_exists="skip")
            tune_ranking(lab, train, test, arguments.seed)
            tune_cutoff(lab, train, test, arguments.seed)


if __name__ == "__main__":
    main()
