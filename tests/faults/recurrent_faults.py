"""Faults of recurrent layers and of masks: gates in another order, biases that learn twice, steps read otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import torch
from faults.onnx_faults import other_attributes
from faults.planting import Fault, Fields, Plant, entry, keras_port, numpy_port, other_fields, torch_port

from unitrain.backends.torch import registry as torch_registry
from unitrain.backends.torch.registry import Layout
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.optimizers import Sgd

HEAD: list[Fields] = [
    {"type": "flatten", "name": "flat"},
    {"type": "dense", "name": "head", "units": 3},
]
TOKENS: list[Fields] = [
    {"type": "padding_mask", "name": "words", "inputs": "x"},
    {"type": "embedding", "name": "table", "inputs": "x", "vocabulary": 3, "width": 4},
]
LENGTHS: list[Fields] = [
    {"type": "length_mask", "name": "steps", "inputs": "x", "length": 5},
    {"type": "embedding", "name": "table", "inputs": "x", "vocabulary": 7, "width": 4},
    {"type": "upsample1d", "name": "repeated", "factor": 5},
]
FIRST: list[Fields] = [
    {"type": "select", "name": "first", "inputs": "x"},
    {"type": "dense", "name": "hidden", "inputs": "first", "units": 4},
    {"type": "dense", "name": "cell", "inputs": "first", "units": 4},
]


def series(name: str, row: str, backend: str, kind: str, plant: Plant, words: str = "", **fields: Any) -> Fault:
    """A fault in a model of series."""
    layer = {"type": kind, "name": "read", "units": 4, **fields}
    return Fault(name, row, backend, [layer, *HEAD], (6, 3), "read", words, plant)


def masked(name: str, backend: str, kind: str, plant: Plant, **fields: Any) -> Fault:
    """A fault of what a mask means, whose zeros stand anywhere."""
    layer = {"type": kind, "name": "read", "units": 4, "mask": "words", **fields}
    return Fault(name, "recurrent, mask", backend, [*TOKENS, layer, *HEAD], (6,), "read", "", plant, dtype="integer")


def started(name: str, plant: Plant) -> Fault:
    """A fault of the initial state of an LSTM."""
    layer = {"type": "lstm", "name": "read", "units": 4, "inputs": "x", "initial_state": ["hidden", "cell"]}
    return Fault(name, "recurrent, initial state", "torch", [*FIRST, layer, *HEAD], (6, 3), "read", "", plant)


def other_blocks(kind: str, blocks: Sequence[int] | None) -> Plant:
    """torch has a layer's gates in another order than its kernels' columns say."""
    layer_type = LAYER_TYPES[kind]

    def plant() -> AbstractContextManager[None]:
        make = torch_registry.IMPLEMENTATIONS[layer_type]
        order = None if blocks is None else tuple(blocks)

        def wrong(layer: Any, node: Any, settings: Any) -> torch_registry.Made:
            made = make(layer, node, settings)
            slots = {
                name: slot
                if name.endswith("recurrent_bias")
                else replace(slot, layout=Layout(slot.layout.axes, blocks=order))
                for name, slot in made.slots.items()
            }
            return torch_registry.Made(made.module, slots)

        return entry(torch_registry.IMPLEMENTATIONS, layer_type, wrong)

    return plant


def other_weights(kind: str, change: Callable[..., Any]) -> Plant:
    """torch's kernel is given ``change(layer, kernel, recurrent, bias, second bias)``."""

    def call(layer: Any, module: Any, *x: torch.Tensor) -> torch.Tensor:
        right = type(module)._weights
        module._weights = lambda suffix: change(layer, *right(module, suffix))
        try:
            y: torch.Tensor = module(*x)
            return y
        finally:
            del module._weights

    return torch_port(kind, call)


def _raised(layer: Any, kernel: Any, recurrent: Any, bias: Any, second: Any) -> Any:
    forget = torch.zeros_like(bias)
    forget[layer.units : 2 * layer.units] = 1.0
    return kernel, recurrent, bias + forget, second


def gru_steps(*, reset_before: bool = False, turned: bool = False, bias_outside: bool = False) -> Plant:
    """torch computes a GRU step by step, as other definitions have it."""

    def call(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
        kernel, recurrent, bias, second = module._weights("")
        units, h, outputs = layer.units, x.new_zeros(len(x), layer.units), []
        for t in range(x.shape[1]):
            given, product = x[:, t] @ kernel.T + bias, h @ recurrent.T
            r = (given[:, :units] + product[:, :units]).sigmoid()
            z = (given[:, units : 2 * units] + product[:, units : 2 * units]).sigmoid()
            inner, extra = product[:, 2 * units :], second[2 * units :]
            if reset_before:
                inner = (r * h) @ recurrent[2 * units :].T + extra
            else:
                inner = r * inner + extra if bias_outside else r * (inner + extra)
            n = (given[:, 2 * units :] + inner).tanh()
            h = (1 - z) * h + z * n if turned else z * h + (1 - z) * n
            outputs.append(h)
        return torch.stack(outputs, 1)

    return torch_port("gru", call)


def _doubled(layer: Any, kernel: Any, recurrent: Any, bias: Any, second: Any) -> Any:
    return kernel, recurrent, 2 * bias - bias.detach(), second


def _without(build: Any, layer: Any, context: Any, x: Any, *sides: Any) -> Any:
    return build(layer.model_copy(update={"mask": None}), context, x)


def _repeated(layer: Any, module: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    y, steps = module(x, mask), []
    before = torch.zeros_like(y[:, 0])
    for t in range(y.shape[1]):
        before = torch.where(mask[:, t, None] != 0, y[:, t], before)
        steps.append(before)
    return torch.stack(steps, 1)


def _prefix(layer: Any, module: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    kept = torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True)
    y: torch.Tensor = module(x, kept.to(mask.dtype))
    return y


def _at_the_end(layer: Any, module: Any, x: torch.Tensor) -> torch.Tensor:
    module.returns = "sequence"
    y: torch.Tensor = module(x)[:, -1]
    return y


def _halves_swapped(y: Any) -> Any:
    half = y.shape[-1] // 2
    return keras.ops.concatenate([y[..., half:], y[..., :half]], axis=-1)


def _truncated(forward: Any, layer: Any, context: Any, parameters: Any, *x: Any) -> Any:
    """Send nothing back through more than one step: the gradient of the first steps lacks what came of them later."""
    y, back = forward(layer, context, parameters, *x)

    def backward(dy: Any) -> Any:
        (dx, *rest), by_parameter = back(dy)
        if dx is not None:
            dx = np.array(dx)
            dx[:, 0] = 0.0
        return (dx, *rest), by_parameter

    return y, backward


FAULTS = [
    series("gates of an LSTM in ONNX's order", "LSTM", "torch", "lstm", other_blocks("lstm", (0, 3, 1, 2))),
    series("forget gate opened in the model", "LSTM", "torch", "lstm", other_weights("lstm", _raised)),
    replace(
        series("both biases of an LSTM learn", "LSTM", "torch", "lstm", other_weights("lstm", _doubled)),
        optimizer=Sgd(lr=0.05),
    ),
    series(
        "time cut short on the way back",
        "LSTM",
        "numpy",
        "lstm",
        numpy_port("lstm", _truncated),
        "agree with each other",
        returns="last",
    ),
    series(
        "cell state before the hidden one",
        "recurrent, state",
        "keras",
        "lstm",
        keras_port("lstm", lambda build, layer, context, x: _halves_swapped(build(layer, context, x))),
        returns="state",
    ),
    series("gates of a GRU in the order r, z, n", "GRU", "torch", "gru", other_blocks("gru", None)),
    series("reset before the product", "GRU", "torch", "gru", gru_steps(reset_before=True)),
    series("update gate turned round", "GRU", "torch", "gru", gru_steps(turned=True)),
    series("recurrent bias outside of the reset", "GRU", "torch", "gru", gru_steps(bias_outside=True)),
    series(
        "reset before the product, in ONNX", "GRU", "onnx", "gru", other_attributes("GRU", linear_before_reset=None)
    ),
    series(
        "another nonlinearity",
        "simple RNN",
        "keras",
        "simple_rnn",
        other_fields("keras", "simple_rnn", nonlinearity="relu"),
    ),
    series(
        "tangent for ReLU, in ONNX",
        "simple RNN",
        "onnx",
        "simple_rnn",
        other_attributes("RNN", activations=["Tanh"]),
        nonlinearity="relu",
    ),
    series(
        "results in the order of reading",
        "recurrent, direction",
        "keras",
        "lstm",
        keras_port("lstm", lambda build, layer, context, x: keras.ops.flip(build(layer, context, x), axis=1)),
        direction="backward",
    ),
    series(
        "a sequence read forward",
        "recurrent, direction",
        "onnx",
        "gru",
        other_attributes("GRU", direction="forward"),
        direction="backward",
    ),
    series(
        "backward channels first",
        "recurrent, direction",
        "keras",
        "gru",
        keras_port("gru", lambda build, layer, context, x: _halves_swapped(build(layer, context, x))),
        direction="both",
    ),
    series(
        "last position of both directions",
        "recurrent, last",
        "torch",
        "lstm",
        torch_port("lstm", _at_the_end),
        direction="both",
        returns="last",
    ),
    masked("mask not looked at", "keras", "gru", keras_port("gru", _without)),
    masked("results repeated where the mask leaves out", "torch", "lstm", torch_port("lstm", _repeated)),
    masked("mask taken for a length", "torch", "simple_rnn", torch_port("simple_rnn", _prefix), returns="last"),
    started("hidden and cell state exchanged", torch_port("lstm", lambda layer, module, x, h, c: module(x, c, h))),
    started(
        "initial state not looked at",
        torch_port("lstm", lambda layer, module, x, h, c: module(x, torch.zeros_like(h), torch.zeros_like(c))),
    ),
    replace(
        masked("another number is padding", "keras", "gru", other_fields("keras", "padding_mask", padding=1)),
        row="masks",
        part="words",
    ),
    Fault(
        "one step too many",
        "masks",
        "torch",
        [*LENGTHS, {"type": "gru", "name": "read", "units": 4, "mask": "steps"}, *HEAD],
        (1,),
        "steps",
        "",
        torch_port("length_mask", lambda layer, module, x: module(x + 1)),
        dtype="integer",
    ),
]
