"""Optimizers, sorted by increasing complexity, and what happens to gradients before and after the rule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice
from unitrain.spec.named import BY_NAME

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Optimizer(Spec):
    """What every optimizer has.

    Parameters
    ----------
    lr
        Learning rate, before the schedule.
    weight_decay
        Decoupled decay (Loshchilov & Hutter 2019): each update also subtracts lr * weight_decay * w.
    l2
        Coupled penalty l2 * sum(w^2): adds 2 * l2 * w to the gradient, before clipping.
    decay_all
        Let decay and penalty act on biases, norms and slopes too, not on kernels and tables only.
    clip_value
        Limit each element of the gradient to this size.
    clip_norm
        Scale all gradients together by min(clip_norm / (norm + 1e-6), 1), norm over all parameters.
    ema
        Keep an exponential moving average of the weights with this decay; it is what is evaluated and kept.
    """

    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    decay_all: bool = False
    clip_value: PositiveFloat | None = None
    clip_norm: PositiveFloat | None = None
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None


class Sgd(_Optimizer):
    """b = momentum * b + g; w -= lr * b, or with Nesterov w -= lr * (g + momentum * b) (Sutskever et al. 2013)."""

    type: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 1e-2
    momentum: Fraction = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Lion(_Optimizer):
    """w -= lr * sign(b1 * m + (1 - b1) * g); m = b2 * m + (1 - b2) * g (Chen et al. 2023, algorithm 2)."""

    type: Literal["lion"] = "lion"
    lr: PositiveFloat = 1e-4
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99


class Adagrad(_Optimizer):
    """a += g^2; w -= lr * g / (sqrt(a) + epsilon), a = 0 at the start (Duchi et al. 2011)."""

    type: Literal["adagrad"] = "adagrad"
    lr: PositiveFloat = 1e-2
    epsilon: PositiveFloat = 1e-10


class RmsProp(_Optimizer):
    """v = decay * v + (1 - decay) * g^2; w -= lr * g / (sqrt(v) + epsilon) (Tieleman & Hinton 2012).

    ``centred`` subtracts the square of a mean of g from v; with ``momentum`` the quotient goes through
    b = momentum * b + quotient first (Graves 2013).
    """

    type: Literal["rmsprop"] = "rmsprop"
    decay: Fraction = 0.99
    epsilon: PositiveFloat = 1e-8
    momentum: Fraction = 0.0
    centred: bool = False

    @model_validator(mode="after")
    def _centred_needs_decay(self) -> RmsProp:
        if self.centred and self.decay == 0.0:
            raise ValueError("centred needs a decay above 0: one gradient alone has no variance to divide by")
        return self


class Adam(_Optimizer):
    """w -= lr * m_hat / (sqrt(v_hat) + epsilon) (Kingma & Ba 2015, algorithm 1)."""

    type: Literal["adam"] = "adam"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: PositiveFloat = 1e-8


class AdamW(Adam):
    """Adam with decoupled weight decay, 0.01 by default (Loshchilov & Hutter 2019)."""

    type: Literal["adamw"] = "adamw"  # type: ignore[assignment]  # a narrower tag than its parent's
    weight_decay: NonNegativeFloat = 0.01


class Nadam(_Optimizer):
    """Adam with Nesterov momentum, momentum schedule beta1 * (1 - 0.96^(0.004 t) / 2) (Dozat 2016)."""

    type: Literal["nadam"] = "nadam"
    lr: PositiveFloat = 2e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: PositiveFloat = 1e-8


Optimizer = Annotated[
    Annotated[
        Sgd | Lion | Adagrad | RmsProp | Adam | AdamW | Nadam,
        Choice(),
    ],
    BY_NAME,
]
