"""Verbs that tell what the lab keeps, and to whom it was shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import retrieval
from ..records import Condition
from ..validation import name_value
from .parts import Parts

if TYPE_CHECKING:
    import pandas as pd


class TransparencyVerbs(Parts):
    """See: what is kept, and who saw it."""

    def storage_df(self, *, by: str | Sequence[str] = "topic") -> pd.DataFrame:
        """Return what the lab keeps by topic, source or both, the most contexts first.

        Numbers of contexts, of pinned, expired and superseded ones; tokens and bytes of their texts; how often they
        were shown, and when first and last created and last shown. `topic_cleanup_days` sets how long a topic is kept.
        """
        self._access.flush()
        return self._transparency.stored(by)

    def shown_df(
        self,
        context_id: str | None = None,
        *,
        by: str | Sequence[str] = ("context_id", "agent"),
        agent: str | Sequence[str] | None = None,
        since: Any = None,
        until: Any = None,
    ) -> pd.DataFrame:
        """Return which contexts were shown to whom, how often and when, the most often first.

        `times` is `searches` that brought a context plus `reads` by its id. `by` names context_id, agent, topic,
        source, kind ("search", "read") or method. `accesses_df` has each time by itself. A deleted context's id still
        works; its topic and source are not known any more.
        """
        self._access.flush()
        ids = None if context_id is None else self._contexts.all_names(context_id)
        where = retrieval.between("at", since=since, until=until, now=self._clock())
        if agent is not None:
            agents = [agent] if isinstance(agent, str) else list(agent)
            where.append(Condition("agent", "in", [name_value(item, "agent") for item in agents]))
        return self._transparency.shown(by, ids=ids, where=where)

    def decision_contexts_df(self, decision_id: str) -> pd.DataFrame:
        """Return the contexts that a decision saw, in their order, as they are now.

        `changed_since` says that a context was changed after the decision, `superseded_by` what has replaced it, and
        `deleted` that only its id is left. Raises `DecisionNotFound`.
        """
        return self._transparency.seen(decision_id, contexts_of=self._contexts.by_ids)
