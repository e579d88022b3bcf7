"""Routing on RouteLLM's GSM8K data: the published and golden values, and routers fitted out of fold against the length.

    python benchmarks/routing_gsm8k.py [--data ../shared/data] [--embedding-model all-MiniLM-L6-v2] [--seeds 3]

The folder holds routellm/gsm8k_responses.csv, routellm/gsm8k_contaminated_prompts.jsonl and published/. The prompts'
vectors are kept in the temporary folder, so that a second run is quick.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

import autom8_lab as al
from autom8_lab.embedding import load_encoder
from autom8_lab.tuning.curves import apgr, binned_curve, cpt, curve_of, path_of

ROOT = Path(__file__).parents[1]
MODELS = {"mistralai/Mixtral-8x7B-Instruct-v0.1": "mixtral-8x7b", "gpt-4-1106-preview": "gpt-4-1106"}


def prompts_of(folder: Path) -> pd.DataFrame:
    """Return prompt and right or wrong by model, without the prompts that RouteLLM found in its training data."""
    wide = pd.read_csv(folder / "gsm8k_responses.csv", usecols=["prompt", *MODELS]).rename(columns=MODELS)
    lines = (folder / "gsm8k_contaminated_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    known = {json.loads(line)["eval_prompt"] for line in lines}
    return wide[~wide["prompt"].isin(known)].reset_index(drop=True).astype(dict.fromkeys(MODELS.values(), float))


def vectors_of(texts: list[str], model: str) -> pd.DataFrame:
    """Return a vector per prompt, from the temporary folder where they are already."""
    name = hashlib.blake2b("\0".join([model, *texts]).encode(), digest_size=8).hexdigest()
    path = Path(tempfile.gettempdir()) / f"autom8_lab_gsm8k_{name}.npy"
    if not path.exists():
        started = time.perf_counter()
        np.save(path, load_encoder(model).encode_documents(texts))
        print(f"encoded {len(texts):,} prompts in {time.perf_counter() - started:.0f} s")
    return pd.DataFrame(np.load(path), index=texts)


def print_golden(wide: pd.DataFrame, golden: dict[str, float]) -> None:
    quality = wide[list(MODELS.values())].to_numpy()
    length = wide["prompt"].str.len().to_numpy(dtype=float)
    costs = np.full(quality.shape, np.nan)
    exact = curve_of(path_of(length, ties="order"), quality, costs, start=0)
    oracle = curve_of(path_of(quality), quality, costs, start=0)
    bins = binned_curve(length, quality)
    draws = [binned_curve(np.random.default_rng(seed).random(len(wide)), quality) for seed in range(200)]
    random = np.array([float(apgr(curve.share, curve.quality)) for curve in draws])
    expected = golden["length_router"]
    rows = [
        ("weak", quality[:, 0].mean(), golden["weak"]),
        ("strong", quality[:, 1].mean(), golden["strong"]),
        ("length, APGR, n + 1 points", float(apgr(exact.share, exact.quality)), expected["apgr_exact"]),
        ("length, APGR, ten bins", float(apgr(bins.share, bins.quality)), expected["apgr_ref10bins"]),
        ("length, CPT 50 %", float(cpt(exact.share, exact.quality, 0.5)), expected["cpt50"]),
        ("length, CPT 80 %", float(cpt(exact.share, exact.quality, 0.8)), expected["cpt80"]),
        ("oracle, APGR", float(apgr(oracle.share, oracle.quality)), golden["oracle_apgr"]),
        ("random, APGR, mean of 200", random.mean(), 0.5),
        ("random, APGR, standard deviation", random.std(), float("nan")),
    ]
    print(pd.DataFrame(rows, columns=["value", "here", "golden"]).to_string(index=False, float_format="%.6f"))


def print_published(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == "gsm8k"]
    shown = ", ".join(f"{row['router']} {row['training_data']} {row['apgr']}" for row in rows)
    print(f"\npublished APGR (RouteLLM, table 3): {shown}")


def print_fit(wide: pd.DataFrame, vectors: pd.DataFrame, seed: int, learners: list[str] | None) -> None:
    outcomes = wide.melt("prompt", var_name="model", value_name="quality_score")
    started = time.perf_counter()
    fit = al.fit_router(outcomes, prompt="prompt", vectors=vectors, learners=learners, seed=seed)
    table = fit.report.routers.set_index("router")
    names = [f"{name}{end}" for name in ("apgr", "apgr_over_length") for end in ("", "_low", "_high")]
    print(
        f"\nten folds, seed {seed}, {time.perf_counter() - started:.0f} s: {fit.recommendation.verdict}: {fit.recommendation.because}"
    )
    print(table.loc[table["kind"] != "bound", [*names, "cpt50", "cpt80", "verdict"]].round(4).to_string())
    if learners is None:
        print(fit.operating_points.iloc[:, :8].round(3).to_string(index=False))
        al.apply(fit.recommendation)
        print_speed({**fit.policies, "in force": None}, wide["prompt"].tolist()[:200], vectors)


def print_speed(policies: Mapping[str, dict[str, object] | None], texts: list[str], vectors: pd.DataFrame) -> None:
    """Print how long a route takes without encoding its prompt, logged and not; None is the policy in force."""
    for name, policy in policies.items():
        for record in (True, False):
            taken = []
            for text in texts:
                vector = vectors.loc[text].to_numpy() if name in ("linear", "boosted", "in force") else None
                started = time.perf_counter()
                al.route(text, policy=policy, vector=vector, record=record)
                taken.append(1_000 * (time.perf_counter() - started))
            middle, late = np.quantile(taken, [0.5, 0.95])
            print(f"route by {name}{', logged' if record else ''}: p50 {middle:.2f} ms, p95 {late:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--embedding-model", default="all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    wide = prompts_of(options.data / "routellm")
    golden = json.loads((options.data / "published" / "golden_values.json").read_text(encoding="utf-8"))
    print_golden(wide, golden["routellm"]["gsm8k"])
    print_published(options.data / "published" / "routellm_paper_tables.csv")
    vectors = vectors_of(wide["prompt"].tolist(), options.embedding_model)
    with tempfile.TemporaryDirectory() as folder, al.open(Path(folder) / "lab.db", embedding_model="hash"):
        print_fit(wide, vectors, 0, None)
        for seed in range(1, options.seeds):
            print_fit(wide, vectors, seed, ["linear"])


if __name__ == "__main__":
    main()
