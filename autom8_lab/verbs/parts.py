"""What the verbs of a lab work with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .. import retrieval
from ..access import AccessLog
from ..analysis.of_lab import Analysis
from ..analysis.transparency import Transparency
from ..applied import AppliedSettings
from ..contexts import Contexts
from ..errors import InvalidValue
from ..indexing import Index
from ..judgments import Judgments
from ..ledger import Ledger
from ..pricing import PriceBook
from ..records import Condition
from ..retrieval import Retrieval
from ..storing import Storing
from ..tuning.of_lab import Tuning
from ..tuning.routes_of_lab import Routing
from ..tuning.watch import Watch
from ..validation import positive_integer

if TYPE_CHECKING:
    from ..config import LabConfig
    from ..embedding import Encoder


def utc_now() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def limit_value(limit: int | None) -> int | None:
    """Return a `limit` argument, checked. Raises `InvalidValue`."""
    return None if limit is None else positive_integer(limit, "limit", at_most=10**9)


class Parts:
    """Builds the parts of one lab and wires them."""

    def __init__(
        self,
        config: LabConfig,
        *,
        encoder: Encoder | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        from ..storage import open_storage

        if encoder is not None and not hasattr(encoder, "encode_documents"):
            raise InvalidValue(f"encoder={encoder!r} has no encode_documents: give an Encoder, or embedding_model=name")
        if clock().tzinfo is None:
            raise InvalidValue(f"clock={clock!r} returns times without a time zone: return datetime.now(UTC)")
        self.config = config
        self._clock = clock
        prices = PriceBook(config.prices_path)
        self._storage = open_storage(config)
        try:
            self._index = Index(self._storage, config, encoder=encoder, clock=clock)
        except BaseException:
            self._storage.close()
            raise
        self._contexts = Contexts(self._storage, self._index, clock=clock)
        self._storing = Storing(self._storage, self._contexts, clock=clock)
        self._retrieval = Retrieval(self._storage, self._index, clock=clock)
        self._applied = AppliedSettings(self._storage, self._index, config, clock=clock)
        self._access = AccessLog(self._storage, enabled=config.access_log, agent=config.agent, clock=clock)
        self._ledger = Ledger(self._storage, prices, resolve=self._contexts.resolve, clock=clock, agent=config.agent)
        self._analysis = Analysis(self._storage, self._ledger, clock=clock)
        self._transparency = Transparency(self._storage, clock=clock)
        judgments = Judgments(self._storage, agent=config.agent, clock=clock)
        self._tuning = Tuning(self._index, self._retrieval, self._contexts, self._applied, judgments, clock=clock)
        self._routing = Routing(self._storage, self._index, self._ledger, self._analysis, self._applied, clock=clock)
        self._watch = Watch(self._storage, self._access, self._applied, clock=clock)

    def _where(self, **filters: Any) -> list[Condition]:
        return retrieval.conditions(now=self._clock(), **filters)
