"""What can be read off a prompt without a model: numbers that a router learns from, and that cost nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import log1p
from typing import TYPE_CHECKING

from ..errors import InvalidValue, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

WORD = re.compile(r"[^\W\d_]+")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
DECIMAL = re.compile(r"\d[.,]\d")
SENTENCE_END = re.compile(r"[.!?…。？！](?:\s|$)")
QUESTION_WORD = re.compile(r"\b(?:how|what|when|where|which|who|whom|whose|why)\b", re.IGNORECASE)
REASON_WORD = re.compile(r"\b(?:because|compare|derive|explain|if|prove|reason|step|then|unless|why)\b", re.IGNORECASE)
CODE = re.compile(r"```|[{};]$|=>|==|\w\(\)|^(?:class|def|import|return) ", re.MULTILINE)
SYMBOL = re.compile(r"[%$€£=+*/^<>]")


def _share(pattern: re.Pattern[str], text: str) -> float:
    return len(pattern.findall(text)) / max(1, len(text))


def _mean_word_length(text: str) -> float:
    words = WORD.findall(text)
    return sum(map(len, words)) / max(1, len(words))


FEATURES: dict[str, Callable[[str], float]] = {
    "log_characters": lambda text: log1p(len(text)),
    "log_words": lambda text: log1p(len(WORD.findall(text))),
    "log_numbers": lambda text: log1p(len(NUMBER.findall(text))),
    "log_decimals": lambda text: log1p(len(DECIMAL.findall(text))),
    "log_sentences": lambda text: log1p(len(SENTENCE_END.findall(text))),
    "log_lines": lambda text: log1p(text.count("\n")),
    "log_code_marks": lambda text: log1p(len(CODE.findall(text))),
    "question_marks": lambda text: log1p(text.count("?")),
    "question_words": lambda text: log1p(len(QUESTION_WORD.findall(text))),
    "reason_words": lambda text: log1p(len(REASON_WORD.findall(text))),
    "symbol_share": lambda text: _share(SYMBOL, text),
    "capital_share": lambda text: sum(map(str.isupper, text)) / max(1, len(text)),
    "mean_word_length": _mean_word_length,
}


def feature_table(texts: Sequence[str], names: Sequence[str] = tuple(FEATURES)) -> FloatArray:
    """Return the features of texts, a row per text and a column per name. Raises `InvalidValue` for an unknown name.

    >>> feature_table(["What is 12 + 30?"], ["log_numbers", "question_marks"]).round(2).tolist()
    [[1.1, 0.69]]
    """
    import numpy as np

    for name in names:
        if name not in FEATURES:
            raise InvalidValue(f"there is no feature {name!r}{did_you_mean(name, FEATURES)}")
    rows = [[FEATURES[name](text) for name in names] for text in texts]
    return np.array(rows, dtype=np.float64).reshape(len(texts), len(names))
