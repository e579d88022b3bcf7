"""The graph of every family gives the hidden states that torch gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_models import FAMILIES, SIZES

from autom8_lab.embedding.onnx_encoder import open_session
from autom8_lab.embedding.onnx_graph import FAMILIES as KNOWN
from autom8_lab.embedding.onnx_graph import NotExportable, build_graph, relative_buckets

IDS = np.array([[0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 2], [0, 9, 1, 8, 2, 1, 1, 1, 1, 1, 1, 1]])
MASK = np.array([[1] * 12, [1] * 5 + [0] * 7])


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    with torch.inference_mode():
        yield


def torch_model(family: str, **config: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(11)
    settings = {"vocab_size": 20, "pad_token_id": 1, "max_position_embeddings": 40, **FAMILIES[family], **config}
    model = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**settings)).eval()
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    return model


def weights_of(model: Any) -> dict[str, Any]:
    return {name: weights.numpy() for name, weights in model.state_dict().items()}


def both(model: Any, path: Path) -> tuple[Any, Any]:
    """Return the hidden states of the graph and of torch, padding left out."""
    import torch

    path.write_bytes(build_graph(model.config, weights_of(model)).SerializeToString())
    session = open_session(path)
    found = session.run(["last_hidden_state"], {"input_ids": IDS, "attention_mask": MASK})[0]
    expected = model(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK))[0].numpy()
    return found[MASK == 1], expected[MASK == 1]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "Electra"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_the_graph_gives_torchs_hidden_states(family: str, activation: str, tmp_path: Path) -> None:
    names = {"DistilBert": "activation"}
    if family == "DistilBert" and activation == "gelu_new":
        pytest.skip("DistilBERT knows gelu and relu")
    model = torch_model(family, **{names.get(family, "hidden_act"): activation})
    found, expected = both(model, tmp_path / "model.onnx")
    assert found.dtype == np.float32
    assert np.abs(expected).mean() > 0.1
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_positions_of_robertas_line_leave_out_padding_inside_a_text(tmp_path: Path) -> None:
    # The second text of IDS has the padding's id among its words, as "<pad>" written in a text is.
    assert IDS[1, 2] == 1
    for family in ("Roberta", "MPNet"):
        found, expected = both(torch_model(family), tmp_path / "model.onnx")
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_mpnets_buckets_are_those_of_transformers() -> None:
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = np.arange(-600, 601)
    expected = MPNetEncoder.relative_position_bucket(torch.tensor(distances)).numpy()
    assert np.array_equal(relative_buckets(distances), expected)
    assert len(set(expected.tolist())) == 31


def test_the_same_weights_give_the_same_bytes() -> None:
    one, other = (torch_model("Bert") for _ in range(2))
    graphs = [build_graph(model.config, weights_of(model)).SerializeToString() for model in (one, other)]
    assert graphs[0] == graphs[1]


def test_what_is_not_of_the_family_is_refused_by_name() -> None:
    def refusal(**config: Any) -> str:
        with pytest.raises(NotExportable) as caught:
            build_graph(SimpleNamespace(**{"model_type": "bert", "hidden_act": "gelu", **config}), {})
        return str(caught.value)

    sizes = {**SIZES, "pad_token_id": 0, "layer_norm_eps": 1e-12}
    assert refusal(model_type="t5") == f"model type 't5' is not one of {', '.join(KNOWN)}"
    assert "decoder" in refusal(is_decoder=True)
    assert "'relative_key'" in refusal(position_embedding_type="relative_key")
    assert "activation 'silu' is not one of gelu" in refusal(**sizes, hidden_act="silu")
    assert "no weights named 'embeddings.position_embeddings.weight'" in refusal(**sizes)
