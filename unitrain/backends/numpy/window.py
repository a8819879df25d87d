"""Sliding windows over images and volumes, one tap (element of the window) at a time.

A tap (i, j) of all windows together is a strided slice of the padded image; everything windowed is written
with these kh * kw slices. Height and width are axes 1 and 2, between batch and channel in either order:
``[batch, height, width, channel]`` as everywhere, or ``[channel, height, width, batch]`` in convolutions. A volume has
the depth before them. A sequence ``[batch, length, channel]`` is an image of height 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TypeVar

import numpy as np

from unitrain.backends.numpy.registry import Array
from unitrain.spec.layers.base import Shape
from unitrain.spec.layers.conv import WindowedLayer

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Windows:
    """Where the windows lie, each field by (vertical, horizontal), of a volume by (depth, vertical, horizontal).

    Parameters
    ----------
    kernel, strides, dilation
        Taps of a window, distance between windows, distance between taps.
    pads
        Elements added before and after.
    outputs
        Number of windows.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]

    @classmethod
    def of(cls, layer: WindowedLayer, shape: Shape) -> Windows:
        """Return the windows of a layer over an input of ``shape``, batch left out."""
        return cls(
            spatial(layer.kernel_size, 1),
            spatial(layer.strides, 1),
            spatial(layer.dilation, 1),
            spatial(layer.pads(shape), (0, 0)),
            spatial(layer.positions(shape), 1),
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
        if not any(map(any, self.pads)):
            return image
        first, *sizes, last = image.shape
        inside = (size + sum(pads) for size, pads in zip(sizes, self.pads, strict=True))
        shape = (first, *inside, last)
        padded = np.full_like(image, value, shape=shape)  # in the memory order of the image
        self.crop(padded)[...] = image
        return padded

    def crop(self, padded: Array) -> Array:
        """Take the padding off: a view."""
        sides = zip(self.pads, padded.shape[1:], strict=False)
        return padded[(slice(None), *(slice(before, size - after) for (before, after), size in sides))]

    def largest(self, padded: Array) -> Array:
        """Return the largest element of each window: the largest of each row's, of the largest of each column's."""
        result = padded
        for axis in range(1, len(self.kernel) + 1):
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
        """Yield, tap by tap in row order, what the windows see there: views with `outputs` on axes 1, 2, ...

        ``rows`` chooses some of the windows along axis 1.
        """
        first, end, _ = rows.indices(self.outputs[0])
        begins = (first * self.strides[0], *(0,) * (len(self.outputs) - 1))
        counts = (end - first, *self.outputs[1:])
        along = [
            [slice(start, start + (count - 1) * stride + 1, stride) for start in range(begin, begin + reach, spread)]
            for begin, count, stride, spread, reach in zip(
                begins, counts, self.strides, self.dilation, np.multiply(self.kernel, self.dilation), strict=True
            )
        ]
        for parts in product(*along):
            yield padded[(slice(None), *parts)]


def spatial(values: tuple[_Value, ...], lead: _Value) -> tuple[_Value, ...]:
    """Return a value for each axis, for a layer over sequences with ``lead`` as the vertical part before."""
    return (lead, *values) if len(values) == 1 else values


def as_image(x: Array) -> Array:
    """See a sequence ``[batch, length, channel]`` as an image of height 1; images and volumes stay."""
    return x[:, None] if x.ndim == 3 else x
