"""Convolutions of few channels as one matrix product over whole rows, for training on the CPU.

TensorFlow gathers a window for every position before it multiplies, which is most of the work where channels and
filters are few: of LeNet's first layer, 1 to 6 channels, the three convolutions of a step are half of the step. Here a
row of outputs is a product of the rows it reads and a banded matrix, which holds the kernel once for each position
and zeros elsewhere. The products with zeros are wasted, and still cheaper while they are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.contract import Tensor

MOST = 64
"""Most products for each that counts, times channels and filters. Measured: 38 takes two thirds of the step's time,
270 (6 to 16 channels, 14 wide) a little more, 320 (1 to 32 channels, 28 wide) as much."""


def eligible(layer: Any) -> bool:
    """Tell whether a Keras layer is a convolution that can go by rows; whether it pays depends on what it reads."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups == 1
        and (*layer.strides, *layer.dilation_rate) == (1, 1, 1, 1)
    )


def _operation(layer: Any, x: Tensor, kernel: Tensor) -> Tensor:
    _, columns, channels, filters = kernel.shape
    if channels * filters * x.shape[2] > MOST * columns:
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
