"""Convolutions and pools: channels move to the end, and every way to state padding becomes explicit amounts."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from onnx_cases.node_case import Applied, Array, NodeCase, NotApplicable, Outputs

Pads = list[list[int]]


def channels_last(x: Array) -> Array:
    return np.moveaxis(x, 1, -1)


def channels_first(x: Array) -> Array:
    return np.moveaxis(x, -1, 1)


def _spatial(x: Array, most: int) -> int:
    """Return the number of spatial axes."""
    axes = x.ndim - 2
    if axes > most:
        raise NotApplicable(f"{axes}-D; our layers go to {most}-D")
    return axes


def _window(case: NodeCase, x: Array, kernel: list[int]) -> tuple[dict[str, Any], Pads]:
    """Return kernel size, strides and dilation, and the padding [before, after] an axis."""
    axes = len(kernel)
    strides = list(case.attributes.get("strides", [1] * axes))
    dilation = list(case.attributes.get("dilations", [1] * axes))
    reach = [(size - 1) * spread + 1 for size, spread in zip(kernel, dilation, strict=True)]
    stated = list(case.attributes.get("pads", [0] * 2 * axes))
    pads = [[stated[axis], stated[axis + axes]] for axis in range(axes)]
    rule = case.attributes.get("auto_pad", "NOTSET")
    if rule.startswith("SAME"):
        for axis, size in enumerate(x.shape[2:]):
            total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach[axis] - size, 0)
            small, large = total // 2, total - total // 2
            pads[axis] = [small, large] if rule == "SAME_UPPER" else [large, small]
    if case.attributes.get("ceil_mode", 0):
        for axis, size in enumerate(x.shape[2:]):
            pads[axis][1] += _ceiling(size, sum(pads[axis]), pads[axis][0], reach[axis], strides[axis])
    return {"kernel_size": kernel, "strides": strides, "dilation": dilation}, pads


def _ceiling(size: int, padding: int, before: int, reach: int, stride: int) -> int:
    """Return how much more padding at the end makes a floored number of windows the rounded-up one.

    The last window counts only when it starts in the input or in the padding before it.
    """
    count = -(-(size + padding - reach) // stride) + 1
    if (count - 1) * stride >= size + before:
        count -= 1
    return max((count - 1) * stride + reach - size - padding, 0)


def _conv_fields(case: NodeCase, most: int = 2) -> tuple[Array, Array, Array | None, dict[str, Any], int]:
    """Return the input with channels last, the kernel ``(*size, in / groups, out)``, the bias, and the window."""
    x, weight, bias = case.numbers(0), case.numbers(1), case.given(2)
    axes = _spatial(x, most)
    window, pads = _window(case, x, list(weight.shape[2:]))
    kernel = np.moveaxis(weight, (0, 1), (-1, -2))
    fields = {**window, "padding": pads, "use_bias": bias is not None}
    return channels_last(x), kernel, bias, fields, axes


def _biased(bias: Array | None) -> dict[str, Array]:
    return {} if bias is None else {"bias": bias}


def conv(case: NodeCase) -> Outputs:
    x, kernel, bias, fields, axes = _conv_fields(case, 3)
    fields |= {"type": f"conv{axes}d", "filters": kernel.shape[-1], "groups": case.attributes.get("group", 1)}
    return [channels_first(case.apply(fields, x, kernel=kernel, **_biased(bias)).output)]


def depthwise_conv(case: NodeCase) -> Outputs:
    """Express a convolution with a group for each channel, or of one channel, as depthwise."""
    x, kernel, bias, fields, axes = _conv_fields(case)
    channels, filters = x.shape[-1], kernel.shape[-1]
    if case.attributes.get("group", 1) != channels:
        raise NotApplicable("not a group for each channel")
    fields |= {"type": f"depthwise_conv{axes}d", "multiplier": filters // channels}
    kernel = kernel.reshape(*kernel.shape[:-2], channels, filters // channels)
    return [channels_first(case.apply(fields, x, kernel=kernel, **_biased(bias)).output)]


def separable_conv(case: NodeCase) -> Outputs:
    """Express any convolution without groups: every tap a depthwise filter of its own, summed by the pointwise one."""
    x, kernel, bias, fields, axes = _conv_fields(case)
    if case.attributes.get("group", 1) != 1:
        raise NotApplicable("groups")
    *size, channels, filters = kernel.shape
    taps = prod(size)
    fields |= {"type": f"separable_conv{axes}d", "multiplier": taps, "filters": filters}
    picks = np.repeat(np.eye(taps, dtype=x.dtype).reshape(*size, 1, taps), channels, axis=-2)
    pointwise = np.moveaxis(kernel.reshape(taps, channels, filters), 0, 1).reshape(channels * taps, filters)
    done = case.apply(fields, x, depthwise_kernel=picks, pointwise_kernel=pointwise, **_biased(bias))
    return [channels_first(done.output)]


def conv_transpose(case: NodeCase) -> Outputs:
    """Groups become blocks of a kernel, dilation becomes zeros between its taps, output padding zeros at its end."""
    x, weight, bias = case.numbers(0), case.numbers(1), case.given(2)
    axes = _spatial(x, 2)
    groups = case.attributes.get("group", 1)
    strides = list(case.attributes.get("strides", [1] * axes))
    dilation = list(case.attributes.get("dilations", [1] * axes))
    kernel = _spread(_blocks(np.moveaxis(weight, (0, 1), (-2, -1)), groups), dilation)
    more = list(case.attributes.get("output_padding", [0] * axes))
    full = [(size - 1) * step + reach for size, step, reach in zip(x.shape[2:], strides, kernel.shape, strict=False)]
    crops = [list(pair) for pair in np.reshape(case.attributes.get("pads", [0] * 2 * axes), (2, axes)).T]
    rule, wanted = case.attributes.get("auto_pad", "NOTSET"), case.attributes.get("output_shape")
    if wanted is None and rule.startswith("SAME"):
        wanted = [size * step for size, step in zip(x.shape[2:], strides, strict=True)]
    if wanted is not None:
        more = [max(size - had, 0) for size, had in zip(wanted, full, strict=True)]
        totals = [max(had - size, 0) for size, had in zip(wanted, full, strict=True)]
        halves = [[total // 2, total - total // 2] for total in totals]
        crops = halves if rule == "SAME_UPPER" else [pair[::-1] for pair in halves]
    kernel = np.pad(kernel, [*((0, extra) for extra in more), (0, 0), (0, 0)])
    padding = _padding_that_crops(x.shape[2:], list(kernel.shape[:axes]), strides, crops)
    fields = {
        "type": f"conv_transpose{axes}d",
        "filters": kernel.shape[-1],
        "kernel_size": list(kernel.shape[:axes]),
        "strides": strides,
        "padding": padding,
        "use_bias": bias is not None,
    }
    return [channels_first(case.apply(fields, channels_last(x), kernel=kernel, **_biased(bias)).output)]


def _blocks(kernel: Array, groups: int) -> Array:
    """Turn ``(*size, in, out / groups)`` of groups into ``(*size, in, out)`` with zeros between the groups."""
    *size, inputs, outputs = kernel.shape
    wide = np.zeros((*size, inputs, outputs * groups), kernel.dtype)
    depth = inputs // groups
    for group in range(groups):
        rows, columns = slice(group * depth, (group + 1) * depth), slice(group * outputs, (group + 1) * outputs)
        wide[..., rows, columns] = kernel[..., rows, :]
    return wide


def _spread(kernel: Array, dilation: list[int]) -> Array:
    """Put zeros between the taps."""
    *size, inputs, outputs = kernel.shape
    reach = [(taps - 1) * step + 1 for taps, step in zip(size, dilation, strict=True)]
    wide = np.zeros((*reach, inputs, outputs), kernel.dtype)
    wide[tuple(slice(None, None, step) for step in dilation)] = kernel
    return wide


def _padding_that_crops(sizes: tuple[int, ...], kernel: list[int], strides: list[int], crops: Pads) -> str:
    """Name the padding that drops these elements at the start and end of the full output."""
    if not np.any(crops):
        return "valid"
    same = []
    for window, step in zip(kernel, strides, strict=True):
        total = max(window - step, 0)
        same.append([total // 2, total - total // 2])
    if crops == same and all(window >= step for window, step in zip(kernel, strides, strict=True)):
        return "same"
    raise NotApplicable("pads: our transposed convolution crops nothing (valid) or to n * stride (same)")


def _pool(case: NodeCase, kind: str) -> tuple[Applied, Array]:
    """Run a pool; the input is given too, channels last."""
    raw = case.numbers(0)
    axes = _spatial(raw, 3)
    x = channels_last(raw)
    window, pads = _window(case, raw, list(case.attributes["kernel_shape"]))
    if case.attributes.get("count_include_pad", 0) and np.any(pads):
        raise NotApplicable("count_include_pad: our average leaves padding out")
    return case.apply({**window, "type": f"{kind}_pool{axes}d", "padding": pads}, x), x


def average_pool(case: NodeCase) -> Outputs:
    return [channels_first(_pool(case, "average")[0].output)]


def max_pool(case: NodeCase) -> Outputs:
    y = channels_first(_pool(case, "max")[0].output)
    return [y] if len(case.outputs) == 1 else [y, _winners(case, y.shape)]


def _winners(case: NodeCase, shape: tuple[int, ...]) -> Array:
    """Find the places of the largest elements by where the gradient of each output goes."""
    x = case.numbers(0)
    places = np.empty(shape, np.int64)
    # ONNX counts over the whole tensor; storage order 1 counts columns first.
    numbers = np.arange(x.size).reshape(x.shape)
    if case.attributes.get("storage_order", 0):
        numbers = np.arange(x.size).reshape(*x.shape[:2], *x.shape[:1:-1]).swapaxes(2, 3)
    for place in np.ndindex(shape):
        one = np.zeros(shape, x.dtype)
        one[place] = 1.0
        gradient = channels_first(_pool(case, "max")[0].input_gradient(channels_last(one)))
        assert np.count_nonzero(gradient) == 1
        places[place] = numbers[gradient != 0].item()
    return places


def global_average_pool(case: NodeCase) -> Outputs:
    fields = {"type": "global_average_pool", "keep_axes": True}
    return [channels_first(case.apply(fields, channels_last(case.numbers(0))).output)]


def global_max_pool(case: NodeCase) -> Outputs:
    fields = {"type": "global_max_pool", "keep_axes": True}
    return [channels_first(case.apply(fields, channels_last(case.numbers(0))).output)]


def _reduction(case: NodeCase, kind: str) -> Outputs:
    """Express a reduction as a global pool: the axes to keep are the batch, one channel, the others its positions."""
    x = case.numbers(0)
    given = case.given(1)
    axes = [int(axis) % x.ndim for axis in given] if given is not None and given.size else list(range(x.ndim))
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    batch = prod(x.shape[axis] for axis in kept)
    positions = [x.shape[axis] for axis in axes]
    y = case.apply({"type": kind}, x.transpose(kept + axes).reshape(batch, *positions, 1)).output
    keep = case.attributes.get("keepdims", 1)
    return [y.reshape([1 if axis in axes else x.shape[axis] for axis in range(x.ndim) if keep or axis in kept])]


def reduce_mean(case: NodeCase) -> Outputs:
    return _reduction(case, "global_average_pool")


def reduce_max(case: NodeCase) -> Outputs:
    return _reduction(case, "global_max_pool")
