"""Layers along an axis, powers, attention. But for attention the case is one sample, so that all axes can be named."""

from __future__ import annotations

import numpy as np
from onnx_cases.node_case import NodeCase, NotApplicable, Outputs, Translator


def reduced(kind: str) -> Translator:
    """Make a translator for a reduction over one axis."""

    def reduction(case: NodeCase) -> Outputs:
        x = case.numbers(0)
        axes = case.attributes.get("axes")
        stated = list(axes) if axes is not None else (case.integers(1) if case.given(1) is not None else [])
        if len(stated) != 1:
            raise NotApplicable("no axis, or several: ours reduces one")
        if 0 in x.shape:
            raise NotApplicable("an empty axis")
        fields = {"type": kind, "axis": stated[0], "keep_axis": bool(case.attributes.get("keepdims", 1))}
        return [case.apply(fields, x[None]).output[0]]

    return reduction


def slice_(case: NodeCase) -> Outputs:
    """One layer for each axis."""
    x = case.numbers(0)
    starts, ends = case.integers(1), case.integers(2)
    axes = case.integers(3) if case.given(3) is not None else list(range(len(starts)))
    steps = case.integers(4) if case.given(4) is not None else [1] * len(starts)
    y = x[None]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step < 1:
            raise NotApplicable("a step backwards")
        if not range(size)[start:end:step]:
            raise NotApplicable("nothing is left: ours refuses that")
        fields = {"type": "slice", "axis": axis, "start": start, "stop": min(end, size), "step": step}
        y = case.apply(fields, y).output
    return [y[0]]


def split(case: NodeCase) -> Outputs:
    """One layer for each part."""
    x = case.numbers(0)
    axis, parts = case.attributes.get("axis", 0), len(case.outputs)
    if len({np.shape(part)[axis] for part in case.outputs}) > 1 or 0 in np.shape(case.outputs[0]):
        raise NotApplicable("unequal parts: ours are equal")
    fields = {"type": "split", "axis": axis, "parts": parts}
    return [case.apply({**fields, "part": part}, x[None]).output[0] for part in range(parts)]


def power(case: NodeCase) -> Outputs:
    """The exponent is one number."""
    x, exponent = case.numbers(0), case.need(1)
    if np.size(exponent) != 1:
        raise NotApplicable("a tensor of exponents: ours is one number")
    return [case.apply({"type": "power", "exponent": float(np.ravel(exponent)[0])}, x[None]).output[0]]


def matmul(case: NodeCase) -> Outputs:
    a, b = case.numbers(0), case.numbers(1)
    if a.ndim != b.ndim or a.ndim < 2 or a.shape[:-2] != b.shape[:-2]:
        raise NotApplicable("axes that stretch, or a vector")
    return [case.apply({"type": "matmul"}, a[None], b[None]).output[0]]


def attention(case: NodeCase) -> Outputs:
    """Keys and values side by side are what the layer reads as ``key_value``; its kernels choose their channels."""
    names = {"q_num_heads", "kv_num_heads", "is_causal"}
    if (
        case.attributes.keys() - names
        or len(case.outputs) > 1
        or any(case.given(place) is not None for place in (4, 5, 6))
    ):
        raise NotApplicable("scale, softcap, past or other outputs: ours has none")
    if case.given(3) is not None:
        raise NotApplicable("a mask for each pair: ours is one of keys")
    q, k, v = (case.numbers(place) for place in range(3))
    whole = np.ndim(case.outputs[0]) == 4
    if whole:
        heads, groups = q.shape[1], k.shape[1]
        q, k, v = (x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1) for x in (q, k, v))
    else:
        heads, groups = case.attributes["q_num_heads"], case.attributes["kv_num_heads"]
    if k.shape[-1] != v.shape[-1]:
        raise NotApplicable("values of another width than keys")
    width, small = q.shape[-1], k.shape[-1]
    both = np.eye(2 * small, dtype=q.dtype)
    fields = {
        "type": "attention",
        "heads": heads,
        "key_value_heads": groups,
        "causal": bool(case.attributes.get("is_causal", 0)),
        "use_bias": False,
        "key_value": "given",
    }
    eye = np.eye(width, dtype=q.dtype)
    kernels = {"query": eye, "output": eye, "key": both[:, :small], "value": both[:, small:]}
    y = case.apply(fields, q, np.concatenate([k, v], axis=-1), **kernels).output
    return [y.reshape(len(y), y.shape[1], heads, -1).swapaxes(1, 2) if whole else y]
