"""Convolutions by rows: the fast form of the plain convolution, which `conv.textbook_convolution` checks.

Inside, the batch is innermost and the height outermost, ``[height, channel, width, batch]``. The image is gathered
once for each *column* of the kernel, as a strip

    strip[h, (j, c), w, n] = image[h, c, w stride + j dilation, n]

and then the windows of output row r, as columns of a matrix, are the rows r stride .. r stride + kernel height - 1
of the strip, which lie one after the other in memory: a view, where im2col copies each element once for each tap.
With X_r this view and K the kernel as a matrix ``[(i, j, c), filter]``, one batched product each gives

    y_r = K^T X_r,    dK = sum_r X_r dy_r^T

and with stride 1 dx is the convolution of dy with the kernel turned by 180 degrees, filters and channels exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import as_strided

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result
from unitrain.backends.numpy.window import Windows, as_image
from unitrain.spec.layers.base import Shape
from unitrain.spec.layers.conv import Conv1d, Conv2d, Conv3d

# So much of a result is computed at a time where it is used again at once: it is still in the cache then.
SLAB_BYTES = 1 << 20
# With fewer channels the product that gives dx is too narrow for BLAS, and col2im is faster.
FEW_CHANNELS = 16


def computes(layer: Conv1d | Conv2d | Conv3d, windows: Windows) -> bool:
    """Tell whether a convolution can go by rows: one group, no vertical dilation, no volumes."""
    return layer.groups == 1 and len(windows.kernel) == 2 and windows.dilation[0] == 1


def convolution(layer: Conv1d | Conv2d | Conv3d, context: Context, parameters: Parameters, x: Array) -> Result:
    """As `conv.textbook_convolution`, see the module."""
    windows = Windows.of(layer, context.node.input_shapes[0])
    kernel = parameters["kernel"].reshape(*windows.kernel, -1, layer.filters)
    image = _inward(x)
    rows = _rows(windows, _strip(windows, image, context, "strip"))
    y = _product(
        kernel.reshape(-1, layer.filters).T, rows, context, "y", parameters["bias"] if layer.use_bias else None
    )

    def backward(dy: Array) -> Gradients:
        d_image = _inward(dy)
        d_rows = np.ascontiguousarray(d_image).reshape(y.shape)
        gradients = {"kernel": _kernel_gradient(rows, d_rows, context).reshape(parameters["kernel"].shape)}
        if layer.use_bias:
            gradients["bias"] = d_rows.sum(axis=2).sum(axis=0)
        if not context.wanted[0]:
            return (None,), gradients
        dx = _input_gradient(windows, kernel, d_rows.reshape(d_image.shape), image.shape, context)
        return (_outward(dx, context.node.input_shapes[0]),), gradients

    return _outward(
        y.reshape(windows.outputs[0], layer.filters, windows.outputs[1], len(x)), context.node.output_shape
    ), backward


def _inward(x: Array) -> Array:
    """See a value of the graph as ``[height, channel, width, batch]``."""
    return as_image(x).transpose(1, 3, 2, 0)


def _outward(image: Array, shape: Shape) -> Array:
    """See ``[height, channel, width, batch]`` as ``[batch, *shape]``."""
    x = image.transpose(3, 0, 2, 1)
    return x[:, 0] if len(shape) == 2 else x


def _strip(windows: Windows, image: Array, context: Context, label: str) -> Array:
    """Gather ``[padded height, kernel column, channel, output column, batch]``, with zeros for the padding."""
    height, channels, width, batch = image.shape
    (top, bottom), (left, _) = windows.pads
    columns, stride, outputs = windows.kernel[1], windows.strides[1], windows.outputs[1]
    if (columns, stride, windows.pads) == (1, 1, ((0, 0), (0, 0))):
        return np.ascontiguousarray(image)[:, None]
    strip = context.zeros(label, (top + height + bottom, columns, channels, outputs, batch), image.dtype)
    for j in range(columns):
        start = j * windows.dilation[1] - left
        # Output columns w with 0 <= start + w stride < width; the others see padding alone.
        first, end = max(-(start // stride), 0), min(-((start - width) // stride), outputs)
        if first < end:
            seen = image[:, :, start + first * stride : start + (end - 1) * stride + 1 : stride]
            strip[top : top + height, j, :, first:end] = seen
    return strip


def _rows(windows: Windows, strip: Array) -> Array:
    """See a strip as ``[output row, kernel row * kernel column * channel, output column * batch]``."""
    _, columns, channels, outputs, batch = strip.shape
    row, element = strip.strides[0], strip.itemsize
    shape = (windows.outputs[0], windows.kernel[0] * columns * channels, outputs * batch)
    strides = (windows.strides[0] * row, outputs * batch * element, element)
    return as_strided(strip, shape, strides, writeable=False)


def _product(matrix: Array, rows: Array, context: Context, label: str, bias: Array | None = None) -> Array:
    """Multiply a matrix with every row's, and add a bias while the products are still in the cache."""
    y = context.empty(label, (len(rows), len(matrix), rows.shape[2]), rows.dtype)
    if bias is None:
        return np.matmul(matrix, rows, out=y)
    for part in _slabs(len(y), y[0].nbytes):
        np.matmul(matrix, rows[part], out=y[part])
        y[part] += bias[:, None]
    return y


def _kernel_gradient(rows: Array, dy: Array, context: Context) -> Array:
    """Return sum_r X_r dy_r^T, ``[(i, j, c), filter]``."""
    shape = rows.shape[1], dy.shape[1]
    total = np.zeros(shape, dy.dtype)
    for part in _slabs(len(dy), total.nbytes):
        products = context.empty("dk", (part.stop - part.start, *shape), dy.dtype)
        total += np.matmul(rows[part], dy[part].swapaxes(1, 2), out=products).sum(axis=0)
    return total


def _slabs(count: int, item_bytes: int) -> Iterator[slice]:
    """Cut so many items into equal runs that take about `SLAB_BYTES`."""
    length = max(SLAB_BYTES // max(item_bytes, 1), 1)
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


def _input_gradient(windows: Windows, kernel: Array, dy: Array, shape: tuple[int, ...], context: Context) -> Array:
    """Return dx, ``[height, channel, width, batch]`` of ``shape``."""
    back = _turned_back(windows, shape)
    if back is None or shape[1] < FEW_CHANNELS:
        return _spread(windows, kernel, dy, shape, context)
    turned = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(shape[1], -1)
    rows = _rows(back, _strip(back, dy, context, "d_strip"))
    return _product(turned, rows, context, "dx").reshape(shape)


def _turned_back(windows: Windows, shape: tuple[int, ...]) -> Windows | None:
    """Return the windows over dy in which dx is a convolution; None where a stride leaves gaps between them."""
    (top, _), (left, _) = windows.pads
    reach = [(taps - 1) * spread for taps, spread in zip(windows.kernel, windows.dilation, strict=True)]
    sizes = shape[0], shape[2]
    pads = (
        (reach[0] - top, sizes[0] - windows.outputs[0] + top),
        (reach[1] - left, sizes[1] - windows.outputs[1] + left),
    )
    if windows.strides != (1, 1) or min(pads[0] + pads[1]) < 0:
        return None
    return replace(windows, pads=pads, outputs=sizes)


def _spread(windows: Windows, kernel: Array, dy: Array, shape: tuple[int, ...], context: Context) -> Array:
    """Return dx by adding K dy, a part a tap, to where it is from (col2im)."""
    height, channels, width, batch = shape
    (top, bottom), (left, right) = windows.pads
    by_tap = (windows.outputs[0], windows.area, channels, windows.outputs[1], batch)
    parts = _product(kernel.reshape(-1, kernel.shape[-1]), dy.reshape(*dy.shape[:2], -1), context, "parts")
    d_padded = context.empty("d_padded", (top + height + bottom, channels, left + width + right, batch), dy.dtype)
    d_padded[...] = 0
    by_place = d_padded.transpose(1, 0, 2, 3)  # height and width on axes 1 and 2, where windows want them
    for part, target in zip(np.moveaxis(parts.reshape(by_tap), 1, 0), windows.taps(by_place), strict=True):
        target += part.swapaxes(0, 1)
    return windows.crop(by_place).swapaxes(0, 1)
