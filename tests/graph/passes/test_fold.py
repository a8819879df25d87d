"""Folded batch norm: the model computes the same, without the layer, on every backend."""

from __future__ import annotations

import pytest

from tests.graph.passes.support import assert_same, graph_of, random_inputs, random_weights, zoo
from unitrain.graph.passes.fold import fold_batch_norm


def norms(graph):
    return [node.name for node in graph.nodes if node.layer.type == "batch_norm"]


IMAGE = "inputs: {image: {shape: [6, 6, 4]}}\nlayers:\n"
BEHIND = IMAGE + "  - {type: relu}\n  - {type: batch_norm, name: norm}\n"
CASES = {
    "conv": IMAGE + "  - {type: conv2d, filters: 6, kernel_size: 3, padding: same}\n  - {type: batch_norm}",
    "conv without bias": IMAGE
    + "  - {type: conv2d, filters: 6, kernel_size: 3, use_bias: false}\n  - {type: batch_norm}",
    "groups": IMAGE + "  - {type: conv2d, filters: 6, kernel_size: 3, groups: 2}\n  - {type: batch_norm}",
    "depthwise": IMAGE + "  - {type: depthwise_conv2d, kernel_size: 3, multiplier: 2}\n  - {type: batch_norm}",
    "separable": IMAGE + "  - {type: separable_conv2d, filters: 5, kernel_size: 3}\n  - {type: batch_norm}",
    "transposed": IMAGE
    + "  - {type: conv_transpose2d, filters: 5, kernel_size: 3, strides: 2, padding: same}\n  - {type: batch_norm}",
    "dense": IMAGE + "  - {type: dense, units: 5}\n  - {type: batch_norm, use_scale: false}",
    "no bias in the norm": IMAGE + "  - {type: dense, units: 5}\n  - {type: batch_norm, use_bias: false}",
    "before conv": BEHIND + "  - {type: conv2d, filters: 6, kernel_size: 3}",
    "before groups": BEHIND + "  - {type: conv2d, filters: 6, kernel_size: 3, groups: 2, use_bias: false}",
    "before depthwise": BEHIND + "  - {type: depthwise_conv2d, kernel_size: 3, multiplier: 3}",
    "before two": BEHIND
    + "  - {type: dense, name: a, units: 3, inputs: norm}\n  - {type: dense, name: b, units: 3, inputs: norm}\n"
    + "  - {type: add, inputs: [a, b]}",
}


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_stay(case):
    text = CASES[case] + "\n  - {type: silu, name: last}\n"
    graph = graph_of(text)
    weights, inputs = random_weights(graph), random_inputs(graph)
    folded = fold_batch_norm(graph, weights)
    assert norms(folded.graph) == []
    assert not folded.notes
    assert_same((graph, weights), folded[:2], inputs)


@pytest.mark.parametrize("backend", ["numpy", "torch", "keras", "onnx"])
def test_a_network_computes_the_same_everywhere(backend):
    graph = zoo("mobilenet_v2", size=32)
    weights, inputs = random_weights(graph), random_inputs(graph)
    folded = fold_batch_norm(graph, weights)
    assert norms(folded.graph) == []
    assert not [name for name in folded.weights if "norm" in name]
    assert_same((graph, weights), folded[:2], inputs, backend)


STAYS = {
    "'relu_1'": BEHIND + "  - {type: conv2d, filters: 6, kernel_size: 3, padding: same}",
    "'conv' is also read without it": IMAGE
    + "  - {type: conv2d, name: conv, filters: 4, kernel_size: 3}\n  - {type: batch_norm, name: norm}\n"
    + "  - {type: add, inputs: [norm, conv]}",
    "it is an output of the model": IMAGE
    + "  - {type: dense, units: 3}\n  - {type: batch_norm, name: norm}\noutputs: norm",
    "'conv' shares its parameters": IMAGE
    + "  - {type: conv2d, name: conv, filters: 4, kernel_size: 1}\n  - {type: batch_norm, name: norm}\n"
    + "  - {type: shared, layer: conv}",
}


@pytest.mark.parametrize("reason", STAYS)
def test_what_cannot_be_folded_stays_and_says_why(reason):
    graph = graph_of(STAYS[reason])
    weights, inputs = random_weights(graph), random_inputs(graph)
    folded = fold_batch_norm(graph, weights)
    assert norms(folded.graph) == ["norm"]
    assert folded.notes[0].startswith("norm stays: ")
    assert reason in folded.notes[0]
    assert_same((graph, weights), folded[:2], inputs)
