"""How a model is trained for arithmetic in integers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unitrain.spec.base import Spec
from unitrain.spec.layers.norm import Fraction
from unitrain.spec.quantizers import Bits


class Quantization(Spec):
    """Quantisation-aware training: the model trains with numbers rounded as integer arithmetic will have them.

    It starts from drawn weights, or from those of a run in floats by the recipe's ``initial_weights``.

    Parameters
    ----------
    bits
        Of activations and weights; onnxruntime computes in 8.
    weights
        ``per_channel``: a scale for each output channel of a kernel; ``per_tensor``: one for the kernel.
    activations
        ``moving_average``: ranges follow the batches' least and largest values; ``learned``: steps are trained too.
    momentum
        Fraction of a moving range that is kept at each step.
    skip
        Names of layers whose kernels, inputs and results stay as they are, unless another layer's are the same.
    """

    bits: Bits = 8
    weights: Literal["per_channel", "per_tensor"] = "per_channel"
    activations: Literal["moving_average", "learned"] = "moving_average"
    momentum: Fraction = 0.9
    skip: Annotated[tuple[str, ...], Field(description="Layers that stay as they are.")] = ()
