"""Pruned channels: the smaller model computes what the model computes with zeros in their place."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import yaml

from tests.graph.passes.support import ROOT, assert_same, graph_of, random_inputs, random_weights, zoo
from unitrain.graph.passes.prune_channels import prune_channels
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import check_weights


def size(weights):
    return sum(prod(array.shape) for array in weights.values())


def hold_to_masked(graph, backend="numpy", **options):
    """Prune with random weights, hold the result to the masked model; return it."""
    weights, inputs = random_weights(graph), random_inputs(graph)
    pruned = prune_channels(graph, weights, **{"multiple": 1, **options})
    assert check_weights(pruned.graph, pruned.weights) == []
    assert_same((graph, pruned.masked), (pruned.graph, pruned.weights), inputs, backend)
    assert np.isfinite(list(map(np.sum, pruned.weights.values()))).all()
    return pruned


# Wide enough that something can go, small enough to be quick.
NETWORKS = {
    "resnet18": {"size": 32, "filters": 8},
    "mobilenet_v2": {"size": 32, "unit": 2},
    "densenet121": {"size": 32, "growth": 4},
    "unet": {"size": 16, "filters": 4},
    "vit_tiny": {"width": 24, "heads": 4},
    "gpt_mini": {"width": 24, "heads": 4},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_what_they_compute_masked(name):
    graph = zoo(name, **NETWORKS[name])
    pruned = hold_to_masked(graph, ratio=0.5)
    assert pruned.graph.macs < 0.85 * graph.macs
    assert size(pruned.weights) < 0.85 * size(random_weights(graph))


LAYERS = yaml.safe_load((ROOT / "tests/graph/passes/prunable.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"ratio": 0.6, "scope": "global", "multiple": 2}], ids=str)
def test_layers_compute_what_they_compute_masked(case, options):
    graph = resolve(ModelSpec.model_validate(LAYERS[case]))
    pruned = hold_to_masked(graph, **options)
    if options["ratio"] == 0.5:
        assert size(pruned.weights) < size(random_weights(graph)), pruned.notes


@pytest.mark.parametrize("backend", ["torch", "keras", "onnx"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "gpt_mini"])
def test_other_backends_compute_it_too(backend, name):
    hold_to_masked(zoo(name, **NETWORKS[name]), backend)


MLP = """
inputs: {row: {shape: [5]}}
layers:
  - {type: dense, name: a, units: 40}
  - {type: relu}
  - {type: dense, name: b, units: 3}
"""


@pytest.mark.parametrize(
    ("units", "ratio", "multiple", "left"),
    [(40, 0.5, 16, 16), (40, 0.4, 16, 32), (40, 0.1, 16, 40), (64, 0.9, 16, 16), (15, 0.5, 16, 15), (63, 0.5, 1, 32)],
)
def test_what_stays_is_a_multiple_and_at_least_one(units, ratio, multiple, left):
    graph = graph_of(MLP.replace("40", str(units)))
    pruned = prune_channels(graph, random_weights(graph), ratio, multiple)
    assert pruned.weights["a.kernel"].shape == (5, left)
    assert [(one.layers, one.before, one.after) for one in pruned.groups] == [(("a",), units, left)]
    assert pruned.notes == ("b: 3 channels stay: they are the output 'b'",)


def test_the_channels_of_least_weight_go():
    graph = graph_of(MLP)
    weights = random_weights(graph)
    weights["a.kernel"][:, 7] *= 1e-3
    weights["b.kernel"][7] *= 1e-3
    pruned = prune_channels(graph, weights, 1 / 40, 1)
    assert np.array_equal(pruned.weights["b.kernel"], np.delete(weights["b.kernel"], 7, axis=0))
    assert np.array_equal(pruned.weights["a.bias"], np.delete(weights["a.bias"], 7))


def test_scales_of_batch_norms_choose():
    graph = graph_of(MLP.replace("- {type: relu}", "- {type: batch_norm, name: norm}\n  - {type: relu}"))
    weights = random_weights(graph)
    weights["norm.scale"][[3, 11]] = (-0.01, 0.02)
    pruned = prune_channels(graph, weights, 2 / 40, 1, "batch_norm")
    assert np.array_equal(pruned.weights["norm.scale"], np.delete(weights["norm.scale"], [3, 11]))


def test_without_batch_norm_its_scales_choose_nothing():
    graph = graph_of(MLP)
    pruned = prune_channels(graph, random_weights(graph), 0.5, 1, "batch_norm")
    assert pruned.graph.parameters == graph.parameters
    assert "a: 40 channels stay: they have no batch norm with a scale" in pruned.notes


def test_taylor_estimates_what_the_loss_loses():
    graph = graph_of(MLP)
    weights = random_weights(graph)
    gradients = [random_weights(graph, seed) for seed in (5, 6)]
    worth = np.zeros(40)
    for batch in gradients:
        product = {name: weights[name].astype(float) * batch[name] for name in weights}
        worth += (product["a.kernel"].sum(0) + product["a.bias"] + product["b.kernel"].sum(1)) ** 2
    pruned = prune_channels(graph, weights, 0.5, 1, "taylor", gradients=gradients)
    assert np.array_equal(pruned.weights["a.bias"], weights["a.bias"][np.sort(np.argsort(worth)[20:])])


def test_globally_the_layer_that_matters_less_loses_more():
    graph = graph_of(
        "inputs: {row: {shape: [5]}}\nlayers: [{type: dense, name: a, units: 16}, {type: batch_norm, name: small},"
        " {type: dense, name: b, units: 16}, {type: batch_norm, name: large}, {type: dense, units: 2}]\n"
    )
    weights = random_weights(graph)
    weights["small.scale"] = np.linspace(0.01, 1.0, 16, dtype=np.float32)
    weights["large.scale"] = np.linspace(0.6, 2.0, 16, dtype=np.float32)
    pruned = prune_channels(graph, weights, 0.5, 1, "batch_norm", "global")
    together = np.sort(np.concatenate([weights["small.scale"], weights["large.scale"]]))[16:]
    assert [one.after for one in pruned.groups] == [
        int(np.isin(weights[name], together).sum()) for name in ("small.scale", "large.scale")
    ]


def test_residual_streams_under_layer_norm_stay_and_say_why():
    graph = zoo("vit_tiny", width=24, heads=4)
    pruned = prune_channels(graph, random_weights(graph), 0.5, 1)
    assert any("layer_norm" in note and "computes with all of them, zeros too" in note for note in pruned.notes)
    assert pruned.graph.node("layers.0.attention").layer.heads == 2
    assert pruned.graph.node("layers.0.widen").layer.units == 48
    assert pruned.graph.shape("layers.0.add1") == graph.shape("layers.0.add1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratio": 1.0}, "0 <= ratio < 1"),
        ({"multiple": 0}, "positive number"),
        ({"importance": "tailor"}, "did you mean 'taylor'"),
        ({"scope": "groups"}, "did you mean 'group'"),
        ({"importance": "taylor"}, "needs the gradients"),
    ],
)
def test_wrong_arguments_are_explained(options, said):
    graph = graph_of(MLP)
    with pytest.raises(InputError, match=said):
        prune_channels(graph, random_weights(graph), **options)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_full_size_networks_are_pruned_in_multiples_of_16(name):
    graph = zoo(name, size=32, **({"filters": 64} if name == "resnet18" else {"growth": 32}))
    weights = {one: np.ones(parameter.shape, np.float32) for one, parameter in graph.parameters.items()}
    pruned = prune_channels(graph, weights, 0.5)
    assert all(one.after % 16 == 0 for one in pruned.groups)
    assert pruned.graph.macs < 0.35 * graph.macs
