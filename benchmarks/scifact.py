"""Search quality on BEIR SciFact with default settings: nDCG@10 of text, semantic and hybrid, judged by ir_measures.

    python benchmarks/scifact.py [--data ../shared/data/scifact] [--engine auto] [--split test]

The folder holds corpus.jsonl (id, title, text), queries.jsonl (id, text) and qrels.tsv (query_id, doc_id, relevance).
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ir_measures
from ir_measures import R, nDCG

import autom8_lab as al

MEASURES = [nDCG @ 10, R @ 100]
ROOT = Path(__file__).parents[1]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load(folder: Path, split: str) -> tuple[list[dict[str, Any]], dict[str, str], list[ir_measures.Qrel]]:
    """Return the documents as contexts, the queries by id, and the judgments."""
    part = "" if split == "test" else f".{split}"
    documents = [
        {"context_id": row["id"], "content": f"{row['title']}\n\n{row['text']}"}
        for row in read_lines(folder / "corpus.jsonl")
    ]
    queries = {row["id"]: row["text"] for row in read_lines(folder / f"queries{part}.jsonl")}
    with (folder / f"qrels{part}.tsv").open(encoding="utf-8") as file:
        judgments = [
            ir_measures.Qrel(row["query_id"], row["doc_id"], int(row["relevance"]))
            for row in csv.DictReader(file, delimiter="\t")
        ]
    return documents, queries, judgments


def evaluate(
    lab: al.Lab, queries: dict[str, str], judgments: list[ir_measures.Qrel], **options: Any
) -> dict[Any, float]:
    """Search every query and judge the first hundred results; a duplicate's aliases count as found with it."""
    run = [
        ir_measures.ScoredDoc(query_id, name, hit.score)
        for query_id, query in queries.items()
        for hit in lab.search(query, k=100, **options)
        for name in (hit.context.id, *hit.context.aliases)
    ]
    return dict(ir_measures.calc_aggregate(MEASURES, judgments, run))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/scifact")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--split", default="test")
    parser.add_argument("--lab", type=Path, help="keep the lab at this path, or use the one that is there")
    arguments = parser.parse_args()
    documents, queries, judgments = load(arguments.data, arguments.split)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.lab or Path(folder) / "scifact.db"
        with al.open(path, vector_engine=arguments.engine) as lab:
            started = time.perf_counter()
            lab.store_contexts(documents, if_exists="skip")
            seconds, engine = time.perf_counter() - started, lab.health()["vector_engine"]
            print(f"{len(documents)} documents stored in {seconds:.1f} s; vectors by {engine}")
            for method in ("text", "semantic", "hybrid"):
                started = time.perf_counter()
                values = evaluate(lab, queries, judgments, method=method)
                seconds = (time.perf_counter() - started) / len(queries)
                figures = "  ".join(f"{measure} {value:.4f}" for measure, value in values.items())
                print(f"{method:<9} {figures}  {seconds * 1000:.1f} ms per query (k = 100)")


if __name__ == "__main__":
    main()
