"""Replay on Open Bandit: two policies ran side by side, so that each one's click rate is known and can be checked.

    python benchmarks/open_bandit.py [--data ../shared/data]

From the log of the uniform policy the click rate of Bernoulli Thompson sampling is estimated, and the reverse. Thompson
sampling changed with time; what is replayed is its average over the week, by position. The interval is compared with
those that the library `obp` prints for its own example (all campaigns, a log of the same size).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

import autom8_lab as al
from autom8_lab.statistics import wilson_interval

ROOT = Path(__file__).parents[1]
NAMES = {"item_id": "chosen", "propensity_score": "propensity", "click": "click", "position": "position"}


def log_of(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, usecols=list(NAMES)).rename(columns=NAMES)
    return rows.assign(chosen=rows["chosen"].astype("str"))


def show(title: str, lab: al.Lab, log: pd.DataFrame, policy: Any, on_policy: pd.DataFrame | None) -> None:
    report = lab.replay(policy, log=log, measures="click", features=["position"])
    print(f"\n{title}: {report.decisions:,} choices are worth {report.effective_sample_size:,.1f}, ", end="")
    print(f"largest weight {report.largest_weight:,.1f}, mean weight {report.mean_weight:.3f}")
    if not report.identifiable:
        print(f"not identifiable: {report.reason}")
        return
    table = report.estimates.set_index("estimator")[["estimate", "low", "high"]]
    if on_policy is not None:
        rate = on_policy["click"].mean()
        low, high = wilson_interval(on_policy["click"].sum(), len(on_policy))
        print(f"on policy {rate:.5f} [{low:.5f}, {high:.5f}]")
        table = table.assign(covers=(table["low"] <= rate) & (rate <= table["high"]), relative=table["estimate"] / rate)
    print(table.round(5).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    folder = parser.parse_args().data
    uniform, thompson = (log_of(folder / "open_bandit" / f"{name}_men.csv") for name in ("random", "bts"))
    shares = pd.crosstab(thompson["position"], thompson["chosen"], normalize="index")
    items = sorted(uniform["chosen"].unique())
    with al.open(":memory:", embedding_model="hash") as lab:
        show("Thompson sampling from the uniform log", lab, uniform, shares.loc[uniform["position"]], thompson)
        show("uniform from the Thompson sampling log", lab, thompson, dict.fromkeys(items, 1 / len(items)), uniform)
        rare = thompson["chosen"].value_counts().index[-1]
        show(f"always item {rare}, from the Thompson sampling log", lab, thompson, rare, None)
    published = json.loads((folder / "published" / "obp_quickstart_outputs.json").read_text(encoding="utf-8"))
    print("\nobp, all campaigns, Thompson sampling from a uniform log of 10,000:")
    for name, (low, high) in published["ci95"].items():
        print(f"{name} {published[name]:.5f} [{low:.5f}, {high:.5f}], relative {published['relative'][name]:.2f}")


if __name__ == "__main__":
    main()
