"""The arithmetic of sliding windows, shared by convolution and pooling in every backend."""

from __future__ import annotations

from typing import Literal

from unitrain.spec.layers.base import ShapeError

PaddingName = Literal["valid", "same"]
# Of sequences: all padding before, so that no window reads what comes later.
SequencePaddingName = Literal["valid", "same", "causal"]
# "valid", "same", or explicit amounts: one for all sides, or [[top, bottom], [left, right]].
PadAmounts = tuple[tuple[int, int], ...]


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the padding before and after one axis for ``same``: the odd element stands at the end."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def window_padding(
    padding: SequencePaddingName | PadAmounts,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
) -> PadAmounts:
    """Return (before, after) for each spatial axis, whichever way the padding is stated."""
    if padding == "valid":
        return tuple((0, 0) for _ in sizes)
    if padding == "same":
        return tuple(map(same_padding, sizes, kernel, strides, dilation))
    if padding == "causal":
        return tuple(((window - 1) * spread, 0) for window, spread in zip(kernel, dilation, strict=True))
    return padding


def window_outputs(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: PadAmounts,
) -> tuple[int, ...]:
    """Return the number of window positions on each spatial axis.

    Raises
    ------
    ShapeError
        The window is larger than the padded input.
    """
    outputs = []
    for size, window, stride, spread, (before, after) in zip(sizes, kernel, strides, dilation, padding, strict=True):
        reach = (window - 1) * spread + 1
        count = (size + before + after - reach) // stride + 1
        if size + before + after < reach:
            raise ShapeError(
                f"a window that reaches {reach} does not fit an axis of {size} padded by {before} + {after}"
            )
        outputs.append(count)
    return tuple(outputs)


def transposed_outputs(
    sizes: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], padding: PaddingName
) -> tuple[int, ...]:
    """Return the output sizes of a transposed convolution: ``same`` n*s, ``valid`` (n-1)*s + k."""
    if padding == "same":
        return tuple(size * stride for size, stride in zip(sizes, strides, strict=True))
    return tuple((size - 1) * stride + window for size, stride, window in zip(sizes, strides, kernel, strict=True))


def transposed_crop(kernel: int, stride: int, padding: PaddingName) -> int:
    """Return how many elements are dropped at the start of a transposed convolution's full output.

    The full output has (n-1)*s + k elements. ``same`` keeps n*s of them from this offset (and fills with
    zeros, before the bias, where the window is shorter than the stride): it is the gradient of a ``same``
    convolution from n*s to n elements.
    """
    return max(kernel - stride, 0) // 2 if padding == "same" else 0
