"""Rows of the ledger as routing takes them: calls with their prompts, and decisions with what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InvalidValue
from ..ledger import COST, TABLE, groups
from ..records import Condition, Group, Measure
from ..validation import is_missing
from .features import FEATURES, feature_table

if TYPE_CHECKING:
    import pandas as pd

    from ..storage import Storage
    from .policies import Router

PROMPT_TEXT = "metadata.prompt"
JUDGED = [Measure("quality_sum", "sum", ("quality_score",)), Measure("judged", "count", ("quality_score",))]


class Account(Protocol):
    """The frames of one lab's ledger that routing reads."""

    def where(self, filters: Mapping[str, Any]) -> list[Condition]:
        """Return the conditions that filters mean."""

    def calls(self, names: Sequence[str], by: Sequence[Group], where: Sequence[Condition]) -> pd.DataFrame:
        """Return columns of the matching calls."""

    def decisions(self, *, limit: int | None, filters: Mapping[str, Any]) -> pd.DataFrame:
        """Return the matching decisions with what their calls cost."""


def texts_by_id(texts: Any) -> dict[str, str]:
    """Return prompts by id from a mapping, a Series, or a frame with prompt_id and prompt. Raises `InvalidValue`."""
    if hasattr(texts, "columns"):
        if not {"prompt_id", "prompt"} <= set(texts.columns):
            raise InvalidValue("texts has not the columns prompt_id and prompt: give them, or a mapping")
        texts = dict(zip(texts["prompt_id"], texts["prompt"], strict=True))
    if not isinstance(texts, Mapping) and hasattr(texts, "to_dict"):
        texts = texts.to_dict()
    if not isinstance(texts, Mapping):
        raise InvalidValue(f"texts is a {type(texts).__name__}: give a mapping of prompt id and text")
    return {str(name): str(text) for name, text in texts.items() if not is_missing(text)}


def judged_calls(
    account: Account, prompt: str, where: Sequence[Condition], models: Sequence[str] | None
) -> pd.DataFrame:
    """Return the judged calls: prompt_id, model, quality_score, cost_usd, input_tokens, and prompt where it is noted."""
    import numpy as np

    chosen = groups(list(dict.fromkeys([prompt, PROMPT_TEXT])), None)
    if any(group.freq for group in chosen):
        raise InvalidValue(f"prompt={prompt!r}: give a column or a metadata key")
    names = ["model", "quality_score", "input_tokens", *COST]
    where = [*where, Condition("quality_score", "is not null")]
    where += [Condition("model", "in", list(models))] if models is not None and not isinstance(models, str) else []
    found = account.calls(names, chosen, where)
    billed, estimated = (found[name].to_numpy(dtype=np.float64) for name in COST)
    rows = found.assign(
        cost_usd=np.where(np.isnan(billed), estimated, billed), prompt_id=found[prompt].astype("object")
    )
    texts = found[PROMPT_TEXT].astype("object")
    return rows.assign(prompt=texts) if texts.notna().any() else rows


def decisions(account: Account, storage: Storage, filters: Mapping[str, Any]) -> pd.DataFrame:
    """Return decisions with their outcome; where none was noted the mean quality of the calls that bear their id."""
    import pandas as pd

    found = account.decisions(limit=None, filters=filters)
    if found.empty:
        raise InvalidValue("no decision passes the filters: al.route() and al.record_decision() record them")
    where = [Condition("decision_id", "in", found["decision_id"].tolist())]
    sums = storage.aggregate(TABLE, by=[Group("decision_id")], measures=JUDGED, where=where)
    judged = pd.DataFrame(sums).set_index("decision_id").astype("float64")
    means = (judged["quality_sum"] / judged["judged"]).reindex(found["decision_id"]).to_numpy()
    known = found.assign(quality_score=found["quality_score"].fillna(pd.Series(means, index=found.index)))
    # What a decision cost is known only where all of its calls have a price.
    return known.assign(cost_usd=known["cost_usd"].where((known["calls"] > 0) & (known["unpriced_calls"] == 0)))


def with_features(rows: pd.DataFrame, prompt: str) -> tuple[pd.DataFrame, list[str]]:
    """Return decisions with columns that outcome models can learn from, their names, and `replay_group`.

    Equal prompts are one group: those with the same metadata key `prompt`, or where it is missing the same text.
    """
    import pandas as pd

    columns: dict[str, Any] = {}
    if rows["complexity_score"].notna().any():
        columns["complexity_score"] = rows["complexity_score"]
    if rows["content"].notna().all():
        table = feature_table(rows["content"].tolist())
        columns |= {name: table[:, place] for place, name in enumerate(FEATURES)}
    elif (lengths := _characters(rows)).notna().all():
        columns["characters"] = lengths
    for name in sorted({name for scores in rows["candidates"] for name in scores}):
        columns[f"score of {name}"] = [scores.get(name) for scores in rows["candidates"]]
    key = prompt.removeprefix("metadata.")
    named = pd.Series([row.get(key) for row in rows["metadata"]], index=rows.index, dtype="object")
    made = pd.DataFrame(columns, index=rows.index).astype("float64")
    grouped = rows.drop(columns=[name for name in made if name in rows]).join(made)
    grouped["candidates"] = pd.Series(
        [_possible(*row) for row in zip(rows["candidates"], rows["metadata"], strict=True)],
        index=rows.index,
        dtype="object",
    )
    return grouped.assign(replay_group=named.fillna(rows["content"].astype("object"))), list(columns)


def _possible(candidates: Mapping[str, float], metadata: Mapping[str, Any]) -> list[str]:
    """Return the candidates without those that the policy which decided gave no chance, as far as that was noted."""
    noted = metadata.get("probabilities")
    chances = noted if isinstance(noted, Mapping) else {}
    return [name for name in candidates if chances.get(name, 1) != 0]


def _characters(rows: pd.DataFrame) -> pd.Series[float]:
    import pandas as pd

    noted = pd.Series([row.get("characters") for row in rows["metadata"]], index=rows.index, dtype="float64")
    return rows["content"].str.len().astype("float64").fillna(noted)


def prompts(rows: pd.DataFrame, router: Router) -> list[str]:
    """Return the prompts of logged decisions, as far as a policy looks at them. Raises `InvalidValue` where they are gone."""
    if router.kind in ("always", "mixing"):
        return [""] * len(rows)
    texts = rows.get("content")
    if texts is not None and texts.notna().all():
        return [str(text) for text in texts]
    if router.kind == "length" and texts is not None and (lengths := _characters(rows)).notna().all():
        return ["x" * int(count) for count in lengths]
    missing = len(rows) if texts is None else int(texts.isna().sum())
    raise InvalidValue(
        f"{missing:,} of {len(rows):,} decisions do not hold the prompt, which a policy of kind {router.kind!r} looks at: "
        "al.route() keeps it unless keep_prompt=False, al.record_decision() in content"
    )
