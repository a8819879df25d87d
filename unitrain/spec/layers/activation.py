"""Elementwise activations, and softmax. The formulas are the pinned ones of the semantics page."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat

from unitrain.spec.initializers import Constant, Initializer
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, ShapeError, show_shape


class Activation(LayerSpec):
    """An activation that keeps the shape."""

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        return inputs[0]


class Relu(Activation):
    """``max(x, 0)``; the derivative at 0 is 0."""

    type: Literal["relu"] = "relu"


class Relu6(Activation):
    """``min(max(x, 0), 6)``; the derivative at 0 and at 6 is 0."""

    type: Literal["relu6"] = "relu6"


class LeakyRelu(Activation):
    """``x`` where positive, else ``slope * x``; the derivative at 0 is ``slope``."""

    type: Literal["leaky_relu"] = "leaky_relu"
    slope: NonNegativeFloat = 0.01


class Prelu(Activation):
    """Leaky ReLU with one learned slope a channel (He et al. 2015); the derivative at 0 is the slope.

    Parameter: ``slope`` ``(channel,)``.
    """

    type: Literal["prelu"] = "prelu"
    slope_initializer: Initializer = Constant(value=0.25)

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if not inputs[0]:
            raise ShapeError("needs an input with a channel axis")
        return inputs[0]

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``slope``, one a channel, without decay."""
        channels = inputs[0][-1]
        return {"slope": Parameter((channels,), self.slope_initializer, (channels, channels))}


class Elu(Activation):
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016)."""

    type: Literal["elu"] = "elu"
    alpha: NonNegativeFloat = 1.0


class Selu(Activation):
    """``scale * elu(x, alpha)``, scale 1.0507..., alpha 1.6733... (Klambauer et al. 2017).

    The derivative at 0 is ``scale * alpha``.
    """

    type: Literal["selu"] = "selu"


class Gelu(Activation):
    """``x * Phi(x)`` (Hendrycks & Gimpel 2016): exact with erf, or by the paper's tanh approximation."""

    type: Literal["gelu"] = "gelu"
    approximate: Literal["none", "tanh"] = "none"


class Silu(Activation):
    """``x * sigmoid(x)``, also called swish (Elfwing et al. 2018)."""

    type: Literal["silu"] = "silu"


class Sigmoid(Activation):
    """``1 / (1 + exp(-x))``."""

    type: Literal["sigmoid"] = "sigmoid"


class HardSigmoid(Activation):
    """``relu6(x + 3) / 6`` (Howard et al. 2019)."""

    type: Literal["hard_sigmoid"] = "hard_sigmoid"


class HardSwish(Activation):
    """``x * relu6(x + 3) / 6`` (Howard et al. 2019); the derivative at -3 is 0, at 3 is 1."""

    type: Literal["hard_swish"] = "hard_swish"


class Tanh(Activation):
    """Hyperbolic tangent."""

    type: Literal["tanh"] = "tanh"


class Softplus(Activation):
    """``log(1 + exp(x))``, without overflow."""

    type: Literal["softplus"] = "softplus"


class Softmax(Activation):
    """``exp(x) / sum(exp(x))`` over one axis, counted without the batch (-1: the channel)."""

    type: Literal["softmax"] = "softmax"
    axis: int = -1

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if not -len(inputs[0]) <= self.axis < len(inputs[0]):
            raise ShapeError(f"axis {self.axis} is outside {show_shape(inputs[0])} (batch not counted)")
        return inputs[0]


# The activations that another layer may name in its ``activation`` field: those without parameters.
ActivationName = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "sigmoid",
    "hard_sigmoid",
    "hard_swish",
    "tanh",
    "softplus",
    "softmax",
]
