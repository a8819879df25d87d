"""Numbers rounded to the levels of integers, in NumPy; the meaning stands in `unitrain.spec.layers.quantize`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.spec.layers.base import Parameter
from unitrain.spec.layers.quantize import FakeQuantize
from unitrain.spec.quantizers import KernelQuantizer, kernel_levels

Array = npt.NDArray[Any]


def quantized_kernel(kernel: Array, parameter: Parameter) -> Array:
    """Return a kernel as it is computed with: rounded, if its parameter has a quantizer."""
    if parameter.quantizer is None:
        return kernel
    scale = _kernel_scale(kernel, parameter, parameter.quantizer)
    rounded: Array = np.rint(kernel / scale) * scale
    return rounded


def kernel_levels_of(kernel: Array, parameter: Parameter) -> Array:
    """Return the level that each weight of a kernel with a quantizer is rounded to; without one, nothing but zeros."""
    if parameter.quantizer is None:
        return np.zeros_like(kernel)
    levels: Array = np.rint(kernel / _kernel_scale(kernel, parameter, parameter.quantizer))
    return levels


def _kernel_scale(kernel: Array, parameter: Parameter, quantizer: KernelQuantizer) -> Array:
    axes = tuple(range(kernel.ndim - parameter.channel_axes)) if quantizer.per_channel else None
    most = kernel_levels(quantizer.bits)[1]
    return no_zeros(np.abs(kernel).max(axis=axes, keepdims=True) / kernel.dtype.type(most))


def grid(layer: FakeQuantize, low: Array, high: Array) -> tuple[Array, Array]:
    """Return scale and zero point of a range, in its dtype. Zero points are whole numbers."""
    least, most = layer.levels
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    number = low.dtype.type
    if layer.symmetric:
        return no_zeros(np.maximum(-low, high) / number(most)), np.zeros_like(low)
    scale = no_zeros((high - low) / number(most))
    return scale, np.clip(np.rint(-low / scale), least, most)


def settled_grid(layer: FakeQuantize, parameters: Mapping[str, Array], dtype: npt.DTypeLike) -> tuple[Array, Array]:
    """Return scale and zero point in inference, each ``(1,)`` or ``(channel,)``; ``parameters`` by local name."""
    if "scale" in parameters:
        scale = no_zeros(np.abs(np.asarray(parameters["scale"], dtype)))
        return scale, np.zeros_like(scale)
    if isinstance(layer.range, tuple):
        low, high = (np.full(1, number, dtype) for number in layer.range)
        return grid(layer, low, high)
    return grid(layer, *(np.asarray(parameters[name], dtype) for name in ("running_low", "running_high")))


def no_zeros(scale: Array) -> Array:
    """Return a scale with 1 where it is 0: of an empty range."""
    return np.where(scale > 0, scale, scale.dtype.type(1))
