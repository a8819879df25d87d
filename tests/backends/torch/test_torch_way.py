"""The way through a graph: ReLU in place and channels first change no bit of results, gradients and weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unitrain.backends.contract import Batchable, Plan, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.backends.torch import BACKEND
from unitrain.backends.torch.module import GraphModule
from unitrain.backends.torch.way import way_through
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

SAMPLES = 12
LAYERS: list[dict[str, Any]] = [
    {"type": "conv2d", "name": "stem", "filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"},
    # A residual block; the input of the second ReLU is a sum.
    {"type": "conv2d", "name": "conv1", "filters": 4, "kernel_size": 3, "padding": "same", "use_bias": False},
    {"type": "batch_norm", "name": "norm1"},
    {"type": "relu", "name": "relu1"},
    {"type": "conv2d", "name": "conv2", "filters": 4, "kernel_size": 3, "padding": "same", "use_bias": False},
    {"type": "batch_norm", "name": "norm2"},
    {"type": "add", "name": "joined", "inputs": ["norm2", "stem"]},
    {"type": "relu", "name": "relu2"},
    # A sum in which one stretches; its values are read twice, so that ReLU must leave them.
    {"type": "conv2d", "name": "one", "filters": 1, "kernel_size": 1},
    {"type": "add", "name": "stretched", "inputs": ["relu2", "one"]},
    {"type": "relu", "name": "relu3"},
    {"type": "subtract", "name": "both", "inputs": ["stretched", "relu3"]},
    # A norm whose values are an output, and ReLU of them too; other layers between.
    {"type": "batch_norm", "name": "norm3"},
    {"type": "relu", "name": "relu4"},
    {"type": "max_pool2d", "name": "pool", "kernel_size": 2},
    {"type": "conv2d", "name": "last", "filters": 2, "kernel_size": 2, "strides": 2, "padding": "same"},
    {"type": "relu", "name": "relu5"},
]


@pytest.fixture(scope="module")
def graph() -> Graph:
    model = {"inputs": {"x": {"shape": [8, 7, 3]}}, "layers": LAYERS, "outputs": ["norm3", "relu5", "relu1"]}
    return resolve(ModelSpec.model_validate(model))


def found(graph: Graph) -> dict[str, Any]:
    """Train for some steps; return losses, weights, predictions and gradients."""
    update = Update(Sgd(momentum=0.9), dict.fromkeys(graph.parameters, True))
    rule = TrainingRule({output: (1.0, make_loss(MeanSquaredError())) for output in graph.outputs}, (), update)
    program: Any = BACKEND.compile(graph, initialize(graph, 0), Settings(seed=1), rule)
    generator = np.random.default_rng(0)
    x = {"x": generator.normal(size=(SAMPLES, 8, 7, 3)).astype(np.float32)}
    targets = {
        output: generator.normal(size=(SAMPLES, *graph.shape(name))).astype(np.float32)
        for output, name in graph.outputs.items()
    }
    rows = generator.integers(0, SAMPLES, (6, 5)).astype(np.int32)
    plan = Plan(rows, update.coefficients(np.full(6, 0.01), 0), np.ones(6), np.ones(6, bool), 0)
    losses = program.run_steps(program.place(Batchable(x, targets)), plan).losses
    return {
        "losses": losses,
        "weights": program.weights(),
        "predicted": program.predict(x),
        "gradients": program.differentiate(x, targets, training=True),
        "activations": program.activations(x, training=True),
    }


def test_it_changes_no_bit(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = found(graph)
    monkeypatch.setattr(GraphModule, "way_of", lambda module, other: way_through(module.graph, module._paths))
    np.testing.assert_equal(found(graph), quick)


def test_where_relu_is_in_place_and_channels_come_first(graph: Graph) -> None:
    module = GraphModule(graph, initialize(graph, 0), Settings())
    way = {step.name: step for step in module.way_of(graph)}
    assert [name for name, step in way.items() if step.path is None] == ["stem_activation", "relu1", "relu2", "relu5"]
    assert {name for name, step in way.items() if "rectify" in step.options} == {"stem", "norm1", "joined", "last"}
    # An output lies channels last, as do values of layers that know no other order.
    assert "first" not in way["norm3"].options
    assert "first" not in way["stretched"].options
    assert {"conv1", "norm1", "conv2", "norm2", "joined"} <= {n for n, step in way.items() if "first" in step.options}
    # Between these nothing is turned.
    assert [turn for name in ("norm2", "joined") for _, turn in way[name].inputs] == [None, None, None]


def test_a_shared_norm_takes_relu_along_at_one_of_its_nodes_only() -> None:
    layers = [
        {"type": "conv2d", "name": "a", "filters": 2, "kernel_size": 1},
        {"type": "batch_norm", "name": "norm"},
        {"type": "relu", "name": "relu"},
        {"type": "shared", "name": "again", "layer": "norm", "inputs": "relu"},
    ]
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [3, 3, 2]}}, "layers": layers}))
    module = GraphModule(graph, initialize(graph, 0), Settings()).eval()
    way = module.way_of(graph)
    assert [step.name for step in way if "rectify" in step.options] == ["norm"]
    x = torch.randn(4, 3, 3, 2)
    assert torch.equal(module.run({"x": x}, way=way)["again"], module.run({"x": x})["again"])
