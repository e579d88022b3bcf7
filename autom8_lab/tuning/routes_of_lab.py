"""What routing needs from one lab: outcomes and decisions from its ledger, vectors, the policy in force, and a log."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..applied import TABLE as SETTINGS
from ..applied import AppliedSettings
from ..entries import share_value
from ..errors import InvalidValue, ModelUnavailable, NotFound
from ..forking import new_lock
from ..indexing import Index, encode_in_batches
from ..ledger import Ledger
from ..recommendation import Recommendation
from ..records import Condition, Route
from ..validation import metadata_value, shortened, text_value
from . import decision_rows
from .fitting import RouterFit, Vectors, fit_router
from .operating import Goal
from .outcomes import Outcomes, outcomes_of
from .policies import SETTING, Router
from .replay import ReplayReport, replay
from .routing import RoutingReport, routing_report

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..embedding import Encoder
    from ..storage import Storage

    FloatArray = NDArray[np.float64]

REMEMBERED_ROUTERS = 16


class Routing:
    """Reports on, fits, applies and replays routing policies of one lab."""

    def __init__(
        self,
        storage: Storage,
        index: Index,
        ledger: Ledger,
        account: decision_rows.Account,
        applied: AppliedSettings,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._storage = storage
        self._index = index
        self._ledger = ledger
        self._account = account
        self._applied = applied
        self._clock = clock
        self._random = random.Random()
        self._lock = new_lock()
        self._routers: dict[Any, Router] = {}
        self._in_force: tuple[int, Router] | None = None

    # Outcomes

    def outcomes(
        self, given: Any, *, prompt: str | None, texts: Any, models: Sequence[str] | None, filters: Mapping[str, Any]
    ) -> Outcomes:
        """Return the outcomes in a frame, or for None those of the ledger's calls that pass the filters."""
        words = None if texts is None else decision_rows.texts_by_id(texts)
        if given is not None:
            if filters:
                raise InvalidValue(f"{next(iter(filters))!r} filters the ledger: filter the frame itself")
            return outcomes_of(given, prompt=prompt or "prompt_id", models=models, texts=words)
        where = self._account.where(filters)
        rows = decision_rows.judged_calls(self._account, prompt or "metadata.prompt_id", where, models)
        if words is None and "prompt" not in rows:
            words = self._stored_texts(rows["prompt_id"].dropna().unique().tolist())
        return outcomes_of(rows, models=models, texts=words)

    def _stored_texts(self, names: Sequence[str]) -> dict[str, str] | None:
        """Return the contexts whose ids the prompts bear, None where there is one without."""
        where = [Condition("id", "in", list(names))]
        rows = self._storage.rows("context_registry", where=where, columns=["id", "content"])
        return {row["id"]: row["content"] for row in rows} if len(rows) == len(names) else None

    def report(self, outcomes: Outcomes, **options: Any) -> RoutingReport:
        """See `Lab.routing_report`."""
        return routing_report(outcomes, **options)

    def fit(
        self, outcomes: Outcomes, *, vectors: Any, embed: bool, goal: Goal, progress: bool | None, **options: Any
    ) -> RouterFit:
        """See `Lab.fit_router`."""
        found = self._given_vectors(vectors, outcomes) if vectors is not None else None
        if found is None and embed and outcomes.texts is not None:
            found = self._vectors(outcomes.texts, progress)
        return fit_router(outcomes, vectors=found, goal=goal, created_at=self._clock(), **options)

    def _given_vectors(self, vectors: Any, outcomes: Outcomes) -> Vectors:
        import numpy as np
        import pandas as pd

        if isinstance(vectors, Mapping):
            vectors = pd.DataFrame.from_dict(dict(vectors), orient="index")
        if not isinstance(vectors, pd.DataFrame):
            raise InvalidValue("vectors go by prompt id: give a mapping, or a frame with the ids as its index")
        vectors = vectors.set_axis(vectors.index.astype("str"))
        missing = [name for name in outcomes.prompt_ids if name not in vectors.index]
        if missing:
            raise InvalidValue(f"vectors has none for {len(missing):,} prompts, {missing[0]!r} among them")
        return Vectors(vectors.loc[list(outcomes.prompt_ids)].to_numpy(dtype=np.float64))

    # Vectors

    def _encoder(self) -> Encoder:
        active = self._index.active_set()
        return self._index.encoder_of(active) if active else self._index.encoder()

    def _vectors(self, texts: Sequence[str], progress: bool | None) -> Vectors:
        """Return the prompts' vectors: those of equal contexts from the file, the others encoded now."""
        import numpy as np

        from ..embedding.chunking import text_hash

        encoder = self._encoder()
        names = [text_hash(text) for text in texts]
        known = self._storage.known_vectors(encoder.model_id, sorted(set(names)))
        missing = {name: text for name, text in zip(names, texts, strict=True) if name not in known}
        found = known | dict(zip(missing, encode_in_batches(list(missing.values()), encoder, progress), strict=True))
        values = np.stack([found[name] for name in names]).astype(np.float64)
        return Vectors(values, encoder.model_id, None if missing else tuple(names))

    def _find_vectors(self, model_id: str, names: Sequence[str]) -> FloatArray:
        import numpy as np

        known = self._storage.known_vectors(model_id, list(names))
        missing = sum(name not in known for name in names)
        if missing:
            raise InvalidValue(
                f"{missing:,} of {len(names):,} prompts that the policy compares with have no vector of {model_id} any "
                "more: store their contexts again, or al.fit_router() anew"
            )
        return np.stack([known[name] for name in names]).astype(np.float64)

    # Routes

    def router(self, policy: Any = None) -> Router:
        """Return a policy that is ready to be applied; for None the one in force. Raises `NotFound` without one."""
        if policy is None:
            return self._router_in_force()
        if isinstance(policy, Recommendation):
            policy = policy.settings.get(SETTING)
        try:
            name = json.dumps(policy)
        except (TypeError, ValueError):
            return Router(policy, find_vectors=self._find_vectors)  # which says what is wrong with it
        return self._made(name, policy)

    def _made(self, name: Any, policy: Any) -> Router:
        """Return the router of that name, made of the policy the first time."""
        with self._lock:
            known = self._routers.get(name)
        if known is None:
            known = Router(policy, find_vectors=self._find_vectors)
            with self._lock:
                self._routers[name] = known
                while len(self._routers) > REMEMBERED_ROUTERS:
                    self._routers.pop(next(iter(self._routers)))
        return known

    def _router_in_force(self) -> Router:
        # Every route that is logged changes the file, but the settings log seldom: its last key tells.
        newest = self._storage.rows(SETTINGS, columns=["settings_key"], order_by=["-settings_key"], limit=1)
        key = newest[0]["settings_key"] if newest else 0
        with self._lock:
            known = self._in_force
        if known is None or known[0] != key:
            policy = self._applied.value(SETTING, default={})
            if not policy:
                raise NotFound(
                    "no routing policy is in force: al.apply(al.fit_router().recommendation), or give policy=…"
                )
            known = key, Router(policy, find_vectors=self._find_vectors)
            with self._lock:
                self._in_force = known
        return known[1]

    def route(
        self, prompt: str, *, policy: Any, vector: Any, epsilon: float | None, rng: Any, record: bool, **fields: Any
    ) -> Route:
        """See `Lab.route`."""
        prompt = text_value(prompt, "prompt")
        router = self.router(policy)
        epsilon = router.epsilon if epsilon is None else share_value(epsilon, "epsilon")
        vectors = self._vectors_for(router, [prompt]) if vector is None else [vector]
        scores = router.scores([prompt], vectors)
        probabilities = router.probabilities(scores, epsilon=epsilon)[0].tolist()
        place = _drawn(probabilities, (rng or self._random).random())
        route = Route(
            chosen=router.candidates[place],
            propensity=probabilities[place],
            scores=dict(zip(router.candidates, scores[0].tolist(), strict=True)),
            probabilities=dict(zip(router.candidates, probabilities, strict=True)),
            policy=router.kind,
            policy_version=router.version,
            decision_id=None,
        )
        return self._recorded(route, prompt, **fields) if record else route

    def _vectors_for(self, router: Router, texts: Sequence[str]) -> FloatArray | None:
        if router.embedding is None:
            return None
        wanted = router.embedding["model"]
        if wanted is None:
            raise InvalidValue("the policy was fitted to vectors of your own: give the prompt's vector=…")
        encoder = self._encoder()
        if encoder.model_id != wanted:
            raise ModelUnavailable(
                f"the policy was fitted to vectors of {wanted}, but the lab's are of {encoder.model_id}: "
                "al.fit_router() anew, or open the lab with that model"
            )
        return self._vectors(texts, progress=False).values

    def _recorded(self, route: Route, prompt: str, *, keep_prompt: bool, metadata: Any, **fields: Any) -> Route:
        from dataclasses import replace

        known = {"characters": len(prompt), "probabilities": dict(route.probabilities)}
        given = {
            "decision_type": "route",
            "chosen": route.chosen,
            "candidates": route.scores,
            "propensity": route.propensity,
            "policy": route.policy,
            "policy_version": route.policy_version,
            "content": prompt if keep_prompt else None,
            "metadata": known if metadata is None else {**known, **metadata_value(metadata)},
            **fields,
        }
        return replace(route, decision_id=self._ledger.record_decision(given))

    # Replay

    def replay(
        self, policy: Any, *, log: Any, filters: Mapping[str, Any], prompt: str, features: Any, **options: Any
    ) -> ReplayReport:
        """See `Lab.replay`."""
        if log is not None:
            chosen = self._target(policy, log) if _is_policy(policy) else policy
            return replay(log, chosen, features=features or (), **options)
        rows = decision_rows.decisions(self._account, self._storage, filters)
        target = self._target(policy, rows) if _is_policy(policy) else policy
        rows, names = decision_rows.with_features(rows, prompt)
        return replay(rows, target, features=names if features is None else features, group="replay_group", **options)

    def _target(self, policy: Any, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the probabilities of a policy for logged decisions."""
        import pandas as pd

        router = self.router(policy)
        texts = decision_rows.prompts(rows, router)
        scores = router.scores(texts, self._vectors_for(router, texts) if len(rows) else None)
        return pd.DataFrame(router.probabilities(scores), columns=router.candidates, index=rows.index)


def _is_policy(policy: Any) -> bool:
    return policy is None or isinstance(policy, Recommendation) or (isinstance(policy, Mapping) and "kind" in policy)


def _drawn(probabilities: Sequence[float], draw: float) -> int:
    """Return the position that a number from 0 to 1 falls on."""
    if not 0 <= draw < 1:
        raise InvalidValue(f"rng.random() returned {shortened(draw)}: give a random.Random or numpy Generator")
    reached = 0.0
    possible = [place for place, share in enumerate(probabilities) if share > 0]
    for place in possible:
        reached += probabilities[place]
        if draw < reached:
            return place
    return possible[-1]
