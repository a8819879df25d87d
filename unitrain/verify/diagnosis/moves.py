"""Other meanings of the layers that move, drop, look up or merge elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from unitrain.backends.numpy.registry import IMPLEMENTATIONS
from unitrain.spec.layers import LAYER_TYPES
from unitrain.verify.diagnosis import formulas
from unitrain.verify.diagnosis.evidence import Array, Evidence, Variant, Variants, chain, with_fields


def flattens(evidence: Evidence) -> Variants:
    """Other orders of the elements."""
    shape = evidence.node.input_shapes[0]
    if len(shape) > 1:
        first = [len(shape) - 1, *range(len(shape) - 1)]
        permute = LAYER_TYPES["permute"].model_validate({"axes": first})
        text = "takes the elements channel by channel (channels first); the spec's order has the channel last"
        yield Variant(text, chain(permute, evidence.layer))
        backwards = LAYER_TYPES["permute"].model_validate({"axes": list(range(len(shape)))[::-1]})
        yield Variant("takes the elements in column-major order", chain(backwards, evidence.layer))


def dropouts(evidence: Evidence) -> Variants:
    """Other treatments of the mask."""
    for kind, text in (
        ("inverted", "keeps what is to be dropped, and drops the rest"),
        ("unscaled", "does not divide by 1 - rate in training"),
        ("always", "drops in inference too"),
        ("never", "does not drop in training"),
        ("scaled later", "multiplies by 1 - rate in inference, not by 1 / (1 - rate) in training"),
    ):
        yield Variant(text, formulas.bound(formulas.other_mask, kind=kind))


def embeddings(evidence: Evidence) -> Variants:
    """Other counts of the rows."""
    for shift in (1, -1):
        yield Variant(f"takes the row {'after' if shift > 0 else 'before'} the one that is asked for",
                      formulas.bound(formulas.looked_up, shift=shift))  # fmt: skip


def enlargements(evidence: Evidence) -> Variants:
    """Other places of the pixels."""
    if getattr(evidence.layer, "interpolation", "") == "bilinear":
        text = "matches with corners aligned (align_corners); the spec has half-pixel centres"
        yield Variant(text, formulas.align_corners)
    elif evidence.layer.type == "resize":
        text = "takes pixel floor(i * in / out) (asymmetric); the spec has half-pixel centres"
        yield Variant(text, formulas.asymmetric)


def shuffles(evidence: Evidence) -> Variants:
    """Another order of the channels that are arranged."""
    layer: Any = evidence.layer
    factor = layer.factor

    def turned(x: Array) -> Array:
        return x.reshape(*x.shape[:-1], factor**2, -1).swapaxes(-1, -2).reshape(x.shape)

    def back(x: Array) -> Array:
        return x.reshape(*x.shape[:-1], -1, factor**2).swapaxes(-1, -2).reshape(x.shape)

    def unshuffled(layer: Any, context: Any, parameters: Any, x: Array) -> Any:
        y, backward = IMPLEMENTATIONS[type(layer)](layer, context, parameters, x)
        return back(y), lambda dy: backward(turned(dy))

    forward = formulas.rearranged(turned, back) if layer.type == "pixel_shuffle" else unshuffled
    yield Variant("has the channel last among channel, row and column (TensorFlow); the spec has it first", forward)


def merges(evidence: Evidence) -> Variants:
    """Other orders, other arithmetic, inputs left out."""

    def backwards(layer: Any, context: Any, parameters: Any, *inputs: Array) -> Any:
        y, back = IMPLEMENTATIONS[type(layer)](layer, context, parameters, *inputs[::-1])

        def reverse(dy: Array) -> Any:
            by_input, gradients = back(dy)
            return by_input[::-1], gradients

        return y, reverse

    yield Variant("takes its inputs in reverse order", backwards)
    for name in ("add", "multiply"):
        if name != evidence.layer.type and evidence.layer.type != "concatenate":
            yield Variant(f"computes {name}", with_fields(LAYER_TYPES[name].model_validate({})))
    for kept in range(len(evidence.node.inputs)):
        yield Variant(f"gives input {kept + 1} back and leaves out the others", _only(kept))
    if evidence.layer.type == "add":
        yield Variant("takes the mean of its inputs", formulas.scaled(1.0 / len(evidence.node.inputs)))


def _only(kept: int) -> Any:
    def forward(layer: Any, context: Any, parameters: Any, *inputs: Array) -> Any:
        return inputs[kept], lambda dy: (
            tuple(dy if place == kept else np.zeros_like(x) for place, x in enumerate(inputs)),
            {},
        )

    return forward
