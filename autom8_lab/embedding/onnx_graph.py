"""BERT and its relatives as ONNX graphs, built from a model's configuration and weights.

Devlin et al. 2019 (arXiv:1810.04805), RoBERTa (arXiv:1907.11692), MPNet (arXiv:2004.09297), DistilBERT
(arXiv:1910.01108). PyTorch's own exporter is not used: the one that needs no further packages is going to be removed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

    from .encoders import Vectors

OPSET = 20  # the first with Gelu
IR_VERSION = 9
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "last_hidden_state"
ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}
MPNET_BUCKETS, MPNET_MAX_DISTANCE = 32, 128


class NotExportable(Exception):
    """A model has no graph here; the message says why."""


@dataclass(frozen=True)
class Family:
    """The names of a family's weights, inside a layer, and how it counts positions."""

    layer: str
    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    up: str
    down: str
    norm: str
    positions_after_padding: bool = False


BERT = Family(
    layer="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)
ROBERTA = replace(BERT, positions_after_padding=True)
MPNET = replace(
    ROBERTA,
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_out="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
DISTILBERT = Family(
    layer="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
)
FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "mpnet": MPNET,
    "distilbert": DISTILBERT,
}


def build_graph(config: Any, weights: Mapping[str, Vectors]) -> ModelProto:
    """Return the graph from token ids and attention mask to the last hidden state, shapes (batch, tokens[, width]).

    `config` is the model's transformers configuration. Raises `NotExportable` for a family or a variant that is not
    one of `FAMILIES`.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise NotExportable(f"model type {config.model_type!r} is not one of {', '.join(FAMILIES)}")
    if getattr(config, "is_decoder", False):
        raise NotExportable("the model is a decoder")
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise NotExportable(f"position_embedding_type={config.position_embedding_type!r} is not absolute")
    try:
        return _Encoder(config, weights, family).model()
    except KeyError as exc:
        raise NotExportable(f"the model has no weights named {exc}") from exc


class _Graph:
    """Nodes and constants of a graph that is being written, each output under a number."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = None) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(value, dtype=dtype) if np.ndim(value) else np.asarray(value, dtype=dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name


class _Encoder(_Graph):
    def __init__(self, config: Any, weights: Mapping[str, Vectors], family: Family) -> None:
        super().__init__()
        self.weights = weights
        self.family = family
        self.layers = int(config.num_hidden_layers)
        self.heads = int(config.num_attention_heads)
        self.width = int(config.hidden_size)
        self.pad_id = int(config.pad_token_id or 0)
        self.epsilon = float(getattr(config, "layer_norm_eps", 1e-12))  # DistilBERT has it in its code
        activation = getattr(config, "hidden_act", None) or config.activation
        if activation not in ACTIVATIONS:
            raise NotExportable(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[activation]

    def model(self) -> ModelProto:
        """Write all nodes and return the model."""
        from onnx import TensorProto, helper

        hidden = self.embeddings()
        blocked = self.attention_bias()
        for number in range(self.layers):
            output = OUTPUT if number == self.layers - 1 else None
            hidden = self.layer(hidden, blocked, f"{self.family.layer}.{number}", output)
        shape = ["batch", "tokens"]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in INPUTS]
        outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [*shape, self.width])]
        graph = helper.make_graph(self.nodes, "encoder", inputs, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def embeddings(self) -> str:
        """Words and positions added and normalised; every token is of the first type."""
        positions = self.weights["embeddings.position_embeddings.weight"]
        types = self.weights.get("embeddings.token_type_embeddings.weight")
        table = self.constant(positions if types is None else positions + types[0])
        words = self.add("Gather", self.constant(self.weights["embeddings.word_embeddings.weight"]), INPUTS[0])
        total = self.add("Add", words, self.add("Gather", table, self.positions()))
        return self.normalised(total, "embeddings.LayerNorm")

    def token_count(self) -> str:
        """The longest text of the batch, as a number without dimensions."""
        return self.add("Gather", self.add("Shape", INPUTS[0]), self.constant(1, np.int64))

    def arange(self) -> str:
        return self.add("Range", self.constant(0, np.int64), self.token_count(), self.constant(1, np.int64))

    def positions(self) -> str:
        """0, 1, 2 …; in RoBERTa's line the tokens that are not padding count on from the padding's own position."""
        if not self.family.positions_after_padding:
            return self.arange()
        pad = self.constant(self.pad_id, np.int64)
        is_text = self.add("Cast", self.add("Not", self.add("Equal", INPUTS[0], pad)), to=7)
        counted = self.add("Mul", self.add("CumSum", is_text, self.constant(1, np.int64)), is_text)
        return self.add("Add", counted, pad)

    def attention_bias(self) -> str:
        """What is added to the attention's scores: nothing, or so little to padding that it has no weight."""
        mask = self.add("Unsqueeze", self.add("Cast", INPUTS[1], to=1), self.constant([1, 2], np.int64))
        absent = self.add("Sub", self.constant(1, np.float32), mask)
        bias = self.add("Mul", absent, self.constant(np.finfo(np.float32).min, np.float32))
        relative = self.weights.get("encoder.relative_attention_bias.weight")
        return bias if relative is None else self.add("Add", bias, self.relative_bias(relative))

    def relative_bias(self, table: Vectors) -> str:
        """MPNet's learned bias for the distance of two tokens, shape (heads, tokens, tokens)."""
        longest = len(self.weights["embeddings.position_embeddings.weight"])
        by_distance = table[relative_buckets(np.arange(1 - longest, longest))]
        places = self.arange()
        across, down = (self.add("Unsqueeze", places, self.constant([axis], np.int64)) for axis in (0, 1))
        distance = self.add("Sub", across, down)
        index = self.add("Add", distance, self.constant(longest - 1, np.int64))
        return self.add("Transpose", self.add("Gather", self.constant(by_distance), index), perm=[2, 0, 1])

    def layer(self, hidden: str, bias: str, prefix: str, output: str | None) -> str:
        """Attention and feed-forward, each added to its input and normalised."""
        names = self.family
        attended = self.linear(self.attention(hidden, bias, prefix), f"{prefix}.{names.attention_out}")
        hidden = self.normalised(self.add("Add", attended, hidden), f"{prefix}.{names.attention_norm}")
        operator, attributes = self.activation
        widened = self.add(operator, self.linear(hidden, f"{prefix}.{names.up}"), **attributes)
        result = self.add("Add", self.linear(widened, f"{prefix}.{names.down}"), hidden)
        return self.normalised(result, f"{prefix}.{names.norm}", output)

    def attention(self, hidden: str, bias: str, prefix: str) -> str:
        """Scaled dot-product attention of every head, the heads' results side by side."""
        names, size = self.family, self.width // self.heads
        split = self.constant([0, 0, self.heads, size], np.int64)
        query, key, value = (
            self.add("Reshape", self.linear(hidden, f"{prefix}.{name}"), split)
            for name in (names.query, names.key, names.value)
        )
        query, value = (self.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
        key = self.add("Transpose", key, perm=[0, 2, 3, 1])
        scores = self.add("Div", self.add("MatMul", query, key), self.constant(math.sqrt(size), np.float32))
        weights = self.add("Softmax", self.add("Add", scores, bias), axis=-1)
        heads = self.add("Transpose", self.add("MatMul", weights, value), perm=[0, 2, 1, 3])
        return self.add("Reshape", heads, self.constant([0, 0, self.width], np.int64))

    def linear(self, value: str, name: str) -> str:
        product = self.add("MatMul", value, self.constant(self.weights[f"{name}.weight"].T))
        return self.add("Add", product, self.constant(self.weights[f"{name}.bias"]))

    def normalised(self, value: str, name: str, output: str | None = None) -> str:
        scale, shift = (self.constant(self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.add("LayerNormalization", value, scale, shift, axis=-1, epsilon=self.epsilon, output=output)


def relative_buckets(distance: Any) -> Any:
    """Return MPNet's bucket of each distance: near ones one by one, far ones by their logarithm, both directions."""
    half, exact = MPNET_BUCKETS // 2, MPNET_BUCKETS // 4
    away = np.abs(distance).astype(np.float32)
    with np.errstate(divide="ignore"):
        ratio = np.log(away / np.float32(exact)) / np.float32(math.log(MPNET_MAX_DISTANCE / exact))
    far = np.minimum(exact + np.nan_to_num(ratio * (half - exact), neginf=0).astype(np.int64), half - 1)
    return np.where(away < exact, away.astype(np.int64), far) + np.where(distance > 0, half, 0)
