"""Faults of layers: what frameworks do by default where the spec pins something else, and what ports get wrong."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from faults.planting import (
    Fault,
    Fields,
    entry,
    keras_port,
    numpy_port,
    other_fields,
    torch_port,
)
from torch.nn import functional

from unitrain.backends.torch.registry import Layout

IMAGE = (9, 8, 4)
ROW = (6,)


def image_net(*layers: Fields) -> list[Fields]:
    """Put layers between a convolution and a head."""
    head: list[Fields] = [{"type": "flatten", "name": "flat"}, {"type": "dense", "name": "head", "units": 3}]
    return [{"type": "conv2d", "name": "stem", "filters": 4, "kernel_size": 3}, *layers, *head]


def row_net(*layers: Fields) -> list[Fields]:
    """Put layers between two dense ones."""
    first: Fields = {"type": "dense", "name": "stem", "units": 6}
    return [first, *layers, {"type": "dense", "name": "head", "units": 3}]


def image_fault(
    name: str, row: str, backend: str, layer: Fields, words: str, plant: Any, part: str = "", **more: Any
) -> Fault:
    """A fault in one layer of an image model."""
    return Fault(name, row, backend, image_net(layer), IMAGE, part or layer["name"], words, plant, **more)


def row_fault(
    name: str, row: str, backend: str, layer: Fields, words: str, plant: Any, part: str = "", **more: Any
) -> Fault:
    """A fault in one layer of a model of rows."""
    return Fault(name, row, backend, row_net(layer), ROW, part or layer["name"], words, plant, **more)


def permuted_kernel(*axes: int) -> Any:
    """torch loads convolution kernels with their axes in another order."""

    def plant() -> Any:
        from unitrain.backends.torch import conv

        return entry(conv.KERNEL, 2, Layout(axes))

    return plant


def _kink(at: float, slope: float, function: Any, derivative: Any) -> Any:
    """An activation whose derivative at one point is another."""

    class Kinked(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return function(x)

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            return torch.where(x == at, slope * dy, derivative(x) * dy)

    return lambda layer, module, x: Kinked.apply(x)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _unbiased_running(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    if not module.training:
        return module(x)
    known = module.running_var.clone()
    y = module(x)
    count = x.numel() // x.shape[-1]
    factor = count / (count - 1)
    if module.pending is not None:
        mean, variance = module.pending[-1]
        module.pending[-1] = (mean, variance * factor)
    else:
        moved = module.running_var - known * (1 - module.momentum)
        module.running_var.copy_(known * (1 - module.momentum) + moved * factor)
    return y


def _norm_call(dims: Any, correction: int = 0, outside: bool = False, detach: bool = False, centre: bool = True) -> Any:
    def call(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
        axes = dims(x, layer)
        mean = x.mean(axes, keepdim=True) if centre else torch.zeros(())
        variance = ((x - mean) ** 2).sum(axes, keepdim=True) / (np.prod([x.shape[a] for a in axes]) - correction)
        if detach:
            mean, variance = mean.detach(), variance.detach()
        root = variance.sqrt() + layer.epsilon if outside else (variance + layer.epsilon).sqrt()
        y = (x - mean) / root
        return y * module.weight + module.bias if getattr(module, "bias", None) is not None else y * module.weight

    return call


def _in_training(call: Any) -> Any:
    """Compute otherwise in training mode only; the right module runs for its statistics."""

    def wrapped(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
        right = module(x)
        return call(layer, module, x) if module.training else right

    return wrapped


def _batch_axes(x: torch.Tensor, layer: Any) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _running_in_training(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    module(x)
    return (x - module.running_mean) / (module.running_var + layer.epsilon).sqrt() * module.weight + module.bias


def _batch_in_inference(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    return module(x) if module.training else _norm_call(_batch_axes)(layer, module, x)


def _frozen_statistics(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    y = module(x)
    if module.pending is not None and module.training:
        module.pending[-1] = (module.running_mean.clone(), module.running_var.clone())
    return y


NORM: Fields = {"type": "batch_norm", "name": "norm"}
LAYER: Fields = {"type": "layer_norm", "name": "norm"}
GROUP: Fields = {"type": "group_norm", "name": "norm", "groups": 2}
ROUND: Fields = {"type": "fake_quantize", "name": "round", "bits": 6, "momentum": 0.5}
RMS: Fields = {"type": "rms_norm", "name": "norm"}
SAME: Fields = {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 2, "strides": 2, "padding": "same"}
MEAN: Fields = {"type": "average_pool2d", "name": "pool", "kernel_size": 3, "strides": 2, "padding": 1}
LARGEST: Fields = {"type": "max_pool2d", "name": "pool", "kernel_size": 3, "strides": 2, "padding": 1}
DROP: Fields = {"type": "dropout", "name": "drop", "rate": 0.3}


def _mask(change: Any) -> Any:
    """Dropout with another treatment of the right mask."""

    def call(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return change(layer, None, x)
        step = module.step
        kept = module(torch.ones_like(x)) != 0
        module.step = step + 1
        return change(layer, kept, x)

    return call


NORMS = [
    image_fault(
        "batch norm with Keras' epsilon",
        "batch norm eps",
        "torch",
        NORM,
        "epsilon=0.001",
        other_fields("torch", "batch_norm", epsilon=1e-3),
    ),
    image_fault(
        "batch norm with Keras' epsilon, in Keras",
        "batch norm eps",
        "keras",
        NORM,
        "epsilon=0.001",
        other_fields("keras", "batch_norm", epsilon=1e-3),
    ),
    image_fault(
        "batch norm with an odd epsilon",
        "batch norm eps",
        "torch",
        NORM,
        "epsilon=0.00023",
        other_fields("torch", "batch_norm", epsilon=2.3e-4),
    ),
    image_fault(
        "momentum for its complement",
        "batch norm momentum",
        "torch",
        NORM,
        "momentum=0.1",
        other_fields("torch", "batch_norm", momentum=0.1),
    ),
    image_fault(
        "Keras' momentum",
        "batch norm momentum",
        "keras",
        NORM,
        "momentum=0.99",
        other_fields("keras", "batch_norm", momentum=0.99),
    ),
    image_fault(
        "unbiased running variance",
        "batch norm running variance",
        "torch",
        NORM,
        "unbiased",
        torch_port("batch_norm", _unbiased_running),
    ),
    image_fault(
        "unbiased variance in training",
        "batch norm running variance",
        "torch",
        NORM,
        "unbiased",
        torch_port("batch_norm", _in_training(_norm_call(_batch_axes, correction=1))),
    ),
    image_fault(
        "running statistics used in training",
        "batch norm mode",
        "torch",
        NORM,
        "running statistics in training",
        torch_port("batch_norm", _in_training(_running_in_training)),
    ),
    image_fault(
        "batch statistics used in inference",
        "batch norm mode",
        "torch",
        NORM,
        "batch's statistics in inference",
        torch_port("batch_norm", _batch_in_inference),
    ),
    image_fault(
        "statistics without gradient",
        "batch norm gradient",
        "torch",
        NORM,
        "constants",
        torch_port("batch_norm", _in_training(_norm_call(_batch_axes, detach=True))),
    ),
    image_fault(
        "running statistics that stand still",
        "batch norm running variance",
        "torch",
        NORM,
        "does not move",
        torch_port("batch_norm", _frozen_statistics),
    ),
    image_fault(
        "epsilon beside the deviation",
        "batch norm eps",
        "torch",
        NORM,
        "",
        torch_port("batch_norm", _in_training(_norm_call(_batch_axes, outside=True))),
    ),
    row_fault(
        "layer norm with epsilon 1e-6",
        "layer, group norm eps",
        "torch",
        LAYER,
        "epsilon=1e-06",
        other_fields("torch", "layer_norm", epsilon=1e-6),
    ),
    row_fault(
        "layer norm with Keras' epsilon",
        "layer, group norm eps",
        "keras",
        LAYER,
        "epsilon=0.001",
        other_fields("keras", "layer_norm", epsilon=1e-3),
    ),
    row_fault(
        "layer norm with unbiased variance",
        "layer, group norm eps",
        "torch",
        LAYER,
        "unbiased",
        torch_port("layer_norm", _norm_call(lambda x, layer: (x.ndim - 1,), correction=1)),
    ),
    row_fault(
        "layer norm with epsilon beside the root",
        "layer, group norm eps",
        "torch",
        LAYER,
        "root",
        torch_port("layer_norm", _norm_call(lambda x, layer: (x.ndim - 1,), outside=True)),
    ),
    image_fault(
        "layer norm over the whole image",
        "layer, group norm eps",
        "torch",
        LAYER,
        "all axes",
        torch_port("layer_norm", _norm_call(lambda x, layer: tuple(range(1, x.ndim)))),
    ),
    image_fault(
        "group norm with Keras' epsilon",
        "layer, group norm eps",
        "keras",
        GROUP,
        "epsilon=0.001",
        other_fields("keras", "group_norm", epsilon=1e-3),
    ),
    image_fault(
        "group norm of one group",
        "layer, group norm eps",
        "torch",
        GROUP,
        "groups=1",
        other_fields("torch", "group_norm", groups=1),
    ),
    row_fault(
        "RMS norm with ONNX's epsilon",
        "RMS norm eps",
        "torch",
        RMS,
        "epsilon=1e-05",
        other_fields("torch", "rms_norm", epsilon=1e-5),
    ),
    row_fault(
        "RMS norm with finfo.eps",
        "RMS norm eps",
        "torch",
        RMS,
        "epsilon=1",
        other_fields("torch", "rms_norm", epsilon=float(np.finfo(np.float32).eps)),
    ),
    row_fault(
        "RMS norm that subtracts the mean",
        "RMS norm eps",
        "torch",
        RMS,
        "subtracts the mean",
        torch_port("rms_norm", _norm_call(lambda x, layer: (x.ndim - 1,))),
    ),
]

WINDOWS = [
    image_fault(
        "odd padding at the start",
        "same padding",
        "torch",
        SAME,
        "at the start",
        other_fields("torch", "conv2d", "conv", padding=[[1, 0], [0, 0]]),
    ),
    image_fault(
        "odd padding at the start, in Keras",
        "same padding",
        "keras",
        SAME,
        "at the start",
        other_fields("keras", "conv2d", "conv", padding=[[1, 0], [0, 0]]),
    ),
    image_fault(
        "padding of half the kernel",
        "same padding",
        "torch",
        {**LARGEST, "padding": "same", "kernel_size": 2},
        "padding",
        other_fields("torch", "max_pool2d", padding=[[1, 0], [0, 0]]),
    ),
    image_fault(
        "padding counted in the mean",
        "average pool over padding",
        "torch",
        MEAN,
        "count_include_pad",
        torch_port(
            "average_pool2d",
            lambda layer, module, x: functional.avg_pool2d(x.movedim(-1, 1), 3, 2, 1, count_include_pad=True).movedim(
                1, -1
            ),
        ),
    ),
    image_fault(
        "padding counted in the mean, in Keras",
        "average pool over padding",
        "keras",
        MEAN,
        "count_include_pad",
        keras_port(
            "average_pool2d",
            lambda build, layer, context, x: keras.layers.AveragePooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(x)),
        ),
    ),
    image_fault(
        "sum for a mean",
        "average pool over padding",
        "torch",
        {**MEAN, "padding": 0},
        "sums",
        torch_port("average_pool2d", lambda layer, module, x: 9 * module(x)),
    ),
    image_fault(
        "zeros around a maximum",
        "max pool padding",
        "torch",
        LARGEST,
        "zeros",
        torch_port(
            "max_pool2d",
            lambda layer, module, x: functional.max_pool2d(
                functional.pad(x.movedim(-1, 1), (1, 1, 1, 1)), 3, 2
            ).movedim(1, -1),
        ),
    ),
    image_fault(
        "mean for maximum",
        "max pool",
        "torch",
        {**LARGEST, "padding": 0},
        "mean",
        torch_port("max_pool2d", lambda layer, module, x: functional.avg_pool2d(x.movedim(-1, 1), 3, 2).movedim(1, -1)),
    ),
    image_fault(
        "global sum for a mean",
        "global average pool",
        "torch",
        {"type": "global_average_pool", "name": "pool", "keep_axes": True},
        "sums",
        torch_port("global_average_pool", lambda layer, module, x: module(x) * (x.shape[1] * x.shape[2])),
    ),
    image_fault(
        "ties shared in a global maximum",
        "max ties to the first",
        "torch",
        {"type": "global_max_pool", "name": "pool", "keep_axes": True},
        "shares",
        torch_port("global_max_pool", lambda layer, module, x: x.amax((1, 2), keepdim=True)),
    ),
    image_fault(
        "kernel's height for its width",
        "dense / conv weight",
        "torch",
        {"type": "conv2d", "name": "conv", "filters": 5, "kernel_size": 3},
        "height and width",
        torch_port(
            "conv2d",
            lambda layer, module, x: (
                functional.conv2d(x.movedim(-1, 1), module.weight.swapaxes(2, 3), module.bias).movedim(1, -1)
                if layer.name == "conv"
                else module(x)
            ),
        ),
    ),
    image_fault(
        "kernel flipped",
        "dense / conv weight",
        "torch",
        {"type": "conv2d", "name": "conv", "filters": 5, "kernel_size": 3},
        "flips",
        torch_port(
            "conv2d",
            lambda layer, module, x: (
                functional.conv2d(x.movedim(-1, 1), module.weight.flip(2, 3), module.bias).movedim(1, -1)
                if layer.name == "conv"
                else module(x)
            ),
        ),
    ),
    image_fault(
        "kernel's in for its out",
        "dense / conv weight",
        "torch",
        {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 3},
        "transposed",
        torch_port(
            "conv2d",
            lambda layer, module, x: (
                functional.conv2d(x.movedim(-1, 1), module.weight.swapaxes(0, 1), module.bias).movedim(1, -1)
                if layer.name == "conv"
                else module(x)
            ),
        ),
    ),
    row_fault(
        "dense weight transposed",
        "dense / conv weight",
        "torch",
        {"type": "dense", "name": "square", "units": 6},
        "transposed",
        torch_port(
            "dense",
            lambda layer, module, x: (
                functional.linear(x, module.weight.T, module.bias) if layer.name == "square" else module(x)
            ),
        ),
    ),
    row_fault(
        "bias forgotten",
        "dense / conv weight",
        "torch",
        {"type": "dense", "name": "square", "units": 6},
        "use_bias=false",
        torch_port(
            "dense",
            lambda layer, module, x: functional.linear(x, module.weight) if layer.name == "square" else module(x),
        ),
    ),
    row_fault(
        "bias added twice",
        "LSTM bias",
        "torch",
        {"type": "dense", "name": "square", "units": 6},
        "twice",
        torch_port("dense", lambda layer, module, x: module(x) + module.bias if layer.name == "square" else module(x)),
    ),
    image_fault(
        "dilation ignored",
        "conv options",
        "torch",
        {"type": "conv2d", "name": "conv", "filters": 3, "kernel_size": 2, "dilation": 2, "padding": "same"},
        "dilation=[1, 1]",
        other_fields("torch", "conv2d", "conv", dilation=1, padding=[[0, 1], [0, 1]]),
    ),
    image_fault(
        "flatten channels first",
        "flatten",
        "torch",
        {"type": "relu", "name": "act"},
        "channels first",
        torch_port("flatten", lambda layer, module, x: x.movedim(-1, 1).flatten(1)),
        part="flat",
    ),
    image_fault(
        "flatten channels first, in Keras",
        "flatten",
        "keras",
        {"type": "relu", "name": "act"},
        "channels first",
        keras_port(
            "flatten", lambda build, layer, context, x: build(layer, context, keras.layers.Permute((3, 1, 2))(x))
        ),
        part="flat",
    ),
]

ACTIVATIONS = [
    row_fault(
        "tanh GELU",
        "GELU",
        "torch",
        {"type": "gelu", "name": "act"},
        "approximate=tanh",
        other_fields("torch", "gelu", approximate="tanh"),
    ),
    row_fault(
        "tanh GELU, in Keras",
        "GELU",
        "keras",
        {"type": "gelu", "name": "act"},
        "approximate=tanh",
        keras_port("gelu", lambda build, layer, context, x: keras.ops.gelu(x, approximate=True)),
    ),
    row_fault(
        "sigmoid GELU",
        "GELU",
        "torch",
        {"type": "gelu", "name": "act"},
        "1.702",
        torch_port("gelu", lambda layer, module, x: x * torch.sigmoid(1.702 * x)),
    ),
    row_fault(
        "Keras' leaky slope",
        "leaky ReLU slope",
        "keras",
        {"type": "leaky_relu", "name": "act"},
        "slope=0.3",
        other_fields("keras", "leaky_relu", slope=0.3),
    ),
    row_fault(
        "keras.ops' leaky slope",
        "leaky ReLU slope",
        "torch",
        {"type": "leaky_relu", "name": "act"},
        "slope=0.2",
        other_fields("torch", "leaky_relu", slope=0.2),
    ),
    row_fault(
        "PReLU with one slope",
        "PReLU",
        "torch",
        {"type": "prelu", "name": "act"},
        "",
        torch_port("prelu", lambda layer, module, x: functional.prelu(x, module.weight.mean().reshape(1))),
    ),
    row_fault(
        "old hard sigmoid",
        "hard sigmoid",
        "torch",
        {"type": "hard_sigmoid", "name": "act"},
        "0.2 x + 0.5",
        torch_port("hard_sigmoid", lambda layer, module, x: torch.clamp(0.2 * x + 0.5, 0, 1)),
    ),
    row_fault(
        "old hard swish",
        "hard sigmoid",
        "torch",
        {"type": "hard_swish", "name": "act"},
        "0.2 x + 0.5",
        torch_port("hard_swish", lambda layer, module, x: x * torch.clamp(0.2 * x + 0.5, 0, 1)),
    ),
    row_fault(
        "hard swish'(3) = 1.5",
        "subgradients at kinks",
        "torch",
        {"type": "hard_swish", "name": "act"},
        "derivative at 3",
        torch_port(
            "hard_swish",
            _kink(
                3.0, 1.5, functional.hardswish, lambda x: torch.clamp(x + 3, 0, 6) / 6 + x * ((x > -3) & (x < 3)) / 6
            ),
        ),
    ),
    row_fault(
        "relu'(0) = 1",
        "subgradients at kinks",
        "torch",
        {"type": "relu", "name": "act"},
        "derivative at 0",
        torch_port("relu", _kink(0.0, 1.0, functional.relu, lambda x: (x > 0).to(x.dtype))),
    ),
    row_fault(
        "relu6'(6) = 1",
        "subgradients at kinks",
        "torch",
        {"type": "relu6", "name": "act"},
        "derivative at 6",
        torch_port("relu6", _kink(6.0, 1.0, functional.relu6, lambda x: ((x > 0) & (x < 6)).to(x.dtype))),
    ),
    row_fault(
        "selu'(0) = scale",
        "subgradients at kinks",
        "torch",
        {"type": "selu", "name": "act"},
        "derivative at 0",
        torch_port(
            "selu",
            _kink(
                0.0,
                SELU_SCALE,
                functional.selu,
                lambda x: SELU_SCALE * torch.where(x > 0, torch.ones_like(x), SELU_ALPHA * x.exp()),
            ),
        ),
    ),
    row_fault(
        "elu for selu",
        "subgradients at kinks",
        "torch",
        {"type": "selu", "name": "act"},
        "computes elu",
        torch_port("selu", lambda layer, module, x: functional.elu(x)),
    ),
    row_fault(
        "activation left out",
        "activations",
        "torch",
        {"type": "tanh", "name": "act"},
        "unchanged",
        torch_port("tanh", lambda layer, module, x: x),
    ),
    row_fault(
        "swish for relu",
        "activations",
        "keras",
        {"type": "relu", "name": "act"},
        "silu",
        keras_port("relu", lambda build, layer, context, x: keras.ops.silu(x)),
    ),
    row_fault(
        "relu for relu6",
        "activations",
        "torch",
        {"type": "relu6", "name": "act"},
        "computes relu",
        torch_port("relu6", lambda layer, module, x: functional.relu(x)),
    ),
    image_fault(
        "softmax over another axis",
        "softmax",
        "torch",
        {"type": "softmax", "name": "act"},
        "axis=",
        other_fields("torch", "softmax", axis=0),
    ),
    row_fault(
        "log softmax",
        "softmax",
        "torch",
        {"type": "softmax", "name": "act"},
        "logarithm",
        torch_port("softmax", lambda layer, module, x: functional.log_softmax(x, -1)),
    ),
    row_fault(
        "half precision inside",
        "float32 accumulation",
        "torch",
        {"type": "tanh", "name": "act"},
        "half precision",
        torch_port("tanh", lambda layer, module, x: torch.tanh(x).half().to(x.dtype)),
    ),
]


def _shifted(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.embedding((x + 1) % layer.vocabulary, module.weight)


WORDS = [
    {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4},
    {"type": "flatten", "name": "flat"},
    {"type": "dense", "name": "head", "units": 3},
]
BRANCHES: list[Fields] = [
    {"type": "dense", "name": "left", "units": 5, "inputs": ["x"]},
    {"type": "dense", "name": "right", "units": 5, "inputs": ["x"]},
]


def branch_fault(name: str, merge: str, words: str, plant: Any, **fields: Any) -> Fault:
    """A fault in a layer that joins two branches."""
    joined: Fields = {"type": merge, "name": "join", "inputs": ["left", "right"], **fields}
    layers = [*BRANCHES, joined, {"type": "dense", "name": "head", "units": 3}]
    return Fault(name, "merges", "torch", layers, ROW, "join", words, plant)


MOVES = [
    Fault(
        "embedding off by one",
        "embedding index",
        "torch",
        WORDS,
        (5,),
        "words",
        "row after",
        torch_port("embedding", _shifted),
        dtype="integer",
    ),
    image_fault(
        "corners aligned",
        "bilinear resize",
        "torch",
        {"type": "upsample2d", "name": "up", "interpolation": "bilinear"},
        "align_corners",
        torch_port(
            "upsample2d",
            lambda layer, module, x: functional.interpolate(
                x.movedim(-1, 1), scale_factor=2, mode="bilinear", align_corners=True
            ).movedim(1, -1),
        ),
    ),
    image_fault(
        "nearest for bilinear",
        "bilinear resize",
        "keras",
        {"type": "upsample2d", "name": "up", "interpolation": "bilinear"},
        "interpolation=nearest",
        other_fields("keras", "upsample2d", interpolation="nearest"),
    ),
    image_fault(
        "nearest shifted by a pixel",
        "nearest resize",
        "torch",
        {"type": "upsample2d", "name": "up"},
        "",
        torch_port("upsample2d", lambda layer, module, x: module(x).roll(1, 1)),
    ),
    row_fault(
        "dropout not scaled",
        "dropout",
        "torch",
        DROP,
        "does not divide",
        torch_port("dropout", _mask(lambda layer, kept, x: x if kept is None else x * kept)),
    ),
    row_fault(
        "dropout upside down",
        "dropout",
        "torch",
        DROP,
        "keeps what is to be dropped",
        torch_port("dropout", _mask(lambda layer, kept, x: x if kept is None else x * ~kept / (1 - layer.rate))),
    ),
    row_fault(
        "dropout of another rate", "dropout", "torch", DROP, "rate=0.31", other_fields("torch", "dropout", rate=0.31)
    ),
    row_fault(
        "dropout scaled in inference",
        "dropout",
        "torch",
        DROP,
        "multiplies by 1 - rate",
        torch_port("dropout", _mask(lambda layer, kept, x: x * (1 - layer.rate) if kept is None else x * kept)),
    ),
    row_fault("no dropout at all", "dropout", "torch", DROP, "", torch_port("dropout", lambda layer, module, x: x)),
    row_fault(
        "dropout with torch's own masks",
        "dropout",
        "torch",
        DROP,
        "",
        torch_port("dropout", lambda layer, module, x: functional.dropout(x, layer.rate, module.training)),
    ),
    image_fault(
        "edge repeated in a mirror",
        "padding mode",
        "torch",
        {"type": "padding", "name": "pad", "amounts": [2, 1], "mode": "reflect"},
        "mode=edge",
        other_fields("torch", "padding", mode="edge", amounts=[2, 1]),
    ),
    image_fault(
        "height and width exchanged",
        "image layout",
        "torch",
        {"type": "permute", "name": "turn", "axes": [2, 0, 1]},
        "",
        torch_port("permute", lambda layer, module, x: x.permute(0, 2, 3, 1).reshape(module(x).shape)),
    ),
    branch_fault(
        "concatenated in reverse",
        "concatenate",
        "reverse",
        torch_port("concatenate", lambda layer, module, a, b: module(b, a)),
    ),
    branch_fault("mean for sum", "add", "mean", torch_port("add", lambda layer, module, a, b: (a + b) / 2)),
    branch_fault(
        "sum for product", "multiply", "computes add", torch_port("multiply", lambda layer, module, a, b: a + b)
    ),
    branch_fault("a branch cut off", "add", "leaves out", torch_port("add", lambda layer, module, a, b: a)),
    branch_fault(
        "a branch without gradient", "add", "zero", torch_port("add", lambda layer, module, a, b: a + b.detach())
    ),
    image_fault(
        "NumPy divides by another count",
        "global average pool",
        "numpy",
        {"type": "global_average_pool", "name": "pool", "keep_axes": True},
        "agree with each other",
        numpy_port(
            "global_average_pool",
            lambda forward, layer, context, parameters, x: _times(forward(layer, context, parameters, x), 1.01),
        ),
    ),
    row_fault(
        "NumPy with another epsilon",
        "layer, group norm eps",
        "numpy",
        LAYER,
        "NumPy is wrong",
        other_fields("numpy", "layer_norm", epsilon=1e-3),
    ),
]


def _times(result: Any, factor: float) -> Any:
    y, back = result
    return y * factor, lambda dy: back(dy * factor)


def _through(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    y = type(module).forward(module, x)
    return y.detach() + (x - x.detach())


ROUNDING = [
    image_fault(
        "observers' momentum",
        "fake quantize",
        "torch",
        ROUND,
        "momentum=0.99",
        other_fields("torch", "fake_quantize", momentum=0.99),
    ),
    image_fault(
        "gradients of clipped numbers go through",
        "fake quantize",
        "torch",
        {"type": "fake_quantize", "name": "round", "range": [-0.5, 0.5]},
        "",
        torch_port("fake_quantize", _through),
    ),
    image_fault(
        "half as many levels",
        "fake quantize",
        "keras",
        ROUND,
        "bits=5",
        other_fields("keras", "fake_quantize", bits=5),
    ),
]
FAULTS = [*NORMS, *WINDOWS, *ACTIVATIONS, *MOVES, *ROUNDING]
