"""Shape rules and costs, held to torch on its meta device, to NumPy, and to counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conformance.cases import CASES
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from unitrain.spec.layers import LAYER_TYPES, LayerSpec, ShapeError

Shape = tuple[int, ...]


def layer(kind: str, **fields: Any) -> LayerSpec:
    return LAYER_TYPES[kind].model_validate({"type": kind, **fields})


def outputs(kind: str, *shapes: Shape, **fields: Any) -> Shape | None:
    """The rule's answer, or None where it refuses."""
    try:
        return layer(kind, **fields).output_shape(*shapes)
    except ShapeError:
        return None


def meta(shape: Shape) -> torch.Tensor:
    """A torch tensor without values for a sample ``(*spatial, channel)``: ``[1, channel, *spatial]``."""
    return torch.empty((1, shape[-1], *shape[:-1]), device="meta")


def spatial(tensor: torch.Tensor) -> Shape:
    return (*tensor.shape[2:], tensor.shape[1])


def windows(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> list[list[int]]:
    """All windows that lie inside the padded axis, each the places it reads."""
    starts = range(-before, size + after, stride)
    taps = ([start + tap * dilation for tap in range(kernel)] for start in starts)
    return [places for places in taps if places[-1] < size + after]


sizes = st.integers(1, 12)
kernels = st.integers(1, 5)
strides = st.integers(1, 4)
dilations = st.integers(1, 3)
pads = st.tuples(st.integers(0, 4), st.integers(0, 4))
axis = st.tuples(sizes, kernels, strides, dilations, pads)


@settings(deadline=None)
@given(axis, axis)
def test_explicit_padding_counts_the_windows(vertical: Any, horizontal: Any) -> None:
    both = (vertical, horizontal)
    shape = (vertical[0], horizontal[0], 2)
    fields = {
        "kernel_size": [part[1] for part in both],
        "strides": [part[2] for part in both],
        "dilation": [part[3] for part in both],
        "padding": [list(part[4]) for part in both],
    }
    found = [windows(*part[:4], *part[4]) for part in both]
    counts = tuple(map(len, found))
    expected = (*counts, 6) if all(counts) else None
    assert outputs("conv2d", shape, filters=6, **fields) == expected
    assert outputs("separable_conv2d", shape, filters=6, **fields) == expected
    assert outputs("depthwise_conv2d", shape, multiplier=3, **fields) == expected
    # One axis at a time: what holds for an image holds for a sequence.
    line = {name: [value[0]] for name, value in fields.items()}
    assert outputs("conv1d", (shape[0], 2), filters=6, **line) == ((counts[0], 6) if counts[0] else None)
    # A pooling window needs an element of the input to pool.
    full = all(
        any(0 <= place < part[0] for place in taps)
        for part, all_taps in zip(both, found, strict=True)
        for taps in all_taps
    )
    for kind in ("max_pool2d", "average_pool2d"):
        assert outputs(kind, shape, **fields) == ((*counts, 2) if all(counts) and full else None)


@settings(deadline=None)
@given(sizes, kernels, strides, dilations)
def test_same_padding_gives_the_size_over_the_stride(size: int, kernel: int, stride: int, dilation: int) -> None:
    fields = {"kernel_size": kernel, "strides": stride, "dilation": dilation, "padding": "same"}
    expected = int(np.ceil(size / stride))
    assert outputs("conv1d", (size, 3), filters=5, **fields) == (expected, 5)
    assert outputs("conv2d", (size, 2 * size, 3), filters=5, **fields) == (expected, int(np.ceil(2 * size / stride)), 5)
    before, after = layer("conv1d", filters=5, **fields).pads((size, 3))[0]  # type: ignore[attr-defined]  # of windows
    assert after - before in (0, 1)  # the odd one at the end
    assert len(windows(size, kernel, stride, dilation, before, after)) >= expected
    if before + after:
        # No more than is needed: with one less the last window would not fit.
        assert len(windows(size, kernel, stride, dilation, before, after - 1)) < expected


@settings(deadline=None)
@given(axis, st.integers(1, 3), st.integers(1, 2), st.integers(1, 3))
def test_convolutions_agree_with_torch(axis: Any, depth: int, groups: int, out: int) -> None:
    size, kernel, stride, dilation, (pad, _) = axis
    shape = (size, size + 1, depth * groups)
    window = {"kernel_size": kernel, "strides": stride, "dilation": dilation, "padding": pad}
    conv = layer("conv2d", filters=out * groups, groups=groups, **window)
    weight = torch.empty((out * groups, depth, kernel, kernel), device="meta")
    with FlopCounterMode(display=False) as flops:
        try:
            tensor = functional.conv2d(
                meta(shape), weight, stride=stride, padding=pad, dilation=dilation, groups=groups
            )
        except RuntimeError:
            tensor = None
    if tensor is None:
        assert outputs("conv2d", shape, filters=out * groups, groups=groups, **window) is None
        return
    assert conv.output_shape(shape) == spatial(tensor)
    assert conv.parameters(shape)["kernel"].size == weight.numel()
    assert conv.parameters(shape)["bias"].size == out * groups
    assert 2 * conv.macs(shape) == flops.get_total_flops()


@settings(deadline=None)
@given(st.integers(1, 6), kernels, strides, st.integers(1, 3), st.integers(1, 3))
def test_transposed_convolutions_agree_with_torch(size: int, kernel: int, stride: int, depth: int, out: int) -> None:
    shape = (size, size + 1, depth)
    weight = torch.empty((depth, out, kernel, kernel), device="meta")
    with FlopCounterMode(display=False) as flops:
        tensor = functional.conv_transpose2d(meta(shape), weight, stride=stride)
    transposed = layer("conv_transpose2d", filters=out, kernel_size=kernel, strides=stride)
    assert transposed.output_shape(shape) == spatial(tensor)
    assert transposed.parameters(shape)["kernel"].size == weight.numel()
    assert 2 * transposed.macs(shape) == flops.get_total_flops()
    same = {"filters": out, "kernel_size": kernel, "strides": stride, "padding": "same"}
    enlarged = outputs("conv_transpose2d", shape, **same)
    assert enlarged == (size * stride, (size + 1) * stride, out)
    # It is the gradient of a `same` convolution, which goes back from its output to its input.
    assert outputs("conv2d", enlarged, **{**same, "filters": depth}) == shape


@settings(deadline=None)
@given(axis)
def test_pools_agree_with_torch(axis: Any) -> None:
    size, kernel, stride, dilation, (pad, _) = axis
    assume(2 * pad <= kernel)  # torch takes no more
    try:
        tensor = functional.max_pool2d(meta((size, size, 2)), kernel, stride, pad, dilation)
    except RuntimeError:
        assert (
            outputs("max_pool2d", (size, size, 2), kernel_size=kernel, strides=stride, dilation=dilation, padding=pad)
            is None
        )
        return
    fields = {"kernel_size": kernel, "strides": stride, "dilation": dilation, "padding": pad}
    found = outputs("max_pool2d", (size, size, 2), **fields)
    if found is None:  # refused for a window that reads nothing but padding: torch would give -inf
        assert any(
            all(not 0 <= place < size for place in taps) for taps in windows(size, kernel, stride, dilation, pad, pad)
        )
    else:
        assert found == spatial(tensor)


def test_the_costs_of_depthwise_and_separable() -> None:
    shape = (8, 6, 3)
    fields = {"kernel_size": 3, "multiplier": 2, "padding": "same"}
    with FlopCounterMode(display=False) as depthwise:
        functional.conv2d(meta(shape), torch.empty((6, 1, 3, 3), device="meta"), padding="same", groups=3)
    with FlopCounterMode(display=False) as pointwise:
        functional.conv2d(meta((8, 6, 6)), torch.empty((5, 6, 1, 1), device="meta"))
    assert 2 * layer("depthwise_conv2d", **fields).macs(shape) == depthwise.get_total_flops()
    both = depthwise.get_total_flops() + pointwise.get_total_flops()
    assert 2 * layer("separable_conv2d", filters=5, **fields).macs(shape) == both
    table = layer("separable_conv2d", filters=5, **fields).parameters(shape)
    assert {name: parameter.shape for name, parameter in table.items()} == {
        "depthwise_kernel": (3, 3, 3, 2),
        "pointwise_kernel": (6, 5),
        "bias": (5,),
    }


SAMPLE = np.zeros((4, 6, 3))
MOVES: dict[str, tuple[LayerSpec, tuple[np.ndarray[Any, Any], ...], np.ndarray[Any, Any]]] = {
    "flatten": (layer("flatten"), (SAMPLE,), SAMPLE.reshape(-1)),
    "reshape": (layer("reshape", shape=[2, -1, 9]), (SAMPLE,), SAMPLE.reshape(2, -1, 9)),
    "permute": (layer("permute", axes=[2, 0, 1]), (SAMPLE,), SAMPLE.transpose(2, 0, 1)),
    "padding": (layer("padding", amounts=[[1, 2], 3]), (SAMPLE,), np.pad(SAMPLE, ((1, 2), (3, 3), (0, 0)))),
    "upsample": (layer("upsample2d", factor=[2, 3]), (SAMPLE,), SAMPLE.repeat(2, 0).repeat(3, 1)),
    "upsample1d": (layer("upsample1d", factor=3), (SAMPLE[0],), SAMPLE[0].repeat(3, 0)),
    "concatenate": (layer("concatenate", axis=0), (SAMPLE, SAMPLE[:1]), np.concatenate([SAMPLE, SAMPLE[:1]])),
    "add": (layer("add"), (SAMPLE, SAMPLE[:1, :, :1]), SAMPLE + SAMPLE[:1, :, :1]),
    "multiply": (layer("multiply"), (SAMPLE[:1], SAMPLE[:, :1]), SAMPLE[:1] * SAMPLE[:, :1]),
    "global": (layer("global_average_pool"), (SAMPLE,), SAMPLE.mean((0, 1))),
    "global, axes kept": (layer("global_max_pool", keep_axes=True), (SAMPLE,), SAMPLE.max((0, 1), keepdims=True)),
    "dense": (layer("dense", units=5), (SAMPLE,), SAMPLE @ np.zeros((3, 5))),
    "embedding": (layer("embedding", vocabulary=9, width=5), (SAMPLE,), np.zeros((9, 5))[SAMPLE.astype(int)]),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_elements_agrees_with_numpy(name: str) -> None:
    rule, inputs, expected = MOVES[name]
    assert rule.output_shape(*(array.shape for array in inputs)) == expected.shape


def test_a_dense_layer_costs_its_kernel_at_every_position() -> None:
    dense = layer("dense", units=5)
    with FlopCounterMode(display=False) as flops:
        torch.empty((24, 3), device="meta") @ torch.empty((3, 5), device="meta")
    assert 2 * dense.macs(SAMPLE.shape) == flops.get_total_flops()


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), max_size=4), st.data())
def test_every_layer_takes_a_shape_or_refuses_it(extents: list[int], data: st.DataObject) -> None:
    """No shape breaks a rule: what passes has a positive output, and its parameters and cost can be had."""
    rule = data.draw(st.sampled_from([case.layer for case in CASES]))
    shapes = [tuple(extents)] * (rule.arity[0])
    try:
        # Side inputs have the shapes that the rule asks for, any extent where any will do.
        sides = rule.side_shapes(*shapes) if rule.side_names() else {}
        for wanted in (sides[name] for name in rule.side_names()):
            shapes += [tuple(data.draw(st.integers(1, 6)) if n is None else n for n in one) for one in wanted]
        found = rule.output_shape(*shapes)
        table = rule.parameters(*shapes)
    except ShapeError:
        return
    assert all(extent >= 1 for extent in found)
    assert all(parameter.size >= 1 for parameter in table.values())
    assert rule.macs(*shapes) >= 0
