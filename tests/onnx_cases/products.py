"""Matrix products, as dense layers and as pointwise convolutions, and table look-ups."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx_cases.node_case import NodeCase, NotApplicable, Outputs


def gemm(case: NodeCase) -> Outputs:
    """Express alpha * A' @ B' + beta * C: alpha and beta are folded into kernel and bias."""
    a, b, c = case.numbers(0), case.numbers(1), case.given(2)
    x = a.T if case.attributes.get("transA", 0) else a
    kernel = case.attributes.get("alpha", 1.0) * (b.T if case.attributes.get("transB", 0) else b)
    fields = {"type": "dense", "units": kernel.shape[1], "use_bias": c is not None}
    if c is None:
        return [case.apply(fields, x, kernel=kernel).output]
    if c.ndim == 2 and len(c) > 1:
        raise NotApplicable("C differs from row to row: dense has one bias a unit")
    bias = np.broadcast_to(case.attributes.get("beta", 1.0) * c, (1, kernel.shape[1]))[0]
    return [case.apply(fields, x, kernel=kernel, bias=bias).output]


def matmul_as_dense(case: NodeCase) -> Outputs:
    """Take the second operand for the kernel, or, where the first is a vector, that one: v @ M = M' @ v."""
    a, b = case.numbers(0), case.numbers(1)
    if b.ndim <= 2:
        x, kernel = a, b
    elif a.ndim == 1:
        x, kernel = b.swapaxes(-1, -2), a
    else:
        raise NotApplicable("dense has one kernel for the whole batch")
    kernel = kernel[:, None] if kernel.ndim == 1 else kernel
    fields = {"type": "dense", "units": kernel.shape[1], "use_bias": False}
    return [case.apply(fields, x[None], kernel=kernel).output.reshape(np.shape(case.outputs[0]))]


def matmul_as_conv(case: NodeCase) -> Outputs:
    """Take each matrix of the second operand for the kernel of one group of a pointwise convolution over the rows."""
    a, b = case.numbers(0), case.numbers(1)
    a = a[None] if a.ndim == 1 else a
    b = b[:, None] if b.ndim == 1 else b
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    groups, (rows, depth), columns = prod(leading), a.shape[-2:], b.shape[-1]
    x = np.broadcast_to(a, (*leading, rows, depth)).reshape(groups, rows, depth)
    kernels = np.broadcast_to(b, (*leading, depth, columns)).reshape(groups, depth, columns)
    fields = {
        "type": "conv1d",
        "filters": groups * columns,
        "kernel_size": 1,
        "groups": groups,
        "use_bias": False,
    }
    stacked = x.swapaxes(0, 1).reshape(1, rows, groups * depth)
    kernel = kernels.swapaxes(0, 1).reshape(1, depth, groups * columns)
    y = case.apply(fields, stacked, kernel=kernel).output.reshape(rows, groups, columns).swapaxes(0, 1)
    return [y.reshape(np.shape(case.outputs[0]))]


def matmul(case: NodeCase) -> Outputs:
    a, b = case.numbers(0), case.numbers(1)
    if a.ndim != b.ndim or a.ndim < 2 or a.shape[:-2] != b.shape[:-2]:
        raise NotApplicable("axes that stretch, or a vector")
    return [case.apply({"type": "matmul"}, a[None], b[None]).output[0]]


def gather(case: NodeCase) -> Outputs:
    """Look up along an axis: that axis becomes the table's rows."""
    data, indices = case.numbers(0), case.need(1)
    if indices.min() < 0:
        raise NotApplicable("a negative index: our embedding calls it an error")
    axis = case.attributes.get("axis", 0) % data.ndim
    rows = np.moveaxis(data, axis, 0)
    table = rows.reshape(len(rows), -1)
    fields = {"type": "embedding", "vocabulary": table.shape[0], "width": table.shape[1]}
    found = case.apply(fields, indices, table=table).output.reshape(*indices.shape, *rows.shape[1:])
    looked_up = range(indices.ndim)
    return [np.moveaxis(found, looked_up, [axis + place for place in looked_up])]
