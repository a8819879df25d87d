"""Normalisation over the batch, the features, or groups of channels. The channel is the last axis."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from unitrain.spec.initializers import Initializer, Ones, Zeros
from unitrain.spec.layers.base import (
    LayerSpec,
    Parameter,
    Shape,
    ShapeError,
    bias_parameter,
    scale_parameter,
    show_shape,
)

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Norm(LayerSpec):
    epsilon: PositiveFloat
    use_scale: bool = True
    use_bias: bool = True
    scale_initializer: Initializer = Ones()
    bias_initializer: Initializer = Zeros()

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if not inputs[0]:
            raise ShapeError("needs an input with a channel axis")
        return inputs[0]

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``scale`` and ``bias``, one a channel, where used."""
        return self._affine(inputs[0][-1])

    def _affine(self, size: int) -> dict[str, Parameter]:
        table = {}
        if self.use_scale:
            table["scale"] = scale_parameter(size, self.scale_initializer)
        if self.use_bias:
            table["bias"] = bias_parameter(size, self.bias_initializer)
        return table


class BatchNorm(_Norm):
    """Normalise each channel over the batch and all positions (Ioffe & Szegedy 2015).

    Training uses the batch's mean and biased variance, and moves the running ones:
    ``running = momentum * running + (1 - momentum) * batch``. Inference uses the running ones.
    Parameters: ``scale``, ``bias``, and the untrained ``running_mean``, ``running_variance``, all ``(channel,)``.
    """

    type: Literal["batch_norm"] = "batch_norm"
    epsilon: PositiveFloat = 1e-5
    momentum: Fraction = 0.9

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """Scale, bias and the running statistics."""
        channels = inputs[0][-1]
        return {
            **self._affine(channels),
            "running_mean": Parameter((channels,), Zeros(), trainable=False),
            "running_variance": Parameter((channels,), Ones(), trainable=False),
        }


class LayerNorm(_Norm):
    """Normalise each sample over its last ``axes`` axes (Ba et al. 2016).

    Parameters: ``scale`` and ``bias``, in the shape of those axes.
    """

    type: Literal["layer_norm"] = "layer_norm"
    epsilon: PositiveFloat = 1e-5
    axes: PositiveInt = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if self.axes > len(inputs[0]):
            raise ShapeError(f"axes {self.axes} are more than {show_shape(inputs[0])} has (batch not counted)")
        return super().output_shape(*inputs)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``scale`` and ``bias`` over the normalised axes."""
        shape = inputs[0][-self.axes :]
        return {
            name: Parameter(shape, parameter.initializer, parameter.fans)
            for name, parameter in self._affine(prod(shape)).items()
        }


class GroupedNorm(_Norm):
    """A norm of each sample over all positions and runs of channels."""

    def groups_of(self, channels: int) -> int:
        """Return how many runs there are."""
        raise NotImplementedError


class GroupNorm(GroupedNorm):
    """Normalise each sample over all positions and each of ``groups`` runs of channels (Wu & He 2018)."""

    type: Literal["group_norm"] = "group_norm"
    groups: PositiveInt = 32
    epsilon: PositiveFloat = 1e-5

    def groups_of(self, channels: int) -> int:
        """``groups``."""
        return self.groups

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if inputs[0] and inputs[0][-1] % self.groups:
            raise ShapeError(f"groups {self.groups} do not divide the channels of {show_shape(inputs[0])}")
        return super().output_shape(*inputs)


class InstanceNorm(GroupedNorm):
    """Normalise each channel of each sample over all positions (Ulyanov et al. 2016)."""

    type: Literal["instance_norm"] = "instance_norm"
    epsilon: PositiveFloat = 1e-5

    def groups_of(self, channels: int) -> int:
        """One a channel."""
        return channels

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the input shape."""
        if len(inputs[0]) < 2:
            raise ShapeError(f"needs spatial axes before the channel, and got {show_shape(inputs[0])}")
        return inputs[0]


class RmsNorm(_Norm):
    """Divide each position by the root mean square of its channels (Zhang & Sennrich 2019); no bias."""

    type: Literal["rms_norm"] = "rms_norm"
    epsilon: PositiveFloat = 1e-6
    use_bias: Literal[False] = False
