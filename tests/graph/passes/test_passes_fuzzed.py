"""Passes on models that nobody thought of: what the fuzzer draws is written back, folded and pruned, the same."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.passes.support import outputs, random_weights
from unitrain.graph.passes.fold import fold_batch_norm
from unitrain.graph.passes.prune_channels import prune_channels
from unitrain.graph.resolve import resolve
from unitrain.graph.respell import spec_of
from unitrain.spec.base import validate
from unitrain.spec.layers import Dense
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import parse_yaml
from unitrain.verify.fuzz.generate import draw_model
from unitrain.verify.subject import draw_input

SEED, MODELS = 29, 72


def by_yaml(graph):
    return resolve(validate(ModelSpec, parse_yaml(spec_of(graph).to_yaml(), "model.yaml")))


def with_heads(graph):
    """Put a layer with weights behind each output, so that what were outputs may be pruned."""
    spec = spec_of(graph)
    heads = [
        Dense(name=f"head_{place}", units=2, inputs=(output,))
        for place, output in enumerate(spec.outputs)
        if graph.shape(graph.outputs[output])
    ]
    if not heads:
        return graph
    scalars = [output for output in spec.outputs if not graph.shape(graph.outputs[output])]
    outputs = (*scalars, *(head.name for head in heads))
    return resolve(spec.model_copy(update={"layers": (*spec.layers, *heads), "outputs": outputs}))


def assert_equal(found, wanted):
    """Hold results in float64 to one another; the order of sums differs, and what is not finite stays so."""
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        finite = np.isfinite(values)
        assert np.array_equal(finite, np.isfinite(found[name])), name
        error = np.abs(found[name] - values)[finite].max(initial=0.0)
        assert error <= 1e-10 * np.abs(values[finite]).max(initial=0.0), name


@pytest.fixture(scope="module", params=range(0, MODELS, 36), ids=lambda first: f"{first}-{first + 35}")
def drawn(request):
    """Draw models with weights and inputs: graph, weights, inputs, outputs in float64."""
    result = []
    for number in range(request.param, request.param + 36):
        graph = with_heads(resolve(draw_model(SEED, number)))
        weights = random_weights(graph, number)
        generator = np.random.default_rng(number)
        inputs = {name: draw_input(graph, name, 3, generator) for name in graph.inputs}
        result.append((graph, weights, inputs, outputs(graph, weights, inputs)))
    return result


def test_they_are_written_back(drawn):
    for graph, weights, inputs, wanted in drawn:
        back = by_yaml(graph)
        assert dict(back.parameters) == dict(graph.parameters)
        found = outputs(back, weights, inputs)
        assert all(np.array_equal(found[name], values, equal_nan=True) for name, values in wanted.items())


def test_batch_norm_is_folded(drawn):
    for graph, weights, inputs, wanted in drawn:
        exact = {name: array.astype(np.float64) for name, array in weights.items()}
        folded = fold_batch_norm(graph, exact)
        assert_equal(outputs(folded.graph, folded.weights, inputs), wanted)


@pytest.mark.parametrize("options", [{"ratio": 0.5, "multiple": 1}, {"ratio": 0.6, "multiple": 2, "scope": "global"}])
def test_pruned_models_compute_what_they_compute_masked(drawn, options):
    smaller = 0
    for graph, weights, inputs, _ in drawn:
        pruned = prune_channels(graph, weights, **options)
        smaller += pruned.graph.parameter_count(True) < graph.parameter_count(True)
        assert_equal(outputs(pruned.graph, pruned.weights, inputs), outputs(graph, pruned.masked, inputs))
        assert dict(by_yaml(pruned.graph).parameters) == dict(pruned.graph.parameters)
    # Not a test of models that have nothing to prune.
    assert smaller > 4
