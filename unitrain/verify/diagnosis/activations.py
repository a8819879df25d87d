"""Other meanings of activations: derivatives at kinks, approximations, slopes."""

from __future__ import annotations

from typing import Any

import numpy as np

from unitrain.backends.numpy.activation import SELU_ALPHA, SELU_SCALE
from unitrain.spec.layers import LAYER_TYPES
from unitrain.verify.diagnosis import formulas
from unitrain.verify.diagnosis.evidence import Array, Evidence, Variant, Variants, with_fields
from unitrain.verify.kinks import KINKS

# Activations without fields, or with the usual values of them.
PLAIN = ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "hard_sigmoid", "hard_swish", "tanh",
          "softplus")  # fmt: skip


def activations(evidence: Evidence) -> Variants:
    """Derivatives at kinks, other functions."""
    kind = evidence.layer.type
    for slope in (0.0, 0.5, 1.0, 1.5, -0.5, SELU_SCALE, SELU_SCALE * SELU_ALPHA):
        for places in [KINKS[kind], *((place,) for place in KINKS[kind])] if kind in KINKS else []:
            text = f"takes {slope:g} for the derivative at {' and '.join(f'{place:g}' for place in places)}"
            yield Variant(text, formulas.kink(places, slope))
    others = [LAYER_TYPES[name].model_validate({}) for name in PLAIN if name != kind]
    yield from (Variant(f"computes {other.type}", with_fields(other)) for other in others)
    if kind == "gelu":
        yield Variant("computes x * sigmoid(1.702 x)", formulas.elementwise(_quick_gelu, _quick_gelu_derivative))
    if kind == "hard_sigmoid":
        yield Variant(
            "computes clip(0.2 x + 0.5, 0, 1), where the spec has relu6(x + 3) / 6",
            formulas.elementwise(
                lambda x: np.clip(0.2 * x + 0.5, 0, 1), lambda x: 0.2 * ((x > -2.5) & (x < 2.5)).astype(x.dtype)
            ),
        )
    if kind == "hard_swish":
        yield Variant(
            "computes x * clip(0.2 x + 0.5, 0, 1), where the spec has x * relu6(x + 3) / 6",
            formulas.elementwise(
                lambda x: x * np.clip(0.2 * x + 0.5, 0, 1),
                lambda x: np.clip(0.2 * x + 0.5, 0, 1) + x * 0.2 * ((x > -2.5) & (x < 2.5)).astype(x.dtype),
            ),
        )
    if kind == "selu":
        elu = LAYER_TYPES["elu"].model_validate({"alpha": SELU_ALPHA})
        yield Variant("computes elu with selu's alpha, without the scale", with_fields(elu))
    if kind == "softmax":
        yield Variant("computes the logarithm of the softmax", _log_softmax(getattr(evidence.layer, "axis", -1)))


def _quick_gelu(x: Array) -> Array:
    result: Array = x / (1 + np.exp(-1.702 * x))
    return result


def _quick_gelu_derivative(x: Array) -> Array:
    share = 1 / (1 + np.exp(-1.702 * x))
    result: Array = share + 1.702 * x * share * (1 - share)
    return result


def _log_softmax(axis: int) -> Any:
    def forward(layer: Any, context: Any, parameters: Any, x: Array) -> Any:
        where = axis if axis < 0 else axis + 1
        shifted = x - x.max(axis=where, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(axis=where, keepdims=True))
        return y, lambda dy: ((dy - np.exp(y) * dy.sum(axis=where, keepdims=True),), {})

    return forward
