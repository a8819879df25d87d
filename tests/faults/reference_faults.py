"""Faults of the NumPy backend, which is the reference: seen where all other backends, or its own twin, disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
from faults.layer_faults import DROP, LAYER, MEAN, NORM, ROW, image_fault, row_fault, row_net
from faults.planting import Fault, Fields, Plant, attribute, entry, numpy_port, other_fields, other_rule, other_updater
from faults.training_faults import HIDDEN, _keras_adam, _Wrong

from unitrain.backends.numpy import registry
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.numpy.program import NumpyProgram
from unitrain.backends.rule import TrainingRule
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.optimizers import Adam, Sgd

AGREE, TWIN = "agree with each other", "NumPy is wrong"


def images(name: str, row: str, layer: Fields, words: str, plant: Plant, part: str = "") -> Fault:
    """A fault in a model of images."""
    return image_fault(name, row, "numpy", layer, words, plant, part)


def rows(name: str, row: str, layer: Fields, words: str, plant: Plant, part: str = "") -> Fault:
    """A fault in a model of rows."""
    return row_fault(name, row, "numpy", layer, words, plant, part)


def other_parameter(kind: str, local: str, change: Any, name: str = "") -> Plant:
    """NumPy reads a parameter otherwise; its gradient is turned back by nobody."""

    def call(forward: Any, layer: Any, context: Any, parameters: Any, *x: Any) -> Any:
        if name and layer.name != name:
            return forward(layer, context, parameters, *x)
        return forward(layer, context, {**parameters, local: change(parameters[local])}, *x)

    return numpy_port(kind, call)


def _by_backward(kind: str, change: Any) -> Plant:
    """NumPy's gradients of a layer are changed: ``change(inputs' gradients, parameters' gradients)``."""

    def call(forward: Any, layer: Any, context: Any, parameters: Any, *x: Any) -> Any:
        y, back = forward(layer, context, parameters, *x)
        return y, lambda dy: change(*back(dy))

    return numpy_port(kind, call)


def _tanh_gelu() -> Any:
    layer_type = LAYER_TYPES["gelu"]
    forward = registry.IMPLEMENTATIONS[layer_type]
    wrong = lambda layer, *rest: forward(layer.model_copy(update={"approximate": "tanh"}), *rest)  # noqa: E731  # a one-liner
    return entry(registry.IMPLEMENTATIONS, layer_type, wrong)


def _unscaled(self: Any, placed: Any, plan: Any) -> Any:
    from dataclasses import replace

    return _RIGHT_STEPS(self, placed, replace(plan, scale=plan.scale * 0 + 1))


_RIGHT_STEPS = NumpyProgram.run_steps


def _halved(rule: TrainingRule) -> TrainingRule:
    from dataclasses import replace

    class Half:
        def __init__(self, loss: Any) -> None:
            self.loss = loss

        def terms(self, *arguments: Any) -> Any:
            numerator, denominator = self.loss.terms(*arguments)
            return 0.5 * numerator, denominator

        def gradient(self, *arguments: Any) -> Any:
            return 0.5 * self.loss.gradient(*arguments)

    from unitrain.verify.experiments.steps import GivenGradient

    losses = {
        name: (factor, loss if isinstance(loss, GivenGradient) else Half(loss))
        for name, (factor, loss) in rule.losses.items()
    }
    return replace(rule, losses=losses)


FAULTS = [
    images(
        "NumPy: kernel flipped",
        "dense / conv weight",
        {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 3},
        AGREE,
        other_parameter("conv2d", "kernel", lambda k: np.ascontiguousarray(k[::-1, ::-1]), "conv"),
    ),
    rows(
        "NumPy: dense weight transposed",
        "dense / conv weight",
        {"type": "dense", "name": "square", "units": 6},
        AGREE,
        other_parameter("dense", "kernel", lambda k: k.T, "square"),
    ),
    images(
        "NumPy: odd padding at the start",
        "same padding",
        {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 2, "padding": "same"},
        AGREE,
        other_fields("numpy", "conv2d", "conv", padding=[[1, 0], [1, 0]]),
    ),
    images(
        "NumPy: padding counted in the mean",
        "average pool over padding",
        MEAN,
        AGREE,
        numpy_port(
            "average_pool2d",
            lambda forward, layer, context, parameters, x: _padded_mean(forward, layer, context, parameters, x),
        ),
    ),
    images(
        "NumPy: batch norm's epsilon", "batch norm eps", NORM, TWIN, other_fields("numpy", "batch_norm", epsilon=1e-3)
    ),
    images(
        "NumPy: running variance moves twice",
        "batch norm momentum",
        NORM,
        TWIN,
        other_fields("numpy", "batch_norm", momentum=0.8),
    ),
    rows(
        "NumPy: layer norm without its mean's gradient",
        "layer, group norm eps",
        LAYER,
        TWIN,
        _by_backward("layer_norm", lambda by_input, by_parameter: (tuple(dx + 0.01 for dx in by_input), by_parameter)),
    ),
    rows("NumPy: tanh GELU", "GELU", {"type": "gelu", "name": "act"}, TWIN, _tanh_gelu),
    rows(
        "NumPy: relu'(0) = 1",
        "subgradients at kinks",
        {"type": "relu", "name": "act"},
        AGREE,
        numpy_port(
            "relu", lambda forward, layer, context, parameters, x: (np.maximum(x, 0), lambda dy: ((dy * (x >= 0),), {}))
        ),
    ),
    rows(
        "NumPy: bias without gradient",
        "dense / conv weight",
        {"type": "dense", "name": "square", "units": 6},
        TWIN,
        _by_backward(
            "dense", lambda by_input, by_parameter: (by_input, {**by_parameter, "bias": 0 * by_parameter["bias"]})
        ),
    ),
    rows(
        "NumPy: dropout not scaled",
        "dropout",
        DROP,
        AGREE,
        numpy_port(
            "dropout",
            lambda forward, layer, context, parameters, x: _unscaled_dropout(forward, layer, context, parameters, x),
        ),
    ),
    rows(
        "NumPy: softmax's gradient without the sum",
        "softmax",
        {"type": "softmax", "name": "act"},
        TWIN,
        numpy_port(
            "softmax",
            lambda forward, layer, context, parameters, x: _half_softmax(forward, layer, context, parameters, x),
        ),
    ),
    Fault(
        "NumPy: Keras' Adam",
        "Adam",
        "numpy",
        row_net(HIDDEN),
        ROW,
        "optimizer",
        AGREE,
        other_updater("numpy", Adam(), lambda right: _Wrong(right, _keras_adam)),
    ),
    Fault(
        "NumPy: gradients summed over batches",
        "accumulation",
        "numpy",
        row_net(HIDDEN),
        ROW,
        "optimizer",
        AGREE,
        lambda: attribute(NumpyProgram, "run_steps", _unscaled),
        optimizer=Sgd(momentum=0.9),
        accumulate=2,
    ),
    Fault(
        "NumPy: half of the loss",
        "MSE",
        "numpy",
        row_net(HIDDEN),
        ROW,
        "loss of head",
        AGREE,
        other_rule("numpy", _halved),
        loss={"type": "mse"},
    ),
    Fault(
        "NumPy: a root in half precision",
        "float32 accumulation",
        "numpy",
        row_net(HIDDEN),
        ROW,
        "optimizer",
        AGREE,
        lambda: attribute(
            NumpyNamespace, "sqrt", staticmethod(lambda x: np.sqrt(x).astype(np.float16).astype(np.asarray(x).dtype))
        ),
    ),
]


def _padded_mean(forward: Any, layer: Any, context: Any, parameters: Any, x: Any) -> Any:
    from dataclasses import replace

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    bare = layer.model_copy(update={"padding": "valid"})
    node = replace(context.node, layer=bare, input_shapes=(padded.shape[1:],))
    y, back = forward(bare, replace(context, node=node), parameters, padded)

    def backward(dy: Any) -> Any:
        (dx,), gradients = back(dy)
        return (dx[:, 1:-1, 1:-1],), gradients

    return y, backward


def _unscaled_dropout(forward: Any, layer: Any, context: Any, parameters: Any, x: Any) -> Any:
    y, back = forward(layer, context, parameters, x)
    if not context.training:
        return y, back
    share = 1 - layer.rate
    return y * share, lambda dy: ((back(dy)[0][0] * share,), {})


def _half_softmax(forward: Any, layer: Any, context: Any, parameters: Any, x: Any) -> Any:
    y, _ = forward(layer, context, parameters, x)
    return y, lambda dy: ((y * dy,), {})
