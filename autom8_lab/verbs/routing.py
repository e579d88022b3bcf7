"""Verbs that compare models and routers, fit a policy, apply it and replay it on what was logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from ..ledger import CallFilters
from ..records import Route
from ..tuning.operating import Goal
from .parts import Parts

if TYPE_CHECKING:
    import pandas as pd

    from ..tuning.fitting import RouterFit
    from ..tuning.replay import ReplayReport
    from ..tuning.routing import RoutingReport


class RandomSource(Protocol):
    """What numbers are drawn from: `random.Random` and NumPy's `Generator` are such."""

    def random(self) -> float:
        """Return a number from 0 up to 1."""


class RoutingVerbs(Parts):
    """Route: which model a prompt goes to, from evidence."""

    def routing_report(
        self,
        outcomes: pd.DataFrame | None = None,
        *,
        prompt: str | None = None,
        texts: Any = None,
        scores: Mapping[str, Any] | None = None,
        models: Sequence[str] | None = None,
        weak: str | None = None,
        strong: str | None = None,
        confidence: float = 0.95,
        resamples: int = 1_000,
        seed: int = 0,
        **filters: Unpack[CallFilters],
    ) -> RoutingReport:
        """Compare what models and routers achieve on the same prompts, and what it costs, with paired intervals.

        Without `outcomes` the ledger's judged calls count, those of one prompt told by `prompt` (a metadata key or
        column, "metadata.prompt_id"); a frame needs prompt_id, model, quality_score, and cost_usd if costs matter. Prompts
        that every one of `models` answered take part. `texts` are the prompts' words by id; without them the contexts
        of those ids, else the input tokens tell how long a prompt is. `scores` are routers of yours: by name a number
        per prompt id, how much it needs the strong model, or a frame with a column per model.

        The free alternatives stand beside them: mixing models by lot, sending the longest prompts to the strong
        model; and the oracle above. `weak` is by default the cheapest model, `strong` the best of the others. The
        frames `models`, `routers` and `curves` have the Pareto frontier and hull, APGR (trapezoids), CPT 50 % and 80 %
        (first crossing), AIQ as in RouterBench's paper (`aiq_code`: as its program has it), and `gain`: the quality above
        mixing at equal cost, or equal share of calls where costs are not known. A router is "better than free"
        beyond its interval, corrected for their number; else it is "cannot tell yet", with about how many prompts more
        would tell. Equal prompts are one draw. Raises `InvalidValue`. Definitions and sources: docs/routing.md.
        """
        found = self._routing.outcomes(outcomes, prompt=prompt, texts=texts, models=models, filters=filters)
        roles = {"weak": weak, "strong": strong}
        return self._routing.report(
            found, scores=scores, confidence=confidence, resamples=resamples, seed=seed, **roles
        )

    def fit_router(
        self,
        outcomes: pd.DataFrame | None = None,
        *,
        prompt: str | None = None,
        texts: Any = None,
        vectors: Any = None,
        models: Sequence[str] | None = None,
        learners: Sequence[str] | None = None,
        embed: bool = True,
        target_pgr: float | None = None,
        max_cost_usd: float | None = None,
        epsilon: float = 0.0,
        folds: int = 10,
        confidence: float = 0.95,
        resamples: int = 1_000,
        seed: int = 0,
        progress: bool | None = None,
        **filters: Unpack[CallFilters],
    ) -> RouterFit:
        """Fit routers to the outcomes of prompts, compare them with the free ones, and recommend what evidence supports.

        Outcomes, `prompt`, `texts`, `models` and filters as in `routing_report`. The `learners` "knn", "linear" (ridge) and
        "boosted" (trees) predict each model's quality from the prompts' vectors (the lab's; `embed=False` does
        without; `vectors` are yours, by prompt id) and from what can be read off the text. They are judged on prompts
        that they did not see, equal prompts in one of the `folds`, and calibrated. A learned router is recommended only
        where it is better than mixing models and than the length of the prompt beyond its interval; else the
        length, where it is; else nothing. The threshold recovers `target_pgr` of the gap in quality (0.8), or spends at
        most `max_cost_usd` per prompt. `epsilon` is the part of prompts that explores, so that later choices can be
        replayed. `al.apply(fit.recommendation)` puts the policy in force. Raises `InvalidValue`, `ModelUnavailable`.
        """
        goal = Goal(target_pgr, max_cost_usd)
        found = self._routing.outcomes(outcomes, prompt=prompt, texts=texts, models=models, filters=filters)
        options: dict[str, Any] = {"learners": learners, "epsilon": epsilon, "folds": folds, "confidence": confidence}
        options |= {"resamples": resamples, "seed": seed, "progress": progress}
        return self._routing.fit(found, vectors=vectors, embed=embed, goal=goal, **options)

    def route(
        self,
        prompt: str,
        *,
        policy: Any = None,
        vector: Any = None,
        epsilon: float | None = None,
        rng: RandomSource | None = None,
        record: bool = True,
        keep_prompt: bool = True,
        summary: str | None = None,
        complexity_score: float | None = None,
        context_ids: str | Sequence[str] | None = None,
        agent: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Route:
        """Choose a model for a prompt, and log the decision with its candidates, scores and probability.

        `policy` is a policy (a dict, see `autom8_lab.tuning.policies`) or recommendation; None means the one that was
        applied. With probability `epsilon` (the policy's own if not given) any candidate is drawn, by `rng` if given.
        Give the route's `decision_id` to `record_usage` and `record_outcome`, so that it can be replayed later.
        `vector` is the prompt's, for a policy fitted to vectors of your own; else the lab's encoder makes it.
        `keep_prompt=False` keeps its length alone, `record=False` nothing; the other arguments are `record_decision`'s.
        Raises `NotFound` without a policy, `ModelUnavailable` where it needs the vectors of another model.

        >>> policy = {"kind": "length", "candidates": ["gpt-4o-mini", "gpt-4o"], "threshold": 200}
        >>> route = lab.route("What is the capital of France?", policy=policy)
        >>> route.chosen, route.propensity
        ('gpt-4o-mini', 1.0)
        """
        fields = {"summary": summary, "complexity_score": complexity_score, "context_ids": context_ids, "agent": agent}
        options: dict[str, Any] = {"keep_prompt": keep_prompt, "metadata": metadata, **fields}
        options |= {"policy": policy, "vector": vector, "epsilon": epsilon, "rng": rng, "record": record}
        return self._routing.route(prompt, **options)

    def replay(
        self,
        policy: Any = None,
        *,
        since: Any = None,
        until: Any = None,
        decision_type: str | Sequence[str] | None = "route",
        made_by: str | Sequence[str] | None = None,
        agent: str | Sequence[str] | None = None,
        log: pd.DataFrame | None = None,
        action: str = "chosen",
        propensity: str = "propensity",
        measures: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        prompt: str = "metadata.prompt_id",
        confidence: float = 0.95,
        seed: int = 0,
    ) -> ReplayReport:
        """Estimate what a policy would have achieved and cost on logged decisions, or say why that cannot be known.

        `policy` is a policy or recommendation (None: the one applied), the name of one model, a mapping of probabilities,
        a frame with a column of probabilities per model and a row per decision, or a function that makes one from
        the log. The decisions are the ledger's (`made_by` names the policies that made them), their quality the outcome
        or that of the calls with their id, their cost that of these calls; or a frame `log` of choices: `action`,
        `propensity`, `measures` (numbers), `features`, and candidates if not everything could be chosen.

        Direct method, IPS, SNIPS and doubly robust estimates come with intervals, beside what was logged; equal prompts
        (`prompt`) are one draw. There are no numbers, and the reason is said, where less than 99 % of the policy's choices
        could have been logged, where the effective sample size is below 30, or where the weights do not average to 1.
        Raises `InvalidValue`, with their count, for decisions without a propensity.
        """
        filters = {"since": since, "until": until, "decision_type": decision_type, "policy": made_by, "agent": agent}
        options: dict[str, Any] = {"measures": measures, "confidence": confidence, "seed": seed}
        if log is not None:
            options |= {"action": action, "propensity": propensity}
        return self._routing.replay(policy, log=log, filters=filters, prompt=prompt, features=features, **options)
