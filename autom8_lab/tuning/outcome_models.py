"""What an action would have brought: a cross-fitted outcome model, a small ridge regression per action.

It is linear in the features and in how far they are above their quartiles, so that it can bend there: a straight line
through outcomes that are curved gives intervals that miss the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

RIDGE = 1.0  # one observation's worth, on features of variance 1
BENDS = (0.25, 0.5, 0.75)  # quantiles of a feature
ROWS_TO_BEND = 20  # for each number that is fitted to an action
PRIOR_COUNT = 1.0  # observations of the overall mean that each action begins with


class Fitted(NamedTuple):
    """Predicted outcomes of each row (rows, actions), and how much each row's outcome weighs in the direct estimate."""

    predicted: FloatArray
    influence: FloatArray


def folds_of(groups: IntArray, folds: int, seed: int) -> IntArray:
    """Return each row's fold, drawn by group: equal prompts are never on both sides. At most one fold per group."""
    import numpy as np

    count = int(groups.max()) + 1
    order = np.random.default_rng(seed).permutation(count)
    fold_of_group = np.empty(count, dtype=np.int64)
    fold_of_group[order] = np.arange(count) % min(folds, count)
    return fold_of_group[groups]


def cross_fitted(
    reward: FloatArray,
    action: IntArray,
    target: FloatArray,
    features: FloatArray,
    fold: IntArray,
) -> Fitted:
    """Predict each row's outcome of every action from the rows of the other folds.

    `action` has the positions that were chosen, `target` the probabilities of the policy to be judged (rows, actions),
    `features` are columns of any scale. An action that the other folds never chose is predicted by the overall mean.
    """
    import numpy as np

    rows, actions = target.shape
    design = np.column_stack([np.ones(rows), _bent(_standardised(features), actions)])
    penalty = np.diag([PRIOR_COUNT, *[RIDGE] * (design.shape[1] - 1)])
    predicted, influence = np.empty((rows, actions)), np.zeros(rows)
    for part in range(int(fold.max()) + 1):
        inside = fold == part
        # A single fold has nothing outside: it is fitted on itself.
        outside = ~inside if (~inside).any() else inside
        mean = reward[outside].mean()
        for place in range(actions):
            own = outside & (action == place)
            gram = design[own].T @ design[own] + penalty
            weights = np.linalg.solve(gram, design[own].T @ (reward[own] - mean))
            predicted[inside, place] = mean + design[inside] @ weights
            wanted = (target[inside, place][:, None] * design[inside]).sum(axis=0)
            influence[own] += design[own] @ np.linalg.solve(gram, wanted)
    return Fitted(predicted, influence)


def _bent(features: FloatArray, actions: int) -> FloatArray:
    """Add how far features are above their quartiles, where there are rows enough to tell."""
    import numpy as np

    rows, count = features.shape
    if not count or rows < ROWS_TO_BEND * actions * (1 + count * (1 + len(BENDS))):
        return features
    return _standardised(
        np.column_stack([features, *(np.maximum(features - knot, 0) for knot in np.quantile(features, BENDS, axis=0))])
    )


def _standardised(features: FloatArray) -> FloatArray:
    import numpy as np

    spread = features.std(axis=0)
    varied = features[:, spread > 0]
    scaled: FloatArray = (varied - varied.mean(axis=0)) / np.where(spread > 0, spread, 1)[spread > 0]
    return scaled
