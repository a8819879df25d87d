"""Convolutions of few channels as one matrix product over whole rows: the form ``rows``, for training on the CPU.

Where channels and filters are few a processor spends most of a convolution beside the products: of LeNet's first
layer, 1 to 6 channels, the three convolutions of a step are half of the step. Here a row of outputs is a product of
the rows it reads and a banded matrix, which holds the kernel once for each position and zeros elsewhere. The products
with zeros are wasted. Whether that is cheaper depends on the processor: it took a third off LeNet's step on one, and
costs a quarter on a newer one of the same make. So it is tried, and not the standard form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.namespace import Tensor

MOST = 64
"""Most products for each that counts, times channels and filters. Measured where the form gains: 38 takes two thirds of
the step's time, 270 (6 to 16 channels, 14 wide) a little more, 320 (1 to 32 channels, 28 wide) as much."""


def pays(columns: int, channels: int, filters: int, width: int) -> bool:
    """Tell whether a kernel so many columns wide, on rows of ``width``, is narrow enough to go by rows."""
    return channels * filters * width <= MOST * columns


def eligible(layer: Any) -> bool:
    """Tell whether a Keras layer is a convolution that can go by rows; whether it pays depends on what it reads."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups == 1
        and (*layer.strides, *layer.dilation_rate) == (1, 1, 1, 1)
    )


def _operation(layer: Any, x: Tensor, kernel: Tensor) -> Tensor:
    _, columns, channels, filters = kernel.shape
    if not pays(columns, channels, filters, x.shape[2]):
        return type(layer).convolution_op(layer, x, kernel)
    return convolve(x, kernel, same=layer.padding == "same")


def convolve(x: Tensor, kernel: Tensor, *, same: bool) -> Tensor:
    """Convolve ``[batch, height, width, channel]`` with ``(height, width, channel, filter)``, stride 1.

    ``same`` puts zeros around, one more behind than before where their number is odd; else there are none.
    """
    rows, columns, channels, filters = kernel.shape
    if same:
        x = tf.pad(x, [[0, 0], *([(size - 1) // 2, size // 2] for size in (rows, columns)), [0, 0]])
    _, height, width, _ = x.shape
    high, wide = height - rows + 1, width - columns + 1
    lines = tf.reshape(x, [-1, height, width * channels])
    read = tf.concat([lines[:, row : row + high] for row in range(rows)], -1)
    y = tf.reshape(read, [-1, rows * width * channels]) @ _banded(kernel, width, wide)
    return tf.reshape(y, [-1, high, wide, filters])


def _banded(kernel: Tensor, width: int, wide: int) -> Tensor:
    """Return ``[rows * width * channels, wide * filters]``: output column j reads input columns j, j + 1, ...

    A row of the kernel and zeros, ``width + 1`` long, is repeated and read off in pieces of ``width``: each piece
    begins one place earlier, and so has the kernel one place later.
    """
    rows, columns, channels, filters = kernel.shape
    padded = tf.pad(kernel, [[0, 0], [0, width + 1 - columns], [0, 0], [0, 0]])
    repeated = tf.tile(padded, [1, wide, 1, 1])[:, : wide * width]
    shifted = tf.reshape(repeated, [rows, wide, width, channels, filters])
    return tf.reshape(tf.transpose(shifted, [0, 2, 3, 1, 4]), [rows * width * channels, wide * filters])


@contextmanager
def by_rows(layers: Sequence[Any]) -> Iterator[None]:
    """Let Keras' convolutions be computed by rows while the model is called."""
    with ExitStack() as stack:
        for layer in layers:
            # Past Keras' own bookkeeping of attributes: this is no state of the layer.
            vars(layer)["convolution_op"] = partial(_operation, layer)
            stack.callback(vars(layer).pop, "convolution_op")
        yield
