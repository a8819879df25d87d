"""Faults of the parts of vision models: what ports of them get wrong."""

from __future__ import annotations

from typing import Any

import keras
import torch
from faults.layer_faults import image_fault
from faults.planting import Fault, Fields, keras_port, other_fields, torch_port

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
