"""Faults of convolutions, pools and what moves elements, in torch: orders, offsets, gradients that are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from faults.layer_faults import IMAGE, image_fault, row_fault
from faults.planting import Fault, Fields, other_fields, torch_port
from torch.nn import functional

Tensor = torch.Tensor
SERIES = (12, 4)

DEPTHWISE: Fields = {"type": "depthwise_conv2d", "name": "deep", "kernel_size": 3, "multiplier": 2}
GROUPED: Fields = {"type": "conv2d", "name": "conv", "filters": 6, "kernel_size": 3, "groups": 2}
SEPARABLE: Fields = {"type": "separable_conv2d", "name": "split", "filters": 4, "kernel_size": 3, "padding": "same"}
SPREAD: Fields = {"type": "conv_transpose2d", "name": "up", "filters": 3, "kernel_size": 3, "strides": 2}
PLAIN: Fields = {"type": "conv2d", "name": "conv", "filters": 5, "kernel_size": 3, "padding": "same"}


def series_fault(name: str, row: str, layer: Fields, words: str, plant: Any, part: str = "", **more: Any) -> Fault:
    """A fault in one layer of a model of sequences."""
    layers: list[Fields] = [
        {"type": "conv1d", "name": "stem", "filters": 4, "kernel_size": 3},
        layer,
        {"type": "flatten", "name": "flat"},
        {"type": "dense", "name": "head", "units": 3},
    ]
    return Fault(name, row, "torch", layers, SERIES, part or layer["name"], words, plant, **more)


def first(call: Callable[[Any, Any, Tensor], Tensor]) -> Callable[[Any, Any, Tensor], Tensor]:
    """Compute with the channel on the first axis, as torch's own functions have it."""
    return lambda layer, module, x: call(layer, module, x.movedim(-1, 1)).movedim(1, -1)


def only(name: str, call: Callable[[Any, Any, Tensor], Tensor]) -> Callable[[Any, Any, Tensor], Tensor]:
    """Compute otherwise in the layer ``name`` alone."""
    return lambda layer, module, x: call(layer, module, x) if layer.name == name else module(x)


def _shuffled(x: Tensor, groups: int) -> Tensor:
    return x.unflatten(-1, (groups, -1)).transpose(-1, -2).flatten(-2)


class _MeanOverStretched(torch.autograd.Function):
    """A product whose gradient by a stretched input is a mean, where it is a sum."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return dy * b, (dy * a).mean((1, 2), keepdim=True)


class _OwnFactor(torch.autograd.Function):
    """A product whose gradients are multiplied by the input itself, not by the other one."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return dy * a, dy * b


CONVOLUTIONS = [
    image_fault(
        "groups read every second channel",
        "dense / conv weight",
        "torch",
        GROUPED,
        "",
        torch_port("conv2d", only("conv", lambda layer, module, x: module(_shuffled(x, 2)))),
    ),
    image_fault(
        "multiplier before channel",
        "dense / conv weight",
        "torch",
        DEPTHWISE,
        "",
        torch_port("depthwise_conv2d", lambda layer, module, x: _shuffled(module(x), x.shape[-1])),
    ),
    image_fault(
        "pointwise before depthwise",
        "dense / conv weight",
        "torch",
        SEPARABLE,
        "",
        torch_port("separable_conv2d", lambda layer, module, x: module.depthwise(module.pointwise(x))),
    ),
    image_fault(
        "transposed convolution cut at the start",
        "same padding",
        "torch",
        {**SPREAD, "padding": "same"},
        "where the spec cuts",
        torch_port(
            "conv_transpose2d",
            first(
                lambda layer, module, x: functional.conv_transpose2d(
                    x, module.weight, module.bias, stride=2, padding=1, output_padding=1
                )
            ),
        ),
    ),
    image_fault(
        "transposed convolution's kernel flipped",
        "dense / conv weight",
        "torch",
        SPREAD,
        "flips",
        torch_port(
            "conv_transpose2d",
            first(
                lambda layer, module, x: functional.conv_transpose2d(x, module.weight.flip(2, 3), module.bias, stride=2)
            ),
        ),
    ),
    image_fault(
        "image mirrored at the border",
        "same padding",
        "torch",
        PLAIN,
        "",
        torch_port(
            "conv2d",
            only(
                "conv",
                first(
                    lambda layer, module, x: functional.conv2d(
                        functional.pad(x, (1, 1, 1, 1), mode="reflect"), module.weight, module.bias
                    )
                ),
            ),
        ),
    ),
    image_fault(
        "bias without gradient",
        "dense / conv weight",
        "torch",
        PLAIN,
        "zero",
        torch_port(
            "conv2d",
            only(
                "conv",
                first(lambda layer, module, x: functional.conv2d(x, module.weight, module.bias.detach(), padding=1)),
            ),
        ),
    ),
    image_fault(
        "kernel without gradient",
        "dense / conv weight",
        "torch",
        PLAIN,
        "zero",
        torch_port(
            "conv2d",
            only(
                "conv",
                first(lambda layer, module, x: functional.conv2d(x, module.weight.detach(), module.bias, padding=1)),
            ),
        ),
    ),
    image_fault(
        "windows of a strided convolution begin one later",
        "conv options",
        "torch",
        {"type": "conv2d", "name": "conv", "filters": 5, "kernel_size": 2, "strides": 2},
        "",
        torch_port(
            "conv2d",
            only(
                "conv",
                first(lambda layer, module, x: functional.conv2d(x.roll(-1, 3), module.weight, module.bias, stride=2)),
            ),
        ),
    ),
    image_fault(
        "convolution in bfloat16",
        "float32 accumulation",
        "torch",
        PLAIN,
        "half precision",
        torch_port(
            "conv2d",
            only(
                "conv",
                first(
                    lambda layer, module, x: functional.conv2d(
                        x.bfloat16(), module.weight.bfloat16(), module.bias.bfloat16(), padding=1
                    ).float()
                ),
            ),
        ),
    ),
    series_fault(
        "sequence padded at the start",
        "same padding",
        {"type": "conv1d", "name": "conv", "filters": 5, "kernel_size": 3, "padding": "same"},
        "padding=causal",
        other_fields("torch", "conv1d", "conv", padding=[[2, 0]]),
    ),
    series_fault(
        "sequence read backwards",
        "dense / conv weight",
        {"type": "conv1d", "name": "conv", "filters": 5, "kernel_size": 3},
        "flips",
        torch_port(
            "conv1d",
            only(
                "conv",
                first(lambda layer, module, x: functional.conv1d(x, module.weight.flip(2), module.bias)),
            ),
        ),
    ),
    series_fault(
        "transposed convolution of sequences cut at the start",
        "same padding",
        {"type": "conv_transpose1d", "name": "up", "filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"},
        "where the spec cuts",
        torch_port(
            "conv_transpose1d",
            first(
                lambda layer, module, x: functional.conv_transpose1d(
                    x, module.weight, module.bias, stride=2, padding=1, output_padding=1
                )
            ),
        ),
    ),
]

POOLS = [
    series_fault(
        "padding counted in the mean of sequences",
        "average pool over padding",
        {"type": "average_pool1d", "name": "pool", "kernel_size": 3, "strides": 2, "padding": 1},
        "count_include_pad",
        torch_port("average_pool1d", first(lambda layer, module, x: functional.avg_pool1d(x, 3, 2, 1))),
    ),
    series_fault(
        "padding too short by two",
        "same padding",
        {"type": "max_pool1d", "name": "pool", "kernel_size": 4, "strides": 3, "padding": "same"},
        "shape",
        other_fields("torch", "max_pool1d", padding=[[1, 0]]),
    ),
    Fault(
        "pooling that rounds up",
        "conv options",
        "torch",
        [
            {"type": "conv2d", "name": "stem", "filters": 4, "kernel_size": 3},
            {"type": "max_pool2d", "name": "pool", "kernel_size": 2},
            {"type": "relu", "name": "act"},
            {"type": "global_average_pool", "name": "mean"},
            {"type": "dense", "name": "head", "units": 3},
        ],
        IMAGE,
        "pool",
        "shape",
        torch_port("max_pool2d", first(lambda layer, module, x: functional.max_pool2d(x, 2, ceil_mode=True))),
    ),
    image_fault(
        "ties to the last in a maximum",
        "max ties to the first",
        "torch",
        {"type": "max_pool2d", "name": "pool", "kernel_size": 3, "strides": 1},
        "to the last",
        torch_port(
            "max_pool2d",
            first(lambda layer, module, x: functional.max_pool2d(x.flip(2, 3), 3, 1).flip(2, 3)),
        ),
    ),
    image_fault(
        "ties shared in a maximum",
        "max ties to the first",
        "torch",
        {"type": "max_pool2d", "name": "pool", "kernel_size": 3, "strides": 1},
        "",
        torch_port(
            "max_pool2d",
            first(lambda layer, module, x: x.unfold(2, 3, 1).unfold(3, 3, 1).amax((-1, -2))),
        ),
    ),
]

MOVES = [
    series_fault(
        "sequence flattened channel by channel",
        "flatten",
        {"type": "tanh", "name": "act"},
        "channels first",
        torch_port("flatten", lambda layer, module, x: x.movedim(-1, 1).flatten(1)),
        part="flat",
    ),
    image_fault(
        "reshaped channels first",
        "image layout",
        "torch",
        {"type": "reshape", "name": "rows", "shape": [42, 4]},
        "",
        torch_port("reshape", lambda layer, module, x: x.movedim(-1, 1).reshape(len(x), *layer.shape)),
    ),
    image_fault(
        "height's padding at the width",
        "padding mode",
        "torch",
        {"type": "padding", "name": "pad", "amounts": [[2, 1], [1, 2]]},
        "",
        torch_port("padding", lambda layer, module, x: functional.pad(x, (0, 0, 2, 1, 1, 2))),
    ),
    image_fault(
        "zeros for another value",
        "padding mode",
        "torch",
        {"type": "padding", "name": "pad", "amounts": [1, 1], "value": 0.5},
        "value=0",
        torch_port("padding", lambda layer, module, x: functional.pad(x, (0, 0, 1, 1, 1, 1))),
    ),
    image_fault(
        "bilinear enlargement with corners as pixels",
        "bilinear resize",
        "torch",
        {"type": "upsample2d", "name": "up", "interpolation": "bilinear", "factor": 3},
        "",
        torch_port(
            "upsample2d",
            first(
                lambda layer, module, x: functional.interpolate(x, scale_factor=3, mode="bilinear", align_corners=True)
            ),
        ),
    ),
    image_fault(
        "channels interleaved",
        "concatenate",
        "torch",
        {"type": "concatenate", "name": "join", "inputs": ["stem", "stem"], "axis": -1},
        "",
        torch_port("concatenate", lambda layer, module, a, b: torch.stack([a * 1.0, b * 2.0], -1).flatten(-2)),
    ),
    Fault(
        "mean over what is stretched",
        "merges",
        "torch",
        [
            {"type": "conv2d", "name": "stem", "filters": 4, "kernel_size": 3},
            {"type": "global_average_pool", "name": "squeeze", "keep_axes": True},
            {"type": "multiply", "name": "excite", "inputs": ["stem", "squeeze"]},
            {"type": "global_average_pool", "name": "pool"},
            {"type": "dense", "name": "head", "units": 3},
        ],
        IMAGE,
        "excite",
        "",
        torch_port("multiply", lambda layer, module, a, b: _MeanOverStretched.apply(a, b)),
    ),
    Fault(
        "each factor's gradient by itself",
        "merges",
        "torch",
        [
            {"type": "dense", "name": "left", "units": 5, "inputs": ["x"]},
            {"type": "dense", "name": "right", "units": 5, "inputs": ["x"]},
            {"type": "multiply", "name": "join", "inputs": ["left", "right"]},
            {"type": "dense", "name": "head", "units": 3},
        ],
        (6,),
        "join",
        "",
        torch_port("multiply", lambda layer, module, a, b: _OwnFactor.apply(a, b)),
    ),
]

WORDS: list[Fields] = [
    {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4},
    {"type": "flatten", "name": "flat"},
    {"type": "dense", "name": "head", "units": 3},
]


def table_fault(name: str, words: str, call: Callable[[Any, Any, Tensor], Tensor]) -> Fault:
    """A fault in an embedding."""
    plant = torch_port("embedding", call)
    return Fault(name, "embedding index", "torch", WORDS, (5,), "words", words, plant, dtype="integer")


TABLES = [
    table_fault(
        "row 0 taken for padding",
        "",
        lambda layer, module, x: functional.embedding(x, module.weight, padding_idx=0),
    ),
    table_fault(
        "gradient divided by frequency",
        "",
        lambda layer, module, x: functional.embedding(x, module.weight, scale_grad_by_freq=True),
    ),
    table_fault(
        "rows scaled by the root of the width",
        "2 times",
        lambda layer, module, x: functional.embedding(x, module.weight) * 2.0,
    ),
    row_fault(
        "softplus with torch's threshold, in float64",
        "activations",
        "torch",
        {"type": "softplus", "name": "act"},
        "",
        torch_port("softplus", lambda layer, module, x: functional.softplus(x)),
        precision="float64",
    ),
    row_fault(
        "softplus that overflows",
        "activations",
        "torch",
        {"type": "softplus", "name": "act"},
        "",
        torch_port("softplus", lambda layer, module, x: torch.log(1 + torch.exp(x))),
    ),
    row_fault(
        "softmax that overflows",
        "softmax",
        "torch",
        {"type": "softmax", "name": "act"},
        "",
        torch_port("softmax", lambda layer, module, x: torch.exp(x) / torch.exp(x).sum(-1, keepdim=True)),
    ),
]

FAULTS = [*CONVOLUTIONS, *POOLS, *MOVES, *TABLES]
