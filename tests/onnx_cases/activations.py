"""Activations and dropout. The first axis is the batch, unless the node names axes: then the case is one sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_cases.node_case import NodeCase, NotApplicable, Outputs, Translator


def plain(kind: str, **renamed: tuple[str, Any]) -> Translator:
    """Make a translator for a layer whose fields are attributes: ``field=(attribute, ONNX's default)``."""

    def elementwise(case: NodeCase) -> Outputs:
        fields = {name: case.attributes.get(attribute, default) for name, (attribute, default) in renamed.items()}
        return [case.apply({"type": kind, **fields}, case.numbers(0)).output]

    return elementwise


def prelu(case: NodeCase) -> Outputs:
    """Slopes by element are slopes by channel of a flattened input."""
    x, slope = case.numbers(0), case.numbers(1)
    if slope.ndim == 1:
        return [case.apply({"type": "prelu"}, x, slope=slope).output]
    slopes = np.broadcast_to(slope, x.shape).ravel()
    return [case.apply({"type": "prelu"}, x.reshape(1, -1), slope=slopes).output.reshape(x.shape)]


# Selu's constants in float32, as ONNX states its defaults.
SELU = {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}


def selu(case: NodeCase) -> Outputs:
    stated = {name: case.attributes.get(name, default) for name, default in SELU.items()}
    if stated != SELU:
        raise NotApplicable("alpha or gamma of its own: ours has the constants of the paper")
    return [case.apply({"type": "selu"}, case.numbers(0)).output]


def swish(case: NodeCase) -> Outputs:
    if case.attributes.get("alpha", 1.0) != 1.0:
        raise NotApplicable("alpha is not 1")
    return [case.apply({"type": "silu"}, case.numbers(0)).output]


def hard_sigmoid(case: NodeCase) -> Outputs:
    """Ours clips x / 6 + 1 / 2 to 0 .. 1; a dense layer before it, which names it as activation, makes any other slope.

    The layer is fused: dense with kernel 6 * alpha and bias 6 * (beta - 1 / 2).
    """
    x = case.numbers(0)
    alpha, beta = case.attributes.get("alpha", 0.2), case.attributes.get("beta", 0.5)
    fields = {"type": "dense", "units": 1, "activation": "hard_sigmoid"}
    kernel, bias = np.array([[6.0 * alpha]]), np.array([6.0 * (beta - 0.5)])
    case.layers.add("hard_sigmoid")
    return [case.apply(fields, x[..., None], kernel=kernel, bias=bias).output[..., 0]]


# The limits that are a layer of ours.
LIMITS: dict[tuple[float | None, float | None], str] = {(0.0, 6.0): "relu6", (0.0, None): "relu"}


def clip(case: NodeCase) -> Outputs:
    kind = LIMITS.get((_limit(case, 1), _limit(case, 2)))
    if kind is None:
        raise NotApplicable("limits other than 0 .. 6 (relu6) and 0 .. infinity (relu)")
    return [case.apply({"type": kind}, case.numbers(0)).output]


def _limit(case: NodeCase, position: int) -> float | None:
    given = case.given(position)
    return None if given is None else float(given)


def softmax(case: NodeCase) -> Outputs:
    """The case is one sample, so that softmax can run over its first axis."""
    return [case.apply({"type": "softmax", "axis": case.attributes.get("axis", -1)}, case.numbers(0)[None]).output[0]]


def layer_scale(case: NodeCase) -> Outputs:
    """A product with a vector is a factor for each channel."""
    x, scale = case.numbers(0), case.numbers(1)
    if x.ndim < 2 or scale.ndim != 1:
        raise NotApplicable("the second factor is no vector")
    return [case.apply({"type": "layer_scale"}, x, scale=scale).output]


def dropout(case: NodeCase) -> Outputs:
    """The mask is where the derivative of the output by the input is not 0."""
    x, ratio, mode = case.numbers(0), case.given(1), case.given(2)
    rate = float(case.attributes.get("ratio", 0.5) if ratio is None else ratio)
    training = mode is not None and bool(mode)
    if training and rate:
        raise NotApplicable("a random mask: ours comes from our own generator")
    done = (case.train if training else case.apply)({"type": "dropout", "rate": rate}, x)
    results: Outputs = [done.output, np.not_equal(done.input_gradient(np.ones_like(x)), 0)]
    return results[: len(case.outputs)]


def identity(case: NodeCase) -> Outputs:
    """An exporter leaves an Identity where a dropout layer was: in inference it is one."""
    return [case.apply({"type": "dropout"}, case.numbers(0)).output]
