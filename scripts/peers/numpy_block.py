"""The usual public way to convolve in NumPy: windows by fancy indices, their gradient by ``np.add.at``."""

from __future__ import annotations

import numpy as np


def convolve(x: np.ndarray, kernel: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return result and gradients by input and kernel of a convolution with ``same`` padding.

    Parameters
    ----------
    x, dy
        ``[batch, channel, height, width]``, ``[batch, filter, height, width]``.
    kernel
        ``[filter, channel, 3, 3]``.
    """
    batch, channels, height, width = x.shape
    filters, _, rows, columns = kernel.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    i = np.tile(np.repeat(np.arange(rows), columns), channels)[:, None] + np.repeat(np.arange(height), width)
    j = np.tile(np.arange(columns), rows * channels)[:, None] + np.tile(np.arange(width), height)
    k = np.repeat(np.arange(channels), rows * columns)[:, None]
    windows = padded[:, k, i, j].transpose(1, 2, 0).reshape(channels * rows * columns, -1)
    matrix = kernel.reshape(filters, -1)
    y = (matrix @ windows).reshape(filters, height, width, batch).transpose(3, 0, 1, 2)
    d_columns = dy.transpose(1, 2, 3, 0).reshape(filters, -1)
    d_kernel = (d_columns @ windows.T).reshape(kernel.shape)
    d_windows = (matrix.T @ d_columns).reshape(len(k), -1, batch).transpose(2, 0, 1)
    d_padded = np.zeros_like(padded)
    np.add.at(d_padded, (slice(None), k, i, j), d_windows)
    return y, d_padded[:, :, 1:-1, 1:-1], d_kernel
