"""Learned routers: each predicts the quality of every model's answer to a prompt, and is plain numbers once fitted.

`fit(name, …)` learns with scikit-learn, `predict(name, …)` needs nothing but NumPy. Parameters are lists, numbers and
texts, as JSON and YAML have them, or arrays of the same; only the vectors that k nearest neighbours compare with are always
an array, of unit vectors: see `policies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

LEARNERS = ("knn", "linear", "boosted")
RIDGE_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
NEIGHBOURS = (10, 25, 50, 100)
BLOCK_PROMPTS = 1_000  # compared with all others at a time
TREES: Mapping[str, Any] = {
    "n_estimators": 100,
    "learning_rate": 0.05,
    "max_depth": 3,
    "min_samples_leaf": 10,
    "subsample": 0.7,
    "max_features": "sqrt",
}


class Inputs(NamedTuple):
    """What a router sees: features (prompts, features), and vectors (prompts, dimensions), either without columns."""

    features: FloatArray
    vectors: FloatArray

    def take(self, places: Any) -> Inputs:
        """Return the inputs of some of the prompts."""
        return Inputs(self.features[places], self.vectors[places])


def available(inputs: Inputs) -> list[str]:
    """Return the learners that can work with these inputs: neighbours need vectors."""
    some = inputs.vectors.shape[1] > 0
    if not some and not inputs.features.shape[1]:
        return []
    return [name for name in LEARNERS if some or name != "knn"]


def fit(name: str, inputs: Inputs, quality: FloatArray, *, seed: int) -> dict[str, Any]:
    """Return the parameters of a learner fitted to each model's quality, shape (prompts, models)."""
    if name == "knn":
        return _fit_neighbours(inputs, quality)
    scaling = _scaling(inputs.features)
    table = _design(inputs, scaling)
    found = _fit_linear(table, quality) if name == "linear" else _fit_boosted(table, quality, seed)
    return {**scaling, **found}


def predict(name: str, parameters: Mapping[str, Any], inputs: Inputs) -> FloatArray:
    """Return the quality that a fitted learner expects, shape (prompts, models)."""
    if name == "knn":
        return _predict_neighbours(parameters, inputs)
    table = _design(inputs, parameters)
    return _predict_linear(parameters, table) if name == "linear" else _predict_boosted(parameters, table)


def _scaling(features: FloatArray) -> dict[str, Any]:
    """Return centre and scale that give all features together a variance of 1, about that of a vector of length 1."""
    import numpy as np

    spread = features.std(axis=0)
    scale = np.where(spread > 0, spread, 1) * max(1, features.shape[1]) ** 0.5
    return {"center": features.mean(axis=0).tolist(), "scale": scale.tolist()}


def _design(inputs: Inputs, scaling: Mapping[str, Any]) -> FloatArray:
    """Return vectors and scaled features side by side."""
    import numpy as np

    scaled = (inputs.features - np.asarray(scaling["center"])) / np.asarray(scaling["scale"])
    return np.hstack([inputs.vectors, scaled])


# Linear: ridge regression, its penalty by leave-one-out


def _fit_linear(table: FloatArray, quality: FloatArray) -> dict[str, Any]:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(RIDGE_PENALTIES, alpha_per_target=True).fit(table, quality)
    return {
        "coefficients": model.coef_.tolist(),
        "intercepts": model.intercept_.tolist(),
        "penalty": model.alpha_.tolist(),
    }


def _predict_linear(parameters: Mapping[str, Any], table: FloatArray) -> FloatArray:
    import numpy as np

    expected: FloatArray = table @ np.asarray(parameters["coefficients"]).T + np.asarray(parameters["intercepts"])
    return expected


# k nearest neighbours by cosine, k by leave-one-out


def _fit_neighbours(inputs: Inputs, quality: FloatArray) -> dict[str, Any]:
    import numpy as np

    unit = unit_vectors(inputs.vectors)
    sizes = [size for size in NEIGHBOURS if size < len(quality)] or [len(quality) - 1]
    errors = np.zeros(len(sizes))
    for start in range(0, len(unit), BLOCK_PROMPTS):
        closeness = unit[start : start + BLOCK_PROMPTS] @ unit.T
        own = np.arange(len(closeness))
        closeness[own, own + start] = -np.inf
        for place, size in enumerate(sizes):
            left_out = _of_the_nearest(closeness, quality, size) - quality[start : start + BLOCK_PROMPTS]
            errors[place] += (left_out**2).sum()
    return {"neighbours": sizes[int(np.argmin(errors.round(9)))], "quality": quality.tolist(), "vectors": unit}


def _predict_neighbours(parameters: Mapping[str, Any], inputs: Inputs) -> FloatArray:
    import numpy as np

    quality = np.asarray(parameters["quality"])
    closeness = unit_vectors(inputs.vectors) @ parameters["vectors"].T
    return _of_the_nearest(closeness, quality, min(int(parameters["neighbours"]), len(quality)))


def _of_the_nearest(closeness: FloatArray, quality: FloatArray, size: int) -> FloatArray:
    """Return the mean quality of the nearest; those that are equally near share the last places among them.

    So neither the order of the prompts nor the rounding of one processor decides between them.
    """
    import numpy as np

    closeness = closeness.round(9)
    farthest = np.partition(closeness, -size, axis=1)[:, -size, None]
    nearer, last = closeness > farthest, closeness == farthest
    share = (size - nearer.sum(axis=1, keepdims=True)) / last.sum(axis=1, keepdims=True)
    expected: FloatArray = (nearer + share * last) @ quality / size
    return expected


def unit_vectors(vectors: FloatArray) -> FloatArray:
    """Return the vectors at length 1; one without a length stays."""
    import numpy as np

    unit: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


# Boosted trees (Friedman 2002, "Stochastic gradient boosting")


def _fit_boosted(table: FloatArray, quality: FloatArray, seed: int) -> dict[str, Any]:
    from sklearn.ensemble import GradientBoostingRegressor

    bases, forests = [], []
    for column in quality.T:
        model = GradientBoostingRegressor(**TREES, random_state=seed).fit(table, column)
        bases.append(float(column.mean()))
        forests.append([_plain_tree(stage[0].tree_, float(TREES["learning_rate"])) for stage in model.estimators_])
    return {"bases": bases, "forests": forests}


def _plain_tree(tree: Any, rate: float) -> dict[str, list[Any]]:
    """Return a tree as lists over its nodes: a leaf's feature is -1, its value is what it adds."""
    leaf = tree.children_left < 0
    return {
        "feature": [-1 if end else int(number) for end, number in zip(leaf, tree.feature, strict=True)],
        "threshold": [0.0 if end else float(value) for end, value in zip(leaf, tree.threshold, strict=True)],
        "left": tree.children_left.tolist(),
        "right": tree.children_right.tolist(),
        "value": [float(value) * rate if end else 0.0 for end, value in zip(leaf, tree.value[:, 0, 0], strict=True)],
    }


class Forest(NamedTuple):
    """Trees as arrays (trees, nodes), shorter ones filled up with leaves."""

    feature: Any
    threshold: Any
    left: Any
    right: Any
    value: Any


def packed(trees: Sequence[Mapping[str, Sequence[Any]]]) -> Forest:
    """Return plain trees as the arrays that `_predict_boosted` walks."""
    import numpy as np

    nodes = max((len(tree["feature"]) for tree in trees), default=1)
    fields = []
    for name, empty in zip(Forest._fields, (-1, 0.0, 0, 0, 0.0), strict=True):
        table = np.full((len(trees), nodes), empty)
        for place, tree in enumerate(trees):
            table[place, : len(tree[name])] = tree[name]
        fields.append(table)
    return Forest(*fields)


def _predict_boosted(parameters: Mapping[str, Any], table: FloatArray) -> FloatArray:
    import numpy as np

    # scikit-learn compares what it rounded to 32 bits.
    values = table.astype(np.float32)
    columns = []
    for base, trees in zip(parameters["bases"], parameters["forests"], strict=True):
        forest = trees if isinstance(trees, Forest) else packed(trees)
        each = np.arange(len(forest.feature))[None, :]
        node = np.zeros((len(values), len(forest.feature)), dtype=np.int64)
        while (inner := forest.feature[each, node] >= 0).any():
            value = np.take_along_axis(values, np.maximum(forest.feature[each, node], 0), axis=1)
            below = np.where(value <= forest.threshold[each, node], forest.left[each, node], forest.right[each, node])
            node = np.where(inner, below, node)
        columns.append(base + forest.value[each, node].sum(axis=1))
    return np.column_stack(columns)


# Calibration: what was expected to what came


class Calibration(NamedTuple):
    """A model's expected quality x becomes intercept + slope × x, or, for right or wrong, the logistic of that."""

    logistic: bool
    intercept: float
    slope: float


def calibrate(expected: FloatArray, quality: FloatArray) -> Calibration:
    """Fit one model's calibration on predictions for prompts that its learner did not see.

    Platt's logistic curve for qualities of 0 and 1 (Platt 1999), else a line. Where the quality falls as the
    expectation rises, or there is but one value, nothing was learned: the mean.
    """
    import numpy as np

    binary = bool(np.isin(quality, (0.0, 1.0)).all())
    if expected.std() < 1e-12 or quality.std() < 1e-12 or np.cov(expected, quality)[0, 1] <= 0:
        return Calibration(False, float(quality.mean()), 0.0)
    if not binary:
        slope, intercept = np.polyfit(expected, quality, 1)
        return Calibration(False, float(intercept), float(slope))
    from sklearn.linear_model import LogisticRegression

    # The scaled predictor keeps the solver away from slopes of thousands; C this large means no penalty.
    center, spread = float(expected.mean()), float(expected.std())
    model = LogisticRegression(C=1e6, solver="newton-cholesky", tol=1e-10).fit(
        ((expected - center) / spread)[:, None], quality.astype(int)
    )
    slope = float(model.coef_[0, 0]) / spread
    return Calibration(True, float(model.intercept_[0]) - slope * center, slope)


def calibrated(expected: FloatArray, calibrations: Sequence[Sequence[Any]]) -> FloatArray:
    """Return expected qualities (prompts, models) after each model's calibration."""
    import numpy as np

    columns = []
    for column, (logistic, intercept, slope) in zip(expected.T, calibrations, strict=True):
        line = intercept + slope * column
        columns.append(1 / (1 + np.exp(-np.clip(line, -700, 700))) if logistic else line)
    return np.column_stack(columns)
