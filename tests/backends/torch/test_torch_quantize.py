"""Rounding to levels is what torch's own operators for it compute, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unitrain.backends.numpy.model import NumpyModel
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.weights.quantize import quantized_kernel

GENERATOR = np.random.default_rng(5)
X = (2.0 * GENERATOR.normal(size=(6, 5, 4))).astype(np.float32)
DY = GENERATOR.normal(size=X.shape).astype(np.float32)


def graph_of(**fields: Any) -> Graph:
    layer = {"type": "fake_quantize", "name": "y", **fields}
    return resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [5, 4]}}, "layers": [layer]}))


def computed(graph: Graph, weights: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return y, the gradient by x and those by the parameters, of NumPy in float32."""
    model = NumpyModel(graph, weights)
    y = model.forward({"x": X})["y"]
    inputs, parameters = model.backward({"y": DY})
    return y, inputs["x"], parameters


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.5), (0.0, 3.0), (-4.0, -1.0), (0.5, 2.0)])
def test_given_ranges(low: float, high: float) -> None:
    y, dx, _ = computed(graph_of(range=[low, high]), {})
    low, high = np.float32(min(low, 0)), np.float32(max(high, 0))
    scale = (high - low) / np.float32(255)
    x = torch.tensor(X, requires_grad=True)
    right = torch.fake_quantize_per_tensor_affine(x, float(scale), round(float(-low / scale)), 0, 255)
    right.backward(torch.tensor(DY))
    # torch multiplies by 1 / scale, which may put a number that lies between two levels on the other one.
    assert x.grad is not None
    off = np.abs(y - right.detach().numpy()) > 1e-6
    assert off.mean() < 0.02
    np.testing.assert_array_equal(dx[~off], x.grad.numpy()[~off])


@pytest.mark.parametrize("symmetric", [False, True])
def test_learned_steps(symmetric: bool) -> None:
    graph = graph_of(range="learned", bits=4, symmetric=symmetric)
    scale = np.array([0.31], np.float32)
    y, dx, gradients = computed(graph, {"y.scale": scale})
    least, most = (-7, 7) if symmetric else (0, 15)
    x, step = torch.tensor(X, requires_grad=True), torch.tensor(scale, requires_grad=True)
    factor = (X[0].size * most) ** -0.5
    right = torch._fake_quantize_learnable_per_tensor_affine(x, step, torch.zeros(1), least, most, factor)
    right.backward(torch.tensor(DY))
    assert x.grad is not None
    assert step.grad is not None
    np.testing.assert_allclose(y, right.detach().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(dx, x.grad.numpy())
    np.testing.assert_allclose(gradients["y.scale"], step.grad.numpy(), rtol=1e-4)


def test_halves_go_to_the_even_level_and_zero_is_exact() -> None:
    graph = graph_of(range=[-8.0, 7.0], bits=4)
    x = np.zeros((2, 5, 4), np.float32)
    x[0, 0] = [0.5, 1.5, -0.5, -1.5]
    x[0, 1] = [2.5, 100.0, -100.0, 0.49]
    y = NumpyModel(graph, {})(x)["y"]
    assert y[0, 0].tolist() == [0.0, 2.0, 0.0, -2.0]
    assert y[0, 1].tolist() == [2.0, 7.0, -8.0, 0.0]
    assert not y[1].any()


@pytest.mark.parametrize("per_channel", [False, True])
def test_kernels(per_channel: bool) -> None:
    fields = {"units": 3, "kernel_quantizer": {"per_channel": per_channel}}
    layer = {"type": "dense", "name": "y", **fields}
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [5, 4]}}, "layers": [layer]}))
    kernel = GENERATOR.normal(size=(4, 3)).astype(np.float32)
    found = quantized_kernel(kernel, graph.parameters["y.kernel"])
    columns = kernel if per_channel else kernel.reshape(-1, 1)
    scales = torch.tensor(np.abs(columns).max(axis=0) / np.float32(127))
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    right = torch.fake_quantize_per_channel_affine(torch.tensor(columns), scales, zeros, 1, -127, 127)
    np.testing.assert_allclose(found, right.numpy().reshape(4, 3), atol=1e-7)
    # Straight through: the gradient is that of the product, as if the kernel were the rounded one.
    model = NumpyModel(graph, {"y.kernel": kernel, "y.bias": np.zeros(3, np.float32)})
    model.forward({"x": X})
    dy = GENERATOR.normal(size=(6, 5, 3)).astype(np.float32)
    inputs, parameters = model.backward({"y": dy})
    np.testing.assert_allclose(inputs["x"], dy @ found.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parameters["y.kernel"], np.einsum("bti,bto->io", X, dy), rtol=1e-4, atol=1e-5)
