"""Layers for tables of numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from unitrain.spec.initializers import Initializer, Uniform, Zeros
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, kernel_parameter, require_rank


class FeatureTokens(LayerSpec):
    """One token for each number of a row: ``y[j] = x[j] * kernel[j] + bias[j]``, ``[feature]`` to ``[feature, width]``.

    The tokenizer of numbers of Gorishniy et al. 2021, "Revisiting deep learning models for tabular data", section 3.3.
    Parameters: ``kernel`` and ``bias``, both ``(feature, width)``.
    """

    type: Literal["feature_tokens"] = "feature_tokens"
    width: PositiveInt
    use_bias: bool = True
    kernel_initializer: Initializer = Uniform()
    bias_initializer: Initializer = Zeros()

    def output_shape(self, *inputs: Shape) -> Shape:
        """Append the width."""
        require_rank(inputs[0], 1, "(feature)")
        return (*inputs[0], self.width)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``kernel`` and, unless ``use_bias`` is false, ``bias``."""
        shape = (inputs[0][0], self.width)
        fans = (1, self.width)
        table = {"kernel": kernel_parameter(shape, self.kernel_initializer, fans)}
        if self.use_bias:
            table["bias"] = Parameter(shape, self.bias_initializer, fans)
        return table

    def macs(self, *inputs: Shape) -> int:
        """One for each number of each token."""
        return inputs[0][0] * self.width
