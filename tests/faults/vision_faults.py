"""Faults of the parts of vision models: what ports of them get wrong."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import torch
from faults.convolution_faults import series_fault
from faults.layer_faults import _norm_call, image_fault
from faults.planting import Fault, Fields, keras_port, other_fields, torch_port
from torch.nn import functional

DEPTH: Fields = {"type": "stochastic_depth", "name": "depth", "rate": 0.3}
SCALE: Fields = {"type": "layer_scale", "name": "scale"}
SEQUENCE: list[Fields] = [
    {"type": "dense", "name": "stem", "units": 4},
    {"type": "class_token", "name": "token"},
    {"type": "dense", "name": "mixed", "units": 5, "activation": "tanh"},
    {"type": "flatten", "name": "flat"},
    {"type": "dense", "name": "head", "units": 3},
]


def depth_fault(name: str, backend: str, words: str, plant: Any) -> Fault:
    """A fault of stochastic depth."""
    return image_fault(name, "stochastic depth", backend, DEPTH, words, plant)


def token_fault(name: str, backend: str, plant: Any) -> Fault:
    """A fault of the class token."""
    return Fault(name, "class token", backend, SEQUENCE, (5, 3), "token", "", plant)


def _by_element(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    module.whole = False
    return module(x)


def _unscaled(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    return module(x) * (1 - layer.rate) if module.training else x


def _by_batch(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    return module(x[:1]) * (x / x[:1]) if module.training else x


def _added(y: Any) -> Any:
    return keras.ops.concatenate([y[:, :1], y[:, 1:] + y[:, :1]], axis=1)


PATCHES: Fields = {"type": "patch_embedding", "name": "patches", "patch": [1, 2], "width": 5}
GATES: Fields = {"type": "squeeze_excite", "name": "gates", "reduced": 3}
CAUSAL: Fields = {
    "type": "conv1d",
    "name": "conv",
    "filters": 4,
    "kernel_size": 3,
    "dilation": 2,
    "padding": "causal",
}
SMALLER: Fields = {"type": "resize", "name": "resize", "size": [5, 4]}
FILTERS: Fields = {"type": "conv3d", "name": "volume", "filters": 4, "kernel_size": [3, 1, 3], "padding": "same"}
INSTANCE: Fields = {"type": "instance_norm", "name": "norm"}


def _column_by_column(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    down, across = layer.grid(x.shape[1:])
    return module(x).unflatten(1, (down, across)).transpose(1, 2).flatten(1, 2)


def _largest(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    gates = module.gate(module.expand(module.inner(module.reduce(x.amax((1, 2))))))
    return x * gates[:, None, None]


class _Squares(keras.layers.Layer):
    """TensorFlow's own order of channels."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: Any) -> Any:
        if self.factor > 0:
            return tf.nn.depth_to_space(x, self.factor)
        return tf.nn.space_to_depth(x, -self.factor)


def volume_fault(name: str, backend: str, layer: Fields, words: str, plant: Any) -> Fault:
    """A fault in one layer of a model of volumes."""
    layers: list[Fields] = [
        {"type": "dense", "name": "stem", "units": 3},
        layer,
        {"type": "flatten", "name": "flat"},
        {"type": "dense", "name": "head", "units": 3},
    ]
    return Fault(name, "volumes", backend, layers, (4, 3, 5, 2), "volume", words, plant)


def shuffle_fault(name: str, kind: str, factor: int) -> Fault:
    """A fault of the order of channels."""
    layers: list[Fields] = [
        {"type": "conv2d", "name": "stem", "filters": 8, "kernel_size": 3},
        {"type": kind, "name": "shuffle"},
        {"type": "flatten", "name": "flat"},
        {"type": "dense", "name": "head", "units": 3},
    ]
    plant = keras_port(kind, lambda build, layer, context, x: _Squares(factor)(x))
    return Fault(name, "pixel shuffle", "keras", layers, (8, 6, 3), "shuffle", "channel last", plant)


FAULTS = [
    depth_fault("stochastic depth by element", "torch", "", torch_port("stochastic_depth", _by_element)),
    depth_fault("stochastic depth of the whole batch", "torch", "", torch_port("stochastic_depth", _by_batch)),
    depth_fault(
        "stochastic depth not scaled", "torch", "does not divide by 1 - rate", torch_port("stochastic_depth", _unscaled)
    ),
    depth_fault(
        "stochastic depth of another rate, in Keras",
        "keras",
        "rate=0.7",
        other_fields("keras", "stochastic_depth", rate=0.7),
    ),
    image_fault(
        "layer scale by position",
        "layer scale",
        "torch",
        SCALE,
        "",
        torch_port("layer_scale", lambda layer, module, x: x * module.weight.mean()),
    ),
    image_fault(
        "layer scale added",
        "layer scale",
        "keras",
        SCALE,
        "",
        keras_port("layer_scale", lambda build, layer, context, x: build(layer, context, x) + x),
    ),
    image_fault(
        "patches column by column",
        "patch embedding",
        "torch",
        PATCHES,
        "",
        torch_port("patch_embedding", _column_by_column),
    ),
    image_fault(
        "patches flipped",
        "patch embedding",
        "torch",
        PATCHES,
        "flips the kernel",
        torch_port(
            "patch_embedding",
            lambda layer, module, x: (
                functional.conv2d(x.movedim(-1, 1), module.weight.flip(2, 3), module.bias, module.stride).flatten(2).mT
            ),
        ),
    ),
    image_fault(
        "gates of squeeze and excitation without SiLU, in Keras",
        "squeeze and excite",
        "keras",
        {**GATES, "inner": "silu"},
        "inner=relu",
        other_fields("keras", "squeeze_excite", inner="relu"),
    ),
    image_fault(
        "soft gates for hard ones",
        "squeeze and excite",
        "torch",
        {**GATES, "gate": "hard_sigmoid"},
        "gate=sigmoid",
        other_fields("torch", "squeeze_excite", gate="sigmoid"),
    ),
    image_fault(
        "gates from largest elements",
        "squeeze and excite",
        "torch",
        GATES,
        "",
        torch_port("squeeze_excite", _largest),
    ),
    series_fault(
        "causal convolution with padding on both sides",
        "causal padding",
        CAUSAL,
        "padding=same",
        other_fields("torch", "conv1d", "conv", padding=2),
    ),
    series_fault(
        "causal convolution that looks ahead",
        "causal padding",
        CAUSAL,
        "the padding behind",
        other_fields("torch", "conv1d", "conv", padding=[0, 4]),
    ),
    image_fault(
        "instance norm with Keras' epsilon",
        "instance norm eps",
        "keras",
        INSTANCE,
        "epsilon=0.001",
        other_fields("keras", "instance_norm", epsilon=1e-3),
    ),
    image_fault(
        "instance norm with unbiased variance",
        "instance norm eps",
        "torch",
        INSTANCE,
        "unbiased",
        torch_port("instance_norm", _norm_call(lambda x, layer: (1, 2), correction=1)),
    ),
    image_fault(
        "resize, asymmetric nearest",
        "nearest resize",
        "torch",
        SMALLER,
        "floor(i * in / out)",
        torch_port(
            "resize",
            lambda layer, module, x: functional.interpolate(x.movedim(-1, 1), layer.size, mode="nearest").movedim(
                1, -1
            ),
        ),
    ),
    image_fault(
        "resize with corners aligned",
        "bilinear resize",
        "torch",
        {**SMALLER, "interpolation": "bilinear"},
        "align_corners",
        torch_port(
            "resize",
            lambda layer, module, x: functional.interpolate(
                x.movedim(-1, 1), layer.size, mode="bilinear", align_corners=True
            ).movedim(1, -1),
        ),
    ),
    image_fault(
        "resize with antialiasing",
        "bilinear resize",
        "torch",
        {**SMALLER, "interpolation": "bilinear"},
        "",
        torch_port(
            "resize",
            lambda layer, module, x: functional.interpolate(
                x.movedim(-1, 1), layer.size, mode="bilinear", antialias=True
            ).movedim(1, -1),
        ),
    ),
    image_fault(
        "resize to the nearest for bilinear, in Keras",
        "bilinear resize",
        "keras",
        {**SMALLER, "interpolation": "bilinear"},
        "interpolation=nearest",
        other_fields("keras", "resize", interpolation="nearest"),
    ),
    shuffle_fault("tf.nn.depth_to_space", "pixel_shuffle", 2),
    shuffle_fault("tf.nn.space_to_depth", "pixel_unshuffle", -2),
    volume_fault(
        "volume's kernel flipped",
        "torch",
        FILTERS,
        "flips the kernel",
        torch_port(
            "conv3d",
            lambda layer, module, x: functional.conv3d(
                x.movedim(-1, 1), module.weight.flip(2, 3, 4), module.bias, padding=(1, 0, 1)
            ).movedim(1, -1),
        ),
    ),
    volume_fault(
        "volume's odd padding at the start, in Keras",
        "keras",
        {**FILTERS, "kernel_size": 2},
        "at the start",
        other_fields("keras", "conv3d", padding=[[1, 0], [1, 0], [1, 0]]),
    ),
    volume_fault(
        "volume's padding counted in the mean",
        "torch",
        {"type": "average_pool3d", "name": "volume", "kernel_size": 2, "strides": 1, "padding": 1},
        "count_include_pad",
        torch_port(
            "average_pool3d",
            lambda layer, module, x: functional.avg_pool3d(x.movedim(-1, 1), 2, 1, 1).movedim(1, -1),
        ),
    ),
    volume_fault(
        "zeros around a volume's maximum",
        "torch",
        {"type": "max_pool3d", "name": "volume", "kernel_size": 2, "strides": 1, "padding": 1},
        "zeros",
        torch_port(
            "max_pool3d",
            lambda layer, module, x: functional.max_pool3d(functional.pad(x.movedim(-1, 1), (1,) * 6), 2, 1).movedim(
                1, -1
            ),
        ),
    ),
    token_fault(
        "class token at the end",
        "torch",
        torch_port("class_token", lambda layer, module, x: module(x).roll(-1, 1)),
    ),
    token_fault(
        "class token added to every patch, in Keras",
        "keras",
        keras_port("class_token", lambda build, layer, context, x: _added(build(layer, context, x))),
    ),
]
