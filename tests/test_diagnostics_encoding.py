"""Encoding figures: what is called by hand gives the model's vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from autom8_lab.diagnostics.figures.encoding import BareModel, encode_figures
from autom8_lab.diagnostics.figures.material import Bench, Sizes
from autom8_lab.embedding import load_encoder
from autom8_lab.embedding.encoders import HashEncoder
from autom8_lab.embedding.model_files import offline_model_path

SIZES = Sizes(calls=3, repeats=1)


@pytest.fixture(scope="module")
def model() -> Any:
    if offline_model_path() is None:
        pytest.skip("the extra offline-model is not installed")
    return load_encoder("all-MiniLM-L6-v2", backend="onnx")


def test_by_hand_the_model_gives_the_same_vectors(model: Any) -> None:
    bare = BareModel(model)
    for text in ("who must agree to give money back?", "gpt-4o-mini", "a"):
        assert float(bare.encode(text) @ model.encode_query(text)) > 0.99999
        assert np.linalg.norm(bare.encode(text)) == pytest.approx(1)


def test_a_model_is_compared_with_its_graph_called_by_hand(model: Any, tmp_path: Path) -> None:
    (made,) = encode_figures(Bench(tmp_path, SIZES, 0, model, is_model=True))
    assert (made["against"], made["how"], made["unit"]) == (
        "onnxruntime and tokenizers",
        "short, all-MiniLM-L6-v2",
        "ms",
    )
    assert made["ratio"] > 0


def test_what_has_no_graph_is_measured_alone(tmp_path: Path) -> None:
    encoder = Asked()
    (made,) = encode_figures(Bench(tmp_path, SIZES, 0, cast(Any, encoder), is_model=False))
    assert made["against"] is None
    assert len(set(encoder.asked)) == len(encoder.asked) == SIZES.calls * (SIZES.repeats + 1)


class Asked(HashEncoder):
    def __init__(self) -> None:
        super().__init__(dimensions=8)
        self.asked: list[str] = []

    def encode_query(self, text: str) -> Any:
        self.asked.append(text)
        return super().encode_query(text)
