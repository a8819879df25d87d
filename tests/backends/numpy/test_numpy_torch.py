"""Forward and backward against torch.nn.functional in float64: an independent implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from unitrain.backends.contract import Settings
from unitrain.backends.numpy import BACKEND
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec

Tensor = torch.Tensor
Weights = dict[str, Tensor]


def channels_first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


def conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
    """Apply torch's convolution to channels-last arrays and a canonical kernel."""
    function = F.conv1d if x.ndim == 3 else F.conv2d
    weight = kernel.movedim(-1, 0).movedim(-1, 1)
    return channels_last(function(channels_first(x), weight, bias, **options))


def depthwise(x: Tensor, kernel: Tensor, **options: Any) -> Tensor:
    """Apply a depthwise kernel ``(*window, channel, multiplier)``."""
    channels = kernel.shape[-2]
    flat = kernel.reshape(*kernel.shape[:-2], 1, -1)
    return conv(x, flat, groups=channels, **options)


def same(x: Tensor, before: int, after: int) -> Tensor:
    """Pad height and width of an image with zeros."""
    return F.pad(x, (0, 0, before, after, before, after))


def batch_norm(training: bool) -> Callable[[Tensor, Weights], Tensor]:
    def apply(x: Tensor, w: Weights) -> Tensor:
        mean, variance = w["running_mean"].clone(), w["running_variance"].clone()
        y = F.batch_norm(channels_first(x), mean, variance, w["scale"], w["bias"], training, 0.1, 1e-5)
        return channels_last(y)

    return apply


IMAGE, SEQUENCE, ROW = (7, 6, 4), (9, 4), (4,)
CASES: list[tuple[str, dict[str, Any], tuple[int, ...], Callable[[Tensor, Weights], Tensor]]] = [
    ("dense", {"units": 3}, ROW, lambda x, w: x @ w["kernel"] + w["bias"]),
    ("dense", {"units": 3, "use_bias": False}, SEQUENCE, lambda x, w: x @ w["kernel"]),
    ("conv2d", {"filters": 5, "kernel_size": 3}, IMAGE, lambda x, w: conv(x, w["kernel"], w["bias"])),
    (
        "conv2d",
        {
            "filters": 6,
            "kernel_size": [3, 2],
            "strides": 2,
            "dilation": [1, 2],
            "padding": [2, 1],
            "groups": 2,
        },
        IMAGE,
        lambda x, w: conv(x, w["kernel"], w["bias"], stride=2, dilation=(1, 2), padding=(2, 1), groups=2),
    ),
    (
        "conv2d",
        {"filters": 5, "kernel_size": 4, "padding": "same"},
        IMAGE,
        lambda x, w: conv(same(x, 1, 2), w["kernel"], w["bias"]),
    ),
    ("conv2d", {"filters": 3, "kernel_size": 1}, IMAGE, lambda x, w: conv(x, w["kernel"], w["bias"])),
    (
        "conv1d",
        {"filters": 6, "kernel_size": 3, "strides": 2, "groups": 2},
        SEQUENCE,
        lambda x, w: conv(x, w["kernel"], w["bias"], stride=2, groups=2),
    ),
    (
        "depthwise_conv2d",
        {"kernel_size": 3, "multiplier": 2, "padding": 1},
        IMAGE,
        lambda x, w: depthwise(x, w["kernel"], bias=w["bias"], padding=1),
    ),
    (
        "depthwise_conv1d",
        {"kernel_size": 3, "dilation": 2},
        SEQUENCE,
        lambda x, w: depthwise(x, w["kernel"], bias=w["bias"], dilation=2),
    ),
    (
        "separable_conv2d",
        {"filters": 5, "kernel_size": 3, "multiplier": 2, "strides": 2},
        IMAGE,
        lambda x, w: depthwise(x, w["depthwise_kernel"], stride=2) @ w["pointwise_kernel"] + w["bias"],
    ),
    (
        "conv_transpose2d",
        {"filters": 3, "kernel_size": 3, "strides": 2},
        IMAGE,
        lambda x, w: channels_last(
            F.conv_transpose2d(channels_first(x), w["kernel"].permute(2, 3, 0, 1), w["bias"], stride=2)
        ),
    ),
    (
        "conv_transpose2d",
        {"filters": 3, "kernel_size": 4, "strides": 2, "padding": "same"},
        IMAGE,
        lambda x, w: channels_last(
            F.conv_transpose2d(channels_first(x), w["kernel"].permute(2, 3, 0, 1), w["bias"], stride=2, padding=1)
        ),
    ),
    (
        "conv_transpose1d",
        {"filters": 3, "kernel_size": 3, "strides": 3},
        SEQUENCE,
        lambda x, w: channels_last(
            F.conv_transpose1d(channels_first(x), w["kernel"].permute(1, 2, 0), w["bias"], stride=3)
        ),
    ),
    (
        "max_pool2d",
        {"kernel_size": 3, "strides": 2, "padding": 1},
        IMAGE,
        lambda x, w: channels_last(F.max_pool2d(channels_first(x), 3, 2, 1)),
    ),
    (
        "max_pool1d",
        {"kernel_size": 2},
        SEQUENCE,
        lambda x, w: channels_last(F.max_pool1d(channels_first(x), 2)),
    ),
    (
        "average_pool2d",
        {"kernel_size": 3, "strides": 2, "padding": 1},
        IMAGE,
        lambda x, w: channels_last(F.avg_pool2d(channels_first(x), 3, 2, 1, count_include_pad=False)),
    ),
    ("global_average_pool", {}, IMAGE, lambda x, w: x.mean(dim=(1, 2))),
    ("global_max_pool", {"keep_axes": True}, IMAGE, lambda x, w: x.amax(dim=(1, 2), keepdim=True)),
    ("batch_norm", {}, IMAGE, batch_norm(True)),
    (
        "layer_norm",
        {"axes": 2},
        IMAGE,
        lambda x, w: F.layer_norm(x, x.shape[-2:], w["scale"], w["bias"], 1e-5),
    ),
    (
        "group_norm",
        {"groups": 2},
        IMAGE,
        lambda x, w: channels_last(F.group_norm(channels_first(x), 2, w["scale"], w["bias"], 1e-5)),
    ),
    ("rms_norm", {}, SEQUENCE, lambda x, w: F.rms_norm(x, x.shape[-1:], w["scale"], 1e-6)),
    ("relu", {}, ROW, lambda x, w: F.relu(x)),
    ("relu6", {}, ROW, lambda x, w: F.relu6(x)),
    ("leaky_relu", {}, ROW, lambda x, w: F.leaky_relu(x)),
    ("prelu", {}, IMAGE, lambda x, w: channels_last(F.prelu(channels_first(x), w["slope"]))),
    ("elu", {"alpha": 0.5}, ROW, lambda x, w: F.elu(x, 0.5)),
    ("selu", {}, ROW, lambda x, w: F.selu(x)),
    ("gelu", {}, ROW, lambda x, w: F.gelu(x)),
    ("gelu", {"approximate": "tanh"}, ROW, lambda x, w: F.gelu(x, approximate="tanh")),
    ("silu", {}, ROW, lambda x, w: F.silu(x)),
    ("sigmoid", {}, ROW, lambda x, w: torch.sigmoid(x)),
    # The backward pass of F.hardsigmoid multiplies by a float32 1/6 even in float64.
    ("hard_sigmoid", {}, ROW, lambda x, w: F.relu6(x + 3) / 6),
    ("hard_swish", {}, ROW, lambda x, w: F.hardswish(x)),
    ("tanh", {}, ROW, lambda x, w: torch.tanh(x)),
    ("softplus", {}, ROW, lambda x, w: F.softplus(x)),
    ("softmax", {"axis": 1}, IMAGE, lambda x, w: F.softmax(x, dim=2)),
    ("flatten", {}, IMAGE, lambda x, w: x.flatten(1)),
    ("permute", {"axes": [2, 0, 1]}, IMAGE, lambda x, w: x.permute(0, 3, 1, 2)),
    (
        "padding",
        {"amounts": [[1, 2], 3], "mode": "reflect"},
        IMAGE,
        lambda x, w: channels_last(F.pad(channels_first(x), (3, 3, 1, 2), mode="reflect")),
    ),
    (
        "padding",
        {"amounts": [[1, 2], 3], "mode": "edge"},
        IMAGE,
        lambda x, w: channels_last(F.pad(channels_first(x), (3, 3, 1, 2), mode="replicate")),
    ),
    (
        "upsample2d",
        {"factor": [2, 3]},
        IMAGE,
        lambda x, w: channels_last(F.interpolate(channels_first(x), scale_factor=(2.0, 3.0))),
    ),
    (
        "upsample2d",
        {"factor": [3, 4], "interpolation": "bilinear"},
        IMAGE,
        lambda x, w: channels_last(
            F.interpolate(channels_first(x), scale_factor=(3.0, 4.0), mode="bilinear", align_corners=False)
        ),
    ),
]


@pytest.mark.parametrize(
    ("kind", "fields", "shape", "reference"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_output_and_gradients_are_those_of_torch(
    kind: str,
    fields: dict[str, Any],
    shape: tuple[int, ...],
    reference: Callable[[Tensor, Weights], Tensor],
) -> None:
    generator = np.random.default_rng(0)
    graph = resolve(
        ModelSpec.model_validate(
            {"inputs": {"x": {"shape": list(shape)}}, "layers": [{"type": kind, "name": "layer", **fields}]}
        )
    )
    weights = {name: generator.uniform(0.5, 1.5, parameter.shape) for name, parameter in graph.parameters.items()}
    x = 3 * generator.normal(size=(3, *shape))
    dy = generator.normal(size=(3, *graph.shape("layer")))

    program = BACKEND.compile(graph, weights, Settings(precision="float64"))
    outputs, inputs, parameters = program.differentiate({"x": x}, {"layer": dy})

    x_torch = torch.tensor(x, requires_grad=True)
    w_torch = {
        name.removeprefix("layer."): torch.tensor(
            array, requires_grad=not name.endswith(("running_mean", "running_variance"))
        )
        for name, array in weights.items()
    }
    y_torch = reference(x_torch, w_torch)
    torch.autograd.backward(y_torch, torch.tensor(dy))

    np.testing.assert_allclose(outputs["layer"], y_torch.detach().numpy(), rtol=1e-11, atol=1e-11)
    assert x_torch.grad is not None
    np.testing.assert_allclose(inputs["x"], x_torch.grad.numpy(), rtol=1e-10, atol=1e-10)
    for name, gradient in parameters.items():
        expected = w_torch[name.removeprefix("layer.")].grad
        assert expected is not None
        np.testing.assert_allclose(gradient, expected.numpy(), rtol=1e-10, atol=1e-10, err_msg=name)
