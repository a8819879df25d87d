"""Gradients: NumPy's hand-written backward passes beside automatic differentiation, layer by layer and by model.

What is timed is a forward pass in training mode and the backward pass from a given gradient of the output, as the
frameworks do it for themselves: torch through ``torch.autograd.grad``, TensorFlow through ``GradientTape`` inside a
compiled function, all on tensors that lie on the device. `Program.differentiate` would not be fair: it copies
everything in and out, and on TensorFlow it runs uncompiled, which training never does. Of a layer the gradient by its
input is asked for too, since within a model it is needed; of a model it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from unitrain.backends import load_backend
from unitrain.backends.contract import Arrays
from unitrain.backends.toolkit import Call
from unitrain.bench.models import TimedModel, layer_model
from unitrain.bench.runner import Conditions, Entry, Experiment, Right, error_of
from unitrain.bench.sides import Side

# Largest relative error of a gradient: rounding alone gives 1e-7 to 1e-5.
TOLERANCE = 1e-4
# A deep network's gradients are off by more: a ReLU that rounding takes for on and float64 for off gives a whole wrong
# number. So they may also be off by this many times what NumPy in float32 is. torch's batch norm, a product and a sum,
# rounds ten times as much as NumPy's where the mean is large, which sets this number.
_TIMES = 50.0

BATCH = 128
# Layer to its fields and its input's shape; middles of networks for images, tables and sequences.
LAYERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "dense": ({"type": "dense", "units": 256}, (784,)),
    "conv2d": ({"type": "conv2d", "filters": 64, "kernel_size": 3, "padding": "same"}, (14, 14, 32)),
    "depthwise_conv2d": ({"type": "depthwise_conv2d", "kernel_size": 3, "padding": "same"}, (14, 14, 64)),
    "conv_transpose2d": ({"type": "conv_transpose2d", "filters": 16, "kernel_size": 2, "strides": 2}, (7, 7, 32)),
    "max_pool2d": ({"type": "max_pool2d", "kernel_size": 2}, (28, 28, 32)),
    "average_pool2d": ({"type": "average_pool2d", "kernel_size": 2}, (28, 28, 32)),
    "batch_norm": ({"type": "batch_norm"}, (14, 14, 64)),
    "layer_norm": ({"type": "layer_norm"}, (64, 128)),
    "relu": ({"type": "relu"}, (28, 28, 32)),
    "gelu": ({"type": "gelu"}, (64, 128)),
    "softmax": ({"type": "softmax"}, (64, 128)),
    "embedding": ({"type": "embedding", "vocabulary": 5000, "width": 64}, (64,)),
}
_QUICK = ("dense", "conv2d", "max_pool2d", "batch_norm")


def experiments(
    sides: Sequence[Side], device: str, conditions: Conditions, models: Sequence[TimedModel], *, quick: bool = False
) -> list[Experiment]:
    """Return one experiment a layer, then one a model."""
    batch = 32 if quick else BATCH
    layers = [_layer(name, conditions.seed) for name in (_QUICK if quick else LAYERS)]
    return [
        *(_experiment(layer, sides, device, batch, by_inputs=True) for layer in layers),
        *(_experiment(model, sides, device, batch, by_inputs=False) for model in models),
    ]


def _layer(name: str, seed: int) -> TimedModel:
    spec, shape = LAYERS[name]
    return layer_model(name, spec, shape, seed, **({"dtype": "integer"} if name == "embedding" else {}))


def _experiment(model: TimedModel, sides: Sequence[Side], device: str, batch: int, *, by_inputs: bool) -> Experiment:
    @cache
    def data() -> tuple[Arrays, Arrays]:
        return model.inputs(batch), model.output_gradients(batch)

    def build(side: Side) -> Call | None:
        return side.toolkit.gradient(
            model.graph, model.weights, model.settings(side.device), *data(), by_inputs=by_inputs
        )

    kind = "layer" if by_inputs else "model"
    return Experiment(
        "gradients",
        f"{kind} {model.name}",
        f"batch {batch}, {model.about}",
        model.gradient_work(batch),
        [Entry(side.name, side, partial(build, side)) for side in sides],
        lambda: _expected(model, *data(), by_inputs=by_inputs),
        device,
    )


def _expected(model: TimedModel, inputs: Arrays, gradients: Arrays, *, by_inputs: bool) -> Right:
    """Let NumPy compute it in float64, and in float32 to see how far rounding leads."""

    def by_numpy(precision: str) -> Arrays:
        program = load_backend("numpy").compile(model.graph, model.weights, model.settings("cpu", precision))
        _, by_input, by_parameter = program.differentiate(inputs, gradients)
        named = {f"input {name}": array for name, array in by_input.items()} if by_inputs else {}
        return {**named, **by_parameter}

    right = by_numpy("float64")
    return Right(right, max(TOLERANCE, _TIMES * error_of(by_numpy("float32"), right)))
