"""A recommendation: settings, how sure it is of them, and the evidence. A plain value that YAML and JSON can hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, get_args

from .errors import InvalidValue, did_you_mean
from .records import Report
from .validation import metadata_value, moment, shortened

Kind = Literal["search", "threshold", "routing"]
Verdict = Literal["recommend", "keep", "cannot tell yet"]


@dataclass(frozen=True)
class Evidence:
    """What a recommendation rests on: `estimate` of `metric` with its interval, in the metric's unit; None is unknown.

    `held_out` tells whether the estimate comes from data that had no part in the choice, `data_hash` names the data,
    and `details` holds what else the tuner found, in JSON's types.
    """

    sample_size: int
    metric: str
    estimate: float | None
    low: float | None
    high: float | None
    held_out: bool
    data_hash: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.estimate is None:
            return f"{self.metric}: unknown (n = {self.sample_size:,})"
        bounds = "" if self.low is None or self.high is None else f" [{self.low:.4g}, {self.high:.4g}]"
        where = "held out" if self.held_out else "not held out"
        return f"{self.metric} {self.estimate:.4g}{bounds} (n = {self.sample_size:,}, {where})"


@dataclass(frozen=True)
class Binding:
    """The vectors that a recommendation is for; with others its numbers mean nothing. None: it does not matter."""

    embedding_model: str | None = None
    dimensions: int | None = None
    metric: str | None = None

    def __str__(self) -> str:
        known = [f"{self.dimensions} dimensions" if self.dimensions else None, self.metric]
        return ", ".join([str(self.embedding_model), *filter(None, known)]) if self.embedding_model else "any vectors"


@dataclass(frozen=True, repr=False)
class Recommendation:
    """Settings that a tuner recommends, or why it does not.

    `verdict` is "recommend"; "keep" where what is in force is as good as anything tried; or "cannot tell yet" where
    the data do not suffice. `because` says it in a sentence. `settings` are the values by name: under "cannot tell
    yet" the best candidate, if any. `version` names the content; without one it is made from it. `tables`
    are frames that the tuner found on the way, by name; they are no part of what `to_dict` returns. Raises `InvalidValue`.

    >>> evidence = Evidence(40, "nDCG@10 against the default", 0.021, 0.004, 0.039, held_out=True, data_hash="5f0c")
    >>> advice = Recommendation("search", {"text_weight": 0.6}, "recommend", "better on held-out queries", evidence,
    ...                         created_at="2026-05-01T12:00:00+00:00")
    >>> print(advice)
    kind        search
    settings    text_weight = 0.6
    verdict     recommend
    because     better on held-out queries
    evidence    nDCG@10 against the default 0.021 [0.004, 0.039] (n = 40, held out)
    bound_to    any vectors
    version     0155b5e1
    created_at  2026-05-01 12:00:00 UTC
    >>> Recommendation.from_dict(advice.to_dict()) == advice
    True
    """

    kind: Kind
    settings: Mapping[str, Any]
    verdict: Verdict
    because: str
    evidence: Evidence
    bound_to: Binding = Binding()
    version: str = ""
    created_at: datetime = field(kw_only=True)
    tables: Mapping[str, Any] = field(default_factory=dict, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, Kind), ("verdict", self.verdict, Verdict)):
            if value not in get_args(known):
                raise InvalidValue(f"{name}={shortened(value)}{did_you_mean(str(value), get_args(known))}")
        if not self.settings and self.verdict == "recommend":
            raise InvalidValue("a recommendation to change something needs settings: give {name: value}")
        object.__setattr__(self, "settings", metadata_value(self.settings, "settings"))
        object.__setattr__(self, "created_at", moment(self.created_at, "created_at"))
        if not self.version:
            content = [self.kind, self.settings, asdict(self.bound_to), self.evidence.data_hash]
            digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4)
            object.__setattr__(self, "version", digest.hexdigest())

    def to_dict(self) -> dict[str, Any]:
        """Return it in JSON's types, as `yaml.safe_dump` and `json.dumps` take it."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "tables"}
        evidence = {item.name: getattr(self.evidence, item.name) for item in fields(Evidence)}
        evidence["details"] = metadata_value(self.evidence.details, "details")
        made = {"evidence": evidence, "bound_to": asdict(self.bound_to), "created_at": self.created_at.isoformat()}
        return plain | made

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recommendation:
        """Build it from what `to_dict` returned. Raises `InvalidValue` for a key that is missing or unknown."""
        values = _known_keys(plain, cls, "recommendation")
        values["evidence"] = Evidence(**_known_keys(values.get("evidence"), Evidence, "evidence"))
        values["bound_to"] = Binding(**_known_keys(values.get("bound_to", {}), Binding, "bound_to"))
        return cls(**values)

    def _shown(self) -> Report:
        texts = {name: str(value) for name, value in self.settings.items()}
        pairs = ", ".join(f"{name} = {text if len(text) <= 80 else f'{text[:60]}…'}" for name, text in texts.items())
        shown = {item.name: getattr(self, item.name) for item in fields(self)}
        shown |= {"settings": pairs or "none", "created_at": f"{self.created_at:%Y-%m-%d %H:%M:%S} UTC"}
        names = ", ".join(shown.pop("tables"))
        return Report(shown | ({"tables": names} if names else {}))

    def __repr__(self) -> str:
        return repr(self._shown())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()


def _known_keys(plain: Any, kind: type, name: str) -> dict[str, Any]:
    from dataclasses import MISSING

    if not isinstance(plain, Mapping):
        raise InvalidValue(f"{name}={shortened(plain)} is a {type(plain).__name__}: give what to_dict() returned")
    known = {item.name: item for item in fields(kind) if item.name != "tables"}
    for key in plain:
        if key not in known:
            raise InvalidValue(f"{name} has the key {shortened(key)}{did_you_mean(str(key), known)}")
    for key, item in known.items():
        if key not in plain and item.default is MISSING and item.default_factory is MISSING:
            raise InvalidValue(f"{name} has no {key!r}: give what to_dict() returned")
    return dict(plain)
