"""Routing policies: plain values that say which model a prompt goes to, and what applies them.

A policy is a dict in JSON's types:

- `kind`: "always", "mixing", "length", "linear", "knn" or "boosted";
- `candidates`: the models, the cheapest first, and `expense`: how dear each is, from 0 to 1;
- `threshold`: a prompt goes to the model with the best score - threshold × expense; of equal ones to the dearest;
- `epsilon`: with this probability any candidate is drawn instead, so that other policies can be judged later;
- `parameters`: "length" and "always" have none; "mixing" has the shares; a learned one what `learners.fit` found;
- `embedding`: the model whose vectors it takes (model, dimensions), None where it needs none;
- `evidence`: what it was chosen by; `version`: a name for all of the above but the evidence.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..entries import share_value
from ..errors import InvalidValue, did_you_mean
from ..validation import metadata_value, name_value, shortened
from .features import feature_table
from .learners import LEARNERS, Inputs, calibrated, packed, predict, unit_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]
    FindVectors = Callable[[str, Sequence[str]], FloatArray]

SETTING = "routing_policy"
KINDS = ("always", "mixing", "length", *LEARNERS)
KEYS = ("kind", "candidates", "expense", "threshold", "epsilon", "parameters", "embedding", "evidence", "version")
MOST_VALUES = 180_000  # of vectors inside a policy: what a setting may hold


def make_policy(
    kind: str,
    candidates: Sequence[str],
    *,
    threshold: float | None = None,
    expense: Sequence[float] | None = None,
    parameters: Mapping[str, Any] | None = None,
    embedding: Mapping[str, Any] | None = None,
    epsilon: float = 0.0,
    evidence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a policy with its version; see this module's head. Raises `InvalidValue`.

    >>> make_policy("length", ["gpt-4o-mini", "gpt-4o"], threshold=400)["version"]
    '660c76b0'
    """
    made = {
        "kind": kind,
        "candidates": list(candidates),
        "expense": list(expense) if expense is not None else _even(len(candidates)),
        "threshold": threshold,
        "epsilon": epsilon,
        "parameters": dict(parameters or {}),
        "embedding": None if embedding is None else dict(embedding),
        "evidence": dict(evidence or {}),
    }
    return policy_value(made)


def _even(count: int) -> list[float]:
    return [place / max(1, count - 1) for place in range(count)]


def policy_value(given: object) -> dict[str, Any]:
    """Return a policy, checked, in JSON's types and with its version. Raises `InvalidValue` naming what is wrong."""
    if not isinstance(given, Mapping):
        raise InvalidValue(f"policy={shortened(given)} is a {type(given).__name__}: give a policy, a dict with 'kind'")
    for key in given:
        if key not in KEYS:
            raise InvalidValue(f"the policy has the key {shortened(key)}{did_you_mean(str(key), KEYS)}")
    policy = metadata_value({name: given.get(name) for name in KEYS}, "policy")
    if policy["kind"] not in KINDS:
        raise InvalidValue(
            f"the policy's kind is {shortened(policy['kind'])}{did_you_mean(str(policy['kind']), KINDS)}"
        )
    policy["candidates"] = _candidates(policy)
    policy["expense"] = _expense(policy)
    policy["epsilon"] = share_value(policy["epsilon"] or 0.0, "the policy's epsilon")
    policy["parameters"] = policy["parameters"] or {}
    policy["evidence"] = policy["evidence"] or {}
    _check_kind(policy)
    content = [policy[name] for name in KEYS if name not in ("evidence", "version")]
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
    # Made anew, so that a policy that somebody edits does not go on under the old name.
    return {**policy, "version": digest}


def _candidates(policy: Mapping[str, Any]) -> list[str]:
    names = policy["candidates"]
    if not isinstance(names, list) or not names:
        raise InvalidValue(f"the policy's candidates are {shortened(names)}: give a list of models, the cheapest first")
    checked = [name_value(name, "a candidate of the policy") for name in names]
    if len(set(checked)) < len(checked):
        raise InvalidValue(f"the policy's candidates {shortened(names)} name one twice")
    wanted = {"always": (1, 1), "length": (2, 2)}.get(policy["kind"], (2, 1_000))
    if not wanted[0] <= len(checked) <= wanted[1]:
        raise InvalidValue(f"a policy of kind {policy['kind']!r} has {len(checked)} candidates: give {wanted[0]}")
    return checked


def _expense(policy: Mapping[str, Any]) -> list[float]:
    values = policy["expense"] if policy["expense"] is not None else _even(len(policy["candidates"]))
    if not isinstance(values, list) or len(values) != len(policy["candidates"]):
        raise InvalidValue(f"the policy's expense is {shortened(values)}: give a number from 0 to 1 for each candidate")
    return [share_value(value, "an expense of the policy") for value in values]


def _check_kind(policy: dict[str, Any]) -> None:
    kind, parameters = policy["kind"], policy["parameters"]
    if kind in ("always", "mixing"):
        policy["threshold"] = 0.0
    elif isinstance(policy["threshold"], bool) or not isinstance(policy["threshold"], int | float):
        raise InvalidValue(f"the policy's threshold is {shortened(policy['threshold'])}: give a number")
    if kind == "mixing":
        shares = parameters.get("shares")
        if not isinstance(shares, list) or len(shares) != len(policy["candidates"]) or abs(sum(shares) - 1) > 1e-9:
            raise InvalidValue(f"the shares of a mixing policy are {shortened(shares)}: give one each that add up to 1")
        parameters["shares"] = [share_value(share, "a share of the policy") for share in shares]
    if kind in LEARNERS and not {"features", "calibration"} <= set(parameters):
        raise InvalidValue(f"a policy of kind {kind!r} needs the parameters that al.fit_router() finds")
    embedding = policy["embedding"]
    if embedding is not None and not (isinstance(embedding, dict) and isinstance(embedding.get("dimensions"), int)):
        raise InvalidValue(f"the policy's embedding is {shortened(embedding)}: give model and dimensions, or None")


def plain_vectors(vectors: FloatArray, stored: tuple[str, Sequence[str]] | None) -> dict[str, Any] | None:
    """Return vectors as a policy can hold them: names under which the lab keeps them, else their numbers as base64.

    `stored` is the embedding model's id and the vectors' names. None where there are too many for a setting.
    """
    import numpy as np

    if stored is not None:
        return {"model": stored[0], "stored": list(stored[1])}
    if vectors.size > MOST_VALUES:
        return None
    numbers = base64.b64encode(vectors.astype("<f4").tobytes()).decode()
    return {"shape": list(vectors.shape), "float32": numbers} if np.isfinite(vectors).all() else None


class Router:
    """A policy that is ready to be applied. Raises `InvalidValue` where it is no policy, or its vectors are gone."""

    def __init__(self, policy: Mapping[str, Any], *, find_vectors: FindVectors | None = None) -> None:
        import numpy as np

        self.policy = policy_value(policy)
        self.kind: str = self.policy["kind"]
        self.candidates: list[str] = self.policy["candidates"]
        self.version: str = self.policy["version"]
        self.epsilon: float = self.policy["epsilon"]
        self.embedding: Mapping[str, Any] | None = self.policy["embedding"]
        self._penalty = np.asarray(self.policy["expense"]) * self.policy["threshold"]
        self._dearest_first = np.argsort(self.policy["expense"], kind="stable")[::-1]
        self._parameters = self._prepared(dict(self.policy["parameters"]), find_vectors)
        self._try()

    def _prepared(self, parameters: dict[str, Any], find_vectors: FindVectors | None) -> dict[str, Any]:
        """Return the parameters as arrays, so that a route need not make them anew."""
        import numpy as np

        try:
            for name in ("center", "scale", "coefficients", "intercepts", "quality"):
                if name in parameters:
                    parameters[name] = np.asarray(parameters[name], dtype=np.float64)
            if "forests" in parameters:
                parameters["forests"] = [packed(trees) for trees in parameters["forests"]]
            if self.kind == "knn":
                parameters["vectors"] = unit_vectors(_array(parameters["vectors"], find_vectors))
        except (KeyError, TypeError, ValueError) as error:
            raise self._unusable(error) from error
        return parameters

    def _try(self) -> None:
        """Score a prompt: parameters that do not fit together are found when the policy comes, not when a prompt does."""
        import numpy as np

        vectors = None if self.embedding is None else np.zeros((1, int(self.embedding["dimensions"])))
        try:
            with np.errstate(all="ignore"):
                scores = self.scores(["?"], vectors)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self._unusable(error) from error
        if scores.shape != (1, len(self.candidates)) or not np.isfinite(scores).all():
            raise self._unusable("they do not give a number for each candidate")

    def _unusable(self, error: object) -> InvalidValue:
        if isinstance(error, InvalidValue):
            return error
        kind = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
        return InvalidValue(
            f"the parameters of the {self.kind!r} policy cannot be used ({kind}): take al.fit_router()'s"
        )

    def scores(self, texts: Sequence[str], vectors: ArrayLike | None = None) -> FloatArray:
        """Return a score per prompt and candidate: the expected quality, of "length" the characters. Higher is better."""
        import numpy as np

        count = len(texts)
        if self.kind == "length":
            lengths = np.array([len(text) for text in texts], dtype=np.float64)
            return np.column_stack([np.zeros(count), lengths])
        if self.kind == "mixing":
            return np.tile(self._parameters["shares"], (count, 1))
        if self.kind == "always":
            return np.ones((count, 1))
        wanted = 0 if self.embedding is None else int(self.embedding["dimensions"])
        given = np.empty((count, 0)) if vectors is None else np.asarray(vectors, dtype=np.float64)
        if given.shape != (count, wanted):
            raise InvalidValue(
                f"the policy needs vectors of {wanted} dimensions for {count} prompts, not {given.shape}"
            )
        inputs = Inputs(feature_table(texts, self._parameters["features"]), given)
        return calibrated(predict(self.kind, self._parameters, inputs), self._parameters["calibration"])

    def best(self, scores: FloatArray) -> IntArray:
        """Return the position of the candidate that each row of scores leads to, chance aside."""
        order = self._dearest_first
        chosen: IntArray = order[(scores - self._penalty)[:, order].argmax(axis=1)]
        return chosen

    def probabilities(self, scores: FloatArray, *, epsilon: float | None = None) -> FloatArray:
        """Return with which probability each candidate is chosen, shape (prompts, candidates)."""
        import numpy as np

        explored = self.epsilon if epsilon is None else epsilon
        if self.kind == "mixing":
            sure = np.asarray(scores, dtype=np.float64)
        else:
            sure = np.zeros(scores.shape)
            sure[np.arange(len(scores)), self.best(scores)] = 1.0
        mixed: FloatArray = (1 - explored) * sure + explored / len(self.candidates)
        return mixed


def _array(held: Any, find_vectors: FindVectors | None) -> FloatArray:
    import numpy as np

    if isinstance(held, Mapping) and "stored" in held and find_vectors is not None:
        return find_vectors(str(held["model"]), list(held["stored"]))
    if isinstance(held, Mapping) and "float32" in held:
        numbers = np.frombuffer(base64.b64decode(held["float32"]), dtype="<f4")
        return numbers.astype(np.float64).reshape(held["shape"])
    raise InvalidValue("the policy's vectors are kept in a lab: apply it there, al.route(prompt, policy=policy)")
