"""Convolutions: plain and grouped, depthwise, separable, transposed; over sequences, images and volumes.

Inside, the batch is innermost: ``[channel, height, width, batch]``, with a depth before the height where there is one,
so that windows are gathered in long contiguous runs. Outside it is the usual ``[batch, height, width, channel]``, as a
view of the same memory; elementwise layers between two convolutions keep the order in memory, and nothing is moved.

Here stands the textbook form; `conv_rows` is what most plain convolutions are computed by, and tests hold the two
together.

Plain convolutions gather windows as the columns of a matrix X (`_unfold`). With the kernel as a matrix K

    y = K^T X + b,    dK = X dy^T,    db = sum(dy),    dx = fold(K dy)

where fold is the transpose of unfold. A transposed convolution is the same with unfold and fold exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np

from unitrain.backends.numpy import conv_rows
from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.backends.numpy.window import Windows, as_image, spatial
from unitrain.spec.layers.base import Shape
from unitrain.spec.layers.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    DepthwiseConv1d,
    DepthwiseConv2d,
    SeparableConv1d,
    SeparableConv2d,
)
from unitrain.spec.layers.window import transposed_crop

# Windows are gathered for so many bytes at a time: the copy is still in the cache when it is multiplied.
SLAB_BYTES = 1 << 22


def _inward(x: Array) -> Array:
    """Bring a value of the graph into ``[channel, height, width, batch]``, contiguous."""
    return np.ascontiguousarray(as_image(x).swapaxes(0, -1))


def _outward(image: Array, shape: Shape) -> Array:
    """See ``[channel, height, width, batch]`` as ``[batch, *shape]``."""
    x = image.swapaxes(0, -1)
    return x[:, 0] if len(shape) == 2 else x


def _slabs(windows: Windows, row_bytes: int) -> Iterator[slice]:
    """Cut the rows of windows into runs whose gathered windows take about `SLAB_BYTES`."""
    length = max(1, SLAB_BYTES // max(row_bytes, 1))
    for start in range(0, windows.outputs[0], length):
        yield slice(start, min(start + length, windows.outputs[0]))


def _unfold(windows: Windows, padded: Array, rows: slice, groups: int = 1) -> Array:
    """Gather some rows of windows as columns (im2col).

    Returns
    -------
    array
        ``[groups, taps * channels a group, windows * batch]``.
    """
    channels, batch = padded.shape[0], padded.shape[-1]
    depth = channels // groups
    shape = (depth, rows.stop - rows.start, *windows.outputs[1:], batch)
    columns = np.empty((groups, windows.area, *shape), padded.dtype)
    for tap, view in enumerate(windows.taps(padded, rows)):
        columns[:, tap] = _grouped(view, groups)
    return columns.reshape(groups, windows.area * depth, -1)


def _fold(windows: Windows, columns: Array, padded: Array, rows: slice) -> None:
    """Add columns, laid out as by `_unfold`, to where they are from (col2im): the transpose of `_unfold`."""
    channels, batch = padded.shape[0], padded.shape[-1]
    groups = len(columns)
    along = (rows.stop - rows.start, *windows.outputs[1:])
    parts = columns.reshape(groups, windows.area, channels // groups, *along, batch)
    for tap, view in enumerate(windows.taps(padded, rows)):
        target = _grouped(view, groups)
        target += parts[:, tap]


def _grouped(image: Array, groups: int) -> Array:
    """See ``[channel, ...]`` as ``[groups, channels a group, ...]``."""
    return image.reshape(groups, -1, *image.shape[1:])


def _bias_gradient(dy: Array) -> Array:
    """Sum ``[channel, height, width, batch]`` to ``[channel]``."""
    gradient: Array = dy.reshape(len(dy), -1).sum(axis=1)
    return gradient


@implements(Conv1d, Conv2d, Conv3d)
def convolution(layer: Conv1d | Conv2d | Conv3d, context: Context, parameters: Parameters, x: Array) -> Result:
    """By rows where it can be, else as in the textbook; both compute the same."""
    by_rows = conv_rows.computes(layer, Windows.of(layer, context.node.input_shapes[0]))
    compute = conv_rows.convolution if by_rows else textbook_convolution
    return compute(layer, context, parameters, x)


def textbook_convolution(layer: Conv1d | Conv2d | Conv3d, context: Context, parameters: Parameters, x: Array) -> Result:
    """Each group of filters reads its own run of channels: one matrix product a group.

    The windows are gathered anew in the backward pass; kept, they would take taps times the input's memory.
    """
    windows = Windows.of(layer, context.node.input_shapes[0])
    groups, batch = layer.groups, len(x)
    padded = windows.pad(_inward(x))
    kernel = parameters["kernel"]
    # [groups, taps * channels a group, filters a group]
    matrix = kernel.reshape(-1, groups, layer.filters // groups).transpose(1, 0, 2)
    per_row = prod(windows.outputs[1:]) * batch
    row_bytes = windows.area * len(padded) * per_row * x.itemsize

    y = np.empty((groups, layer.filters // groups, windows.outputs[0] * per_row), x.dtype)
    for rows in _slabs(windows, row_bytes):
        part = slice(rows.start * per_row, rows.stop * per_row)
        np.matmul(matrix.transpose(0, 2, 1), _unfold(windows, padded, rows, groups), out=y[:, :, part])
    if layer.use_bias:
        y += parameters["bias"].reshape(groups, -1, 1)

    def backward(dy: Array) -> Gradients:
        dy_image = _inward(dy)
        dy_columns = dy_image.reshape(y.shape)
        d_matrix = np.zeros_like(matrix)
        d_padded = np.zeros_like(padded) if context.wanted[0] else None
        for rows in _slabs(windows, row_bytes):
            d_part = dy_columns[:, :, rows.start * per_row : rows.stop * per_row]
            d_matrix += _unfold(windows, padded, rows, groups) @ d_part.transpose(0, 2, 1)
            if d_padded is not None:
                _fold(windows, matrix @ d_part, d_padded, rows)
        gradients = {"kernel": d_matrix.transpose(1, 0, 2).reshape(kernel.shape)}
        if layer.use_bias:
            gradients["bias"] = _bias_gradient(dy_image)
        if d_padded is None:
            return (None,), gradients
        return (_outward(windows.crop(d_padded), context.node.input_shapes[0]),), gradients

    image = y.reshape(layer.filters, *windows.outputs, batch)
    return _outward(image, context.node.output_shape), backward


@implements(DepthwiseConv1d, DepthwiseConv2d)
def depthwise_convolution(
    layer: DepthwiseConv1d | DepthwiseConv2d, context: Context, parameters: Parameters, x: Array
) -> Result:
    """Each channel under windows of its own, see `_depthwise`."""
    windows = Windows.of(layer, context.node.input_shapes[0])
    y, back = _depthwise(windows, _inward(x), parameters["kernel"])
    if layer.use_bias:
        y += parameters["bias"][:, None, None, None]

    def backward(dy: Array) -> Gradients:
        dy_image = _inward(dy)
        dx, d_kernel = back(dy_image)
        gradients = {"kernel": d_kernel}
        if layer.use_bias:
            gradients["bias"] = _bias_gradient(dy_image)
        return (_outward(dx, context.node.input_shapes[0]),), gradients

    return _outward(y, context.node.output_shape), backward


@implements(SeparableConv1d, SeparableConv2d)
def separable_convolution(
    layer: SeparableConv1d | SeparableConv2d, context: Context, parameters: Parameters, x: Array
) -> Result:
    """A depthwise convolution, then y = P^T m + b for each position: dm = P dy, dP = m dy^T."""
    windows = Windows.of(layer, context.node.input_shapes[0])
    pointwise = parameters["pointwise_kernel"]
    middle, back = _depthwise(windows, _inward(x), parameters["depthwise_kernel"])
    middle_columns = middle.reshape(len(middle), -1)
    y = pointwise.T @ middle_columns
    if layer.use_bias:
        y += parameters["bias"][:, None]

    def backward(dy: Array) -> Gradients:
        dy_columns = _inward(dy).reshape(y.shape)
        dx, d_kernel = back((pointwise @ dy_columns).reshape(middle.shape))
        gradients = {"depthwise_kernel": d_kernel, "pointwise_kernel": middle_columns @ dy_columns.T}
        if layer.use_bias:
            gradients["bias"] = dy_columns.sum(axis=1)
        return (_outward(dx, context.node.input_shapes[0]),), gradients

    return _outward(y.reshape(-1, *middle.shape[1:]), context.node.output_shape), backward


def _depthwise(windows: Windows, image: Array, kernel: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """``y[c, m] = sum_t x_t[c] k_t[c, m]`` over the taps t.

    So dx_t[c] = sum_m dy[c, m] k_t[c, m], and dk_t[c, m] = sum(x_t[c] dy[c, m]) over all windows.
    ``kernel`` is ``[*window, channel, multiplier]``; y is ``[channel * multiplier, *outputs, batch]``, the
    multiplier fastest. The backward pass gives the gradients by image and kernel.
    """
    channels, multiplier = kernel.shape[-2:]
    by_tap = kernel.reshape(-1, channels, multiplier, 1, 1, 1)
    padded = windows.pad(image)
    y = np.zeros((channels, multiplier, *windows.outputs, image.shape[-1]), image.dtype)
    for tap, view in zip(by_tap, windows.taps(padded), strict=True):
        y += view[:, None] * tap

    def back(dy: Array) -> tuple[Array, Array]:
        dy = dy.reshape(y.shape)
        d_padded = np.zeros_like(padded)
        d_kernel = np.empty((windows.area, channels, multiplier), dy.dtype)
        for t, (view, target) in enumerate(zip(windows.taps(padded), windows.taps(d_padded), strict=True)):
            target += (dy * by_tap[t]).sum(axis=1)
            d_kernel[t] = (view[:, None] * dy).reshape(channels, multiplier, -1).sum(axis=-1)
        return windows.crop(d_padded), d_kernel.reshape(kernel.shape)

    return y.reshape(channels * multiplier, *y.shape[2:]), back


@implements(ConvTranspose1d, ConvTranspose2d)
def transposed_convolution(
    layer: ConvTranspose1d | ConvTranspose2d, context: Context, parameters: Parameters, x: Array
) -> Result:
    """The input gradient of a convolution as a layer.

    With the windows over the *output* (`_output_windows`) and K ``[taps * filters, channels]``:
    y = fold(K x) + b, dx = K^T unfold(dy), dK = unfold(dy) x^T.
    """
    windows = _output_windows(layer, context)
    kernel = parameters["kernel"]
    channels = kernel.shape[-2]
    by_tap = kernel.reshape(windows.area, channels, layer.filters).swapaxes(1, 2)
    matrix = by_tap.reshape(-1, channels)
    columns = _inward(x).reshape(channels, -1)
    per_row = prod(windows.outputs[1:]) * len(x)
    row_bytes = len(matrix) * per_row * x.itemsize
    sizes = spatial(context.node.output_shape[:-1], 1)
    full = windows.pad(np.zeros((layer.filters, *sizes, len(x)), x.dtype))

    for rows in _slabs(windows, row_bytes):
        part = columns[:, rows.start * per_row : rows.stop * per_row]
        _fold(windows, (matrix @ part)[None], full, rows)
    y = windows.crop(full)
    if layer.use_bias:
        y += parameters["bias"][:, None, None, None]

    def backward(dy: Array) -> Gradients:
        dy_image = _inward(dy)
        d_full = windows.pad(dy_image)
        dx = np.empty_like(columns)
        d_matrix = np.zeros_like(matrix)
        for rows in _slabs(windows, row_bytes):
            part = slice(rows.start * per_row, rows.stop * per_row)
            d_columns = _unfold(windows, d_full, rows)[0]
            np.matmul(matrix.T, d_columns, out=dx[:, part])
            d_matrix += d_columns @ columns[:, part].T
        gradients = {"kernel": d_matrix.reshape(by_tap.shape).swapaxes(1, 2).reshape(kernel.shape)}
        if layer.use_bias:
            gradients["bias"] = _bias_gradient(dy_image)
        dx_image = dx.reshape(channels, *windows.outputs, len(x))
        return (_outward(dx_image, context.node.input_shapes[0]),), gradients

    return _outward(y, context.node.output_shape), backward


def _output_windows(layer: ConvTranspose1d | ConvTranspose2d, context: Context) -> Windows:
    """Return the windows over the output in which each input element is spread.

    The pads are what is dropped of the full result (n - 1) s + k at start and end.
    """
    sizes, outputs = context.node.input_shapes[0][:-1], context.node.output_shape[:-1]
    pads = []
    for size, window, stride, kept in zip(sizes, layer.kernel_size, layer.strides, outputs, strict=True):
        before = transposed_crop(window, stride, layer.padding)
        pads.append((before, max((size - 1) * stride + window - before - kept, 0)))
    return Windows(
        spatial(layer.kernel_size, 1),
        spatial(layer.strides, 1),
        (1, 1),
        spatial(tuple(pads), (0, 0)),
        spatial(sizes, 1),
    )
