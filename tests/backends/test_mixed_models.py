"""What `build` gives in mixed precision: a framework's own model with float32 weights, trained by its own means."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from unitrain.backends import load_backend
from unitrain.backends.contract import Batchable, Plan, Precision, Settings
from unitrain.backends.keras import runtime
from unitrain.backends.precision import MIXED
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.verify.rounding import rounded
from unitrain.weights.initialize import initialize

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def graph() -> Graph:
    layers = [
        {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 3},
        {"type": "batch_norm", "name": "norm"},
        {"type": "relu", "name": "bend"},
        {"type": "flatten", "name": "flat"},
        {"type": "rms_norm", "name": "scaled"},
        {"type": "dense", "name": "y", "units": 3},
    ]
    return resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [6, 6, 2]}}, "layers": layers}))


def numbers(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("precision", MIXED)
def test_a_torch_module(graph: Graph, precision: Precision) -> None:
    module = load_backend("torch").build(graph, initialize(graph, 0), Settings(precision=precision))
    held = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert {tensor.dtype for tensor in held.values() if tensor.is_floating_point()} == {torch.float32}
    inside: dict[str, torch.dtype] = {}
    for name in ("conv", "norm", "bend", "y"):
        part = module.get_submodule(name)
        part.register_forward_pre_hook(lambda part, inputs, name=name: inside.update({name: inputs[0].dtype}))
    x = torch.from_numpy(numbers((5, 6, 6, 2)))
    y = module(x)
    assert y.dtype == torch.float32
    assert set(inside.values()) == {getattr(torch, MIXED[precision])}
    y.square().mean().backward()
    parameters = dict(module.named_parameters())
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in parameters.values())
    # Outside of a call modules have their own parameters, after one that fails too.
    with pytest.raises((RuntimeError, ValueError)):
        module(x[..., :1])
    assert parameters == dict(module.named_parameters())
    for name, parameter in parameters.items():
        assert parameter.is_leaf
        assert torch.equal(parameter, held[name])
    twin = copy.deepcopy(module).eval()
    module.eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not torch.equal(module(x), twin(x))


@pytest.mark.parametrize("precision", MIXED)
def test_a_keras_model(graph: Graph, precision: Precision, tmp_path: Path) -> None:
    model = load_backend("keras").build(graph, initialize(graph, 0), Settings(precision=precision))
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert model.get_layer("conv").compute_dtype == MIXED[precision]
    x = numbers((5, 6, 6, 2))
    y = model(x)
    assert y.dtype == tf.float32
    np.testing.assert_array_equal(y, rounded(np.asarray(y), MIXED[precision]))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), y)
    model.compile(optimizer="sgd", loss="mse")
    model.fit(x, numbers((5, 3)), verbose=0)
    assert np.isfinite(model(x)).all()


@pytest.mark.parametrize("tf32", [False, True])
def test_tensor_float_32_in_tensorflow_is_a_matter_of_the_run(
    graph: Graph, tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tf.config.experimental
    rule = TrainingRule(
        {"y": (1.0, make_loss(MeanSquaredError()))}, (), Update(Sgd(), dict.fromkeys(graph.trainable, False))
    )
    program: Any = load_backend("keras").compile(graph, initialize(graph, 0), Settings(tf32=tf32), rule)
    before = config.tensor_float_32_execution_enabled()
    seen = []
    call = type(program._call).__call__

    def spy(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(config.tensor_float_32_execution_enabled())
        return call(self, *arguments, **options)

    monkeypatch.setattr(type(program._call), "__call__", spy)
    inputs, targets = {"x": numbers((4, 6, 6, 2))}, {"y": numbers((4, 3))}
    plan = Plan(np.arange(4, dtype=np.int32)[None], np.full((1, 2), 0.1), np.ones(1), np.ones(1, bool), 0)
    program.run_steps(program.place(Batchable(inputs, targets)), plan)
    program.predict(inputs)
    program.activations(inputs)
    program.differentiate(inputs, targets)
    assert len(seen) == 4
    assert set(seen) == {tf32}
    assert config.tensor_float_32_execution_enabled() == before
    with pytest.raises(KeyError), runtime.tensor_float32(not before):
        raise KeyError
    assert config.tensor_float_32_execution_enabled() == before
