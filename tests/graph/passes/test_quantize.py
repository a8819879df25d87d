"""Layers that round stand where integer arithmetic rounds, and go without a trace."""

from __future__ import annotations

import numpy as np
import pytest

from unitrain.backends.numpy.model import NumpyModel
from unitrain.graph.graph import Graph
from unitrain.graph.passes.quantize import insert_fake_quantize, without_fake_quantize
from unitrain.graph.resolve import resolve
from unitrain.graph.respell import spec_of
from unitrain.spec.errors import InputError
from unitrain.spec.layers import FakeQuantize
from unitrain.spec.model import ModelSpec
from unitrain.spec.quantization import Quantization
from unitrain.weights.initialize import initialize

RESIDUAL = {
    "inputs": {"image": {"shape": [8, 8, 3], "low": 0.0, "high": 1.0}},
    "layers": [
        {"type": "conv2d", "name": "stem", "filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"},
        {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 3, "padding": "same", "use_bias": False},
        {"type": "batch_norm", "name": "norm"},
        {"type": "add", "name": "sum", "inputs": ["norm", "stem"]},
        {"type": "relu", "name": "relu"},
        {"type": "max_pool2d", "name": "pool", "kernel_size": 2},
        {"type": "depthwise_conv2d", "name": "depthwise", "kernel_size": 3, "activation": "gelu"},
        {"type": "global_average_pool", "name": "mean"},
        {"type": "dense", "name": "logits", "units": 5},
    ],
}


def residual() -> Graph:
    return resolve(ModelSpec.model_validate(RESIDUAL))


def rounded(graph: Graph) -> dict[str, str]:
    """Name of what is rounded to the range of the layer that does it."""
    return {node.inputs[0]: node.layer.range for node in graph.nodes if isinstance(node.layer, FakeQuantize)}


def test_layers_stand_behind_what_becomes_one_operator() -> None:
    graph = insert_fake_quantize(residual(), Quantization())
    # Not between conv, its norm and a ReLU, nor behind pooling or the output; gelu is computed in floats.
    assert list(rounded(graph)) == [
        "image",
        "stem_activation",
        "norm",
        "relu",
        "depthwise",
        "depthwise_activation",
        "mean",
    ]
    quantised = {name for name, parameter in graph.parameters.items() if parameter.quantizer}
    assert quantised == {"stem.kernel", "conv.kernel", "depthwise.kernel", "logits.kernel"}
    reads = {node.name: node.inputs for node in graph.nodes}
    assert reads["sum"] == ("norm_quantizer", "stem_activation_quantizer")
    assert reads["depthwise"] == ("pool",)
    assert reads["pool"] == ("relu_quantizer",)


def test_it_is_an_ordinary_model_and_is_not_quantised_twice() -> None:
    graph = insert_fake_quantize(residual(), Quantization(bits=6, momentum=0.5))
    again = resolve(ModelSpec.model_validate(spec_of(graph).to_plain()))
    assert again.nodes == graph.nodes
    assert insert_fake_quantize(again, Quantization()) is again
    layer = graph.node("relu_quantizer").layer
    assert isinstance(layer, FakeQuantize)
    assert (layer.bits, layer.momentum, layer.symmetric) == (6, 0.5, False)


def test_learned_steps_are_symmetric_where_values_have_both_signs() -> None:
    graph = insert_fake_quantize(residual(), Quantization(activations="learned"))
    signs = {node.inputs[0]: node.layer.symmetric for node in graph.nodes if isinstance(node.layer, FakeQuantize)}
    positive = {name for name, symmetric in signs.items() if not symmetric}
    assert positive == {"image", "stem_activation", "relu"}


def test_without_them_it_is_the_model_that_it_was() -> None:
    graph = residual()
    plain, rounding = without_fake_quantize(insert_fake_quantize(graph, Quantization()))
    assert [(node.name, node.inputs) for node in plain.nodes] == [(node.name, node.inputs) for node in graph.nodes]
    assert plain.parameters == graph.parameters
    assert {name: node.name for name, node in rounding.items()}["relu"] == "relu_quantizer"
    weights = initialize(graph, 0)
    x = np.random.default_rng(0).random((3, 8, 8, 3))
    np.testing.assert_array_equal(NumpyModel(plain, weights)(x)["logits"], NumpyModel(graph, weights)(x)["logits"])


def test_layers_that_are_skipped_stay() -> None:
    graph = insert_fake_quantize(residual(), Quantization(skip=("depthwise", "logits", "mean")))
    assert list(rounded(graph)) == ["image", "stem_activation", "norm", "relu"]
    assert not graph.parameters["logits.kernel"].quantizer


@pytest.mark.parametrize(
    ("options", "field", "word"),
    [
        ({"skip": ["logit"]}, ("quantization", "skip", 0), "logits"),
        ({"weights": "per_tensor"}, ("quantization", "weights"), "norm"),
    ],
)
def test_mistakes(options: dict[str, object], field: tuple[str, ...], word: str) -> None:
    with pytest.raises(InputError) as caught:
        insert_fake_quantize(residual(), Quantization.model_validate(options))
    (problem,) = caught.value.problems
    assert problem.field == field
    assert word in str(caught.value)


def test_a_model_without_products_is_refused() -> None:
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [3]}}, "layers": [{"type": "relu"}]}))
    with pytest.raises(InputError, match="no dense layer or convolution"):
        insert_fake_quantize(graph, Quantization())
