"""Outcomes: how good and how dear each model's answer to each prompt was, as arrays with a row per prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InvalidValue, did_you_mean
from ..validation import is_missing, shortened

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

QUALITY, COST = "quality_score", "cost_usd"
KNOWN_COSTS = 0.9  # of the prompts, for costs to be used at all


@dataclass(frozen=True)
class Outcomes:
    """The prompts that every model answered, and what came of it.

    `quality` and `cost` (USD per prompt; NaN throughout where it is not known) have shape (prompts, models), the models
    in the order of their mean cost, or of their mean quality where costs are not known. `texts` are the prompts'
    words, `lengths` how long they are in `length_unit`; None where they are not known. Prompts of one text have one
    number in `groups`, and count as one draw in every interval. `left_out` tells how many prompts were not used, and why.
    """

    prompt_ids: tuple[str, ...]
    models: tuple[str, ...]
    quality: FloatArray
    cost: FloatArray
    texts: tuple[str, ...] | None
    lengths: FloatArray | None
    length_unit: str | None
    groups: IntArray
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def cost_known(self) -> bool:
        """Whether what each answer cost is known."""
        import numpy as np

        return bool(np.isfinite(self.cost).all())

    @property
    def draws(self) -> int:
        """How many different prompts there are."""
        return int(self.groups.max()) + 1 if len(self) else 0

    @property
    def data_hash(self) -> str:
        """A name of these outcomes: the same prompts, models, qualities and costs have the same one."""
        digest = hashlib.blake2b(repr((self.prompt_ids, self.models)).encode("utf-8", "surrogatepass"), digest_size=8)
        digest.update(self.quality.tobytes() + self.cost.tobytes())
        return digest.hexdigest()

    def take(self, places: IntArray) -> Outcomes:
        """Return the outcomes of some of the prompts."""
        import numpy as np

        return replace(
            self,
            prompt_ids=tuple(self.prompt_ids[place] for place in places),
            quality=self.quality[places],
            cost=self.cost[places],
            texts=None if self.texts is None else tuple(self.texts[place] for place in places),
            lengths=None if self.lengths is None else self.lengths[places],
            groups=np.unique(self.groups[places], return_inverse=True)[1].astype(np.int64),
        )


def outcomes_of(
    frame: pd.DataFrame,
    *,
    prompt: str = "prompt_id",
    models: Sequence[str] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Outcomes:
    """Return the outcomes in a frame with a row per answer: the column `prompt`, model, quality_score and cost_usd.

    cost_usd may be absent. `texts` are the prompts' words by their id; without them a column "prompt" has them, and
    without that "input_tokens" stands for their length. Repeated answers of a model to a prompt are averaged; an
    answer that was not judged (NaN) is none. `models` chooses some, by default all in the frame take part. Prompts that
    one of them did not answer are left out, and counted. Raises `InvalidValue`.
    """
    import numpy as np

    chosen = _chosen_models(frame, prompt, models)
    rows = frame[frame["model"].isin(chosen) & frame[prompt].notna()]
    quality = _table(rows, QUALITY, prompt, chosen)
    if quality is None or not len(quality):
        raise InvalidValue(f"no answer of {', '.join(chosen)} has a {QUALITY}: record one with each call")
    _refuse_without_outcomes(quality)
    complete = quality.notna().all(axis=1)
    left_out = {"not answered by every model": int((~complete).sum())}
    quality = quality[complete]
    if len(quality) < 2:
        raise InvalidValue(_nothing_shared(rows, prompt, chosen))
    cost = _table(rows, COST, prompt, chosen)
    cost = None if cost is None else cost.reindex(quality.index)
    if cost is not None and (priced := cost.notna().all(axis=1)).mean() >= KNOWN_COSTS:
        left_out["cost unknown"] = int((~priced).sum())
        quality, cost = quality[priced], cost[priced]
        order = cost.mean().sort_values(kind="stable").index
    else:
        left_out["cost unknown"] = 0
        cost = None
        order = quality.mean().sort_values(kind="stable").index
    names = quality.index
    words, lengths, unit = _lengths(rows, prompt, names, texts)
    return Outcomes(
        prompt_ids=tuple(str(name) for name in names),
        models=tuple(str(name) for name in order),
        quality=quality[order].to_numpy(dtype=np.float64),
        cost=np.full(quality.shape, np.nan) if cost is None else cost[order].to_numpy(dtype=np.float64),
        texts=words,
        lengths=lengths,
        length_unit=unit,
        groups=np.arange(len(names)) if words is None else _numbered(words),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def _chosen_models(frame: pd.DataFrame, prompt: str, models: Sequence[str] | None) -> list[str]:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InvalidValue(
            f"outcomes={shortened(frame)} is a {type(frame).__name__}: give a DataFrame, a row per answer"
        )
    for name in (prompt, "model", QUALITY):
        if name not in frame:
            raise InvalidValue(f"the frame has no column {name!r}{did_you_mean(name, map(str, frame.columns))}")
    known = sorted(str(name) for name in frame["model"].dropna().unique())
    if isinstance(models, str):
        raise InvalidValue(f"models={models!r} is one name: give a list of two or more")
    chosen = known if models is None else list(dict.fromkeys(models))
    for name in chosen:
        if name not in known:
            raise InvalidValue(f"no answer comes from the model {name!r}{did_you_mean(name, known)}")
    if len(chosen) < 2:
        raise InvalidValue(
            f"nothing to route between, the only model is {', '.join(chosen) or 'none'}: record graded answers of two "
            "models or more to the same prompts"
        )
    return chosen


def _table(rows: pd.DataFrame, column: str, prompt: str, models: Sequence[str]) -> pd.DataFrame | None:
    """Return a column's means by prompt and model, or None where there is no such column."""
    import numpy as np

    if column not in rows:
        return None
    try:
        values = rows[column].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"{column} cannot be read as numbers ({error}): give numbers, NaN where unknown") from error
    bad = np.isinf(values) | ((values < 0) if column == COST else False)
    if bad.any():
        remedy = "give finite amounts of at least 0" if column == COST else "give finite numbers"
        raise InvalidValue(f"{column} contains {values[bad][0]} ({int(bad.sum())} rows): {remedy}, NaN where unknown")
    keys = [rows[prompt].astype("str"), rows["model"].astype("str")]
    means = rows.assign(**{column: values})[column].groupby(keys).mean().unstack()
    return means.reindex(columns=list(models)).dropna(how="all")


def _refuse_without_outcomes(quality: pd.DataFrame) -> None:
    empty = quality.columns[quality.isna().all()].tolist()
    if empty:
        raise InvalidValue(
            f"no answer of {', '.join(empty)} has a {QUALITY}: record it, or leave the model out of models"
        )


def _nothing_shared(rows: pd.DataFrame, prompt: str, models: Sequence[str]) -> str:
    judged = rows[rows[QUALITY].notna()].groupby("model", observed=True)[prompt].nunique()
    counts = ", ".join(f"{name} {int(judged.get(name, 0)):,}" for name in models)
    message = f"fewer than two prompts were answered by all of the models (prompts with a judged answer: {counts})"
    remedy = "give models=[two of them], or" if len(models) > 2 else ""
    return f"{message}: {remedy} have the same prompts answered by each, under one prompt id"


def _lengths(
    rows: pd.DataFrame, prompt: str, names: Any, texts: Mapping[str, str] | None
) -> tuple[tuple[str, ...] | None, FloatArray | None, str | None]:
    """Return the prompts' words, how long they are, and in what unit."""
    import numpy as np

    given = _given_texts(rows, prompt, names) if texts is None else texts
    missing = [str(name) for name in names if is_missing(given.get(str(name)))]
    if not missing:
        words = tuple(str(given[str(name)]) for name in names)
        return words, np.array([len(text) for text in words], dtype=np.float64), "characters"
    if texts is not None:
        raise InvalidValue(f"texts has no words for {len(missing):,} prompts, {missing[0]!r} among them: add them")
    if "input_tokens" in rows:
        tokens = rows["input_tokens"].astype("Float64").groupby(rows[prompt].astype("str")).mean().reindex(names)
        if tokens.notna().all():
            return None, np.asarray(tokens, dtype=np.float64), "input tokens"
    return None, None, None


def _given_texts(rows: pd.DataFrame, prompt: str, names: Any) -> dict[str, str]:
    if prompt == "prompt":
        return {str(name): str(name) for name in names}
    if "prompt" not in rows:
        return {}
    known = rows.dropna(subset=["prompt"]).drop_duplicates(prompt)
    return dict(zip(known[prompt].astype("str"), known["prompt"].astype("str"), strict=True))


def _numbered(words: Sequence[str]) -> IntArray:
    """Return a number per text, the same for equal ones (white space at the ends and between words aside)."""
    import numpy as np

    return np.unique([" ".join(text.split()) for text in words], return_inverse=True)[1].astype(np.int64)
