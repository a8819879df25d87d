"""Layers along one axis, arithmetic with a number, products. The case is one sample, so that its axes can be named."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
from onnx_cases.node_case import NodeCase, NotApplicable, Outputs, Translator


def slice_axes(case: NodeCase) -> Outputs:
    """One axis after another."""
    x = case.numbers(0)
    starts, stops = case.integers(1), case.integers(2)
    axes = case.integers(3) if case.given(3) is not None else range(len(starts))
    steps = case.integers(4) if case.given(4) is not None else []
    if 0 in np.shape(case.outputs[0]):
        raise NotApplicable("nothing is left; ours take one position or more")
    for start, stop, axis, step in zip_longest(starts, stops, axes, steps, fillvalue=1):
        if step < 0:
            raise NotApplicable("a negative step; ours go forward")
        fields = {"type": "slice", "axis": axis % x.ndim, "start": start, "stop": stop, "step": step}
        x = case.apply(fields, x[None]).output[0]
    return [x]


def split(case: NodeCase) -> Outputs:
    """A layer for each part."""
    x, sizes = case.numbers(0), case.given(1)
    fields = {"type": "split", "axis": case.attributes.get("axis", 0)}
    if sizes is not None:
        fields["sizes"] = [int(size) for size in sizes]
        if 0 in sizes:
            raise NotApplicable("a part of size 0; ours have 1 or more")
    else:
        fields["parts"] = len(case.outputs)
        if x.shape[fields["axis"]] % len(case.outputs):
            raise NotApplicable("parts whose unequal sizes are not stated")
    return [case.apply({**fields, "part": part}, x[None]).output[0] for part in range(len(case.outputs))]


def gather_nd(case: NodeCase) -> Outputs:
    """With one batch axis an index of one number chooses along the next; without, each index selects axis by axis."""
    x, indices = case.numbers(0), case.need(1)
    if case.attributes.get("batch_dims", 0) == 1 and indices.shape[1:] == (1,):
        return [case.apply({"type": "gather", "indices": "x1"}, x, indices.astype(np.int32)).output[:, 0]]
    chosen = []
    for index in indices.reshape(-1, indices.shape[-1]):
        part = x
        for place in index:
            part = case.apply({"type": "select", "index": int(place)}, part[None]).output[0]
        chosen.append(part)
    return [np.reshape(chosen, np.shape(case.outputs[0]))]


def reduced(kind: str) -> Translator:
    """Return the translator of a reduction: one axis after another, which for a mean changes nothing."""

    def translate(case: NodeCase) -> Outputs:
        x, given = case.numbers(0), case.given(1)
        stated = [] if given is None else [int(axis) % x.ndim for axis in given]
        axes = stated or ([] if case.attributes.get("noop_with_empty_axes", 0) else list(range(x.ndim)))
        for axis in sorted(axes, reverse=True):
            fields = {"type": kind, "axis": axis, "keep_axis": bool(case.attributes.get("keepdims", 1))}
            x = case.apply(fields, x[None]).output[0]
        return [x]

    return translate


def power(case: NodeCase) -> Outputs:
    exponent = case.numbers(1)
    if exponent.size > 1:
        raise NotApplicable("an exponent for each number; ours have one for all")
    return [case.apply({"type": "power", "exponent": float(exponent)}, case.numbers(0)).output]


def with_number(kind: str, **fields: float) -> Translator:
    """Return the translator of an operator that is arithmetic with one number."""
    return lambda case: [case.apply({"type": kind, **fields}, case.numbers(0)).output]


def quotient(case: NodeCase) -> Outputs:
    a, b = case.numbers(0), case.numbers(1)
    if case.need(0).dtype.kind in "iu":
        raise NotApplicable("whole numbers divided without a rest")
    b = b.reshape((1,) * (a.ndim - b.ndim) + b.shape)
    return [case.apply({"type": "divide"}, a[None], b[None]).output[0]]


def einsum(case: NodeCase) -> Outputs:
    """The sums that are an inner product, or products of matrices in a batch."""
    match case.attributes["equation"].replace(" ", ""):
        case "i,i":
            return [case.apply({"type": "dot"}, case.numbers(0)[None], case.numbers(1)[None]).output[0]]
        case "bij,bjk->bik":
            return [case.apply({"type": "matmul"}, case.numbers(0), case.numbers(1)).output]
        case _:
            raise NotApplicable("another sum than an inner product or a product of matrices")
