"""Sliding windows over images, one tap (element of the window) at a time.

A tap (i, j) of all windows together is a strided slice of the padded image; everything windowed is written
with these kh * kw slices. Height and width are axes 1 and 2, between batch and channel in either order:
``[batch, height, width, channel]`` as everywhere, or ``[channel, height, width, batch]`` in convolutions.
A sequence ``[batch, length, channel]`` is an image of height 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from unitrain.backends.numpy.registry import Array
from unitrain.spec.layers.base import Shape
from unitrain.spec.layers.conv import WindowedLayer

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Windows:
    """Where the windows lie, each field by (vertical, horizontal).

    Parameters
    ----------
    kernel, strides, dilation
        Taps of a window, distance between windows, distance between taps.
    pads
        Elements added before and after.
    outputs
        Number of windows.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    outputs: tuple[int, int]

    @classmethod
    def of(cls, layer: WindowedLayer, shape: Shape) -> Windows:
        """Return the windows of a layer over an input of ``shape``, batch left out."""
        return cls(
            pair(layer.kernel_size, 1),
            pair(layer.strides, 1),
            pair(layer.dilation, 1),
            pair(layer.pads(shape), (0, 0)),
            pair(layer.positions(shape), 1),
        )

    @property
    def area(self) -> int:
        """Number of taps."""
        return prod(self.kernel)

    @property
    def disjoint(self) -> bool:
        """Whether no element lies in two windows."""
        return all(
            (taps - 1) * spread < stride
            for taps, stride, spread in zip(self.kernel, self.strides, self.dilation, strict=True)
        )

    def pad(self, image: Array, value: float = 0.0) -> Array:
        """Add the padding; an image without any is returned as it is."""
        (top, bottom), (left, right) = self.pads
        if not (top or bottom or left or right):
            return image
        first, height, width, last = image.shape
        shape = (first, top + height + bottom, left + width + right, last)
        padded = np.full_like(image, value, shape=shape)  # in the memory order of the image
        self.crop(padded)[...] = image
        return padded

    def crop(self, padded: Array) -> Array:
        """Take the padding off: a view."""
        (top, bottom), (left, right) = self.pads
        return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]

    def largest(self, padded: Array) -> Array:
        """Return the largest element of each window: the largest of each row's, of the largest of each column's."""
        result = padded
        for axis in (1, 2):
            spread, stride, count = self.dilation[axis - 1], self.strides[axis - 1], self.outputs[axis - 1]
            lines = [
                result[(slice(None),) * axis + (slice(start, start + (count - 1) * stride + 1, stride),)]
                for start in range(0, self.kernel[axis - 1] * spread, spread)
            ]
            result = np.maximum(lines[0], lines[1]) if len(lines) > 1 else lines[0]
            for line in lines[2:]:
                np.maximum(result, line, out=result)
        return result

    def taps(self, padded: Array, rows: slice = slice(None)) -> Iterator[Array]:
        """Yield, tap by tap in row order, what the windows see there: views with `outputs` on axes 1 and 2.

        ``rows`` chooses some rows of windows.
        """
        first, end, _ = rows.indices(self.outputs[0])
        (down, right), (spread_down, spread_right) = self.strides, self.dilation
        for i in range(self.kernel[0]):
            top = i * spread_down + first * down
            below = top + (end - first - 1) * down + 1
            for left in range(0, self.kernel[1] * spread_right, spread_right):
                beside = left + (self.outputs[1] - 1) * right + 1
                yield padded[:, top:below:down, left:beside:right]


def pair(values: tuple[_Value, ...], lead: _Value) -> tuple[_Value, _Value]:
    """Return (vertical, horizontal), for a layer over sequences with ``lead`` as the vertical part."""
    vertical, horizontal = (lead, *values)[-2:]
    return vertical, horizontal


def as_image(x: Array) -> Array:
    """See a sequence ``[batch, length, channel]`` as an image of height 1; an image stays."""
    return x[:, None] if x.ndim == 3 else x
