"""Other meanings of windowed layers and of everything that has a kernel: padding, layout, what a mean counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from unitrain.spec.layers import LAYER_TYPES, LayerSpec
from unitrain.spec.layers.conv import WindowedLayer
from unitrain.verify.diagnosis import formulas
from unitrain.verify.diagnosis.evidence import (
    Array,
    Evidence,
    Variant,
    Variants,
    chain,
    keeps_shape,
    with_fields,
    with_parameters,
)
from unitrain.verify.diagnosis.fields import changed_field, show


def windows(evidence: Evidence) -> Variants:
    """Padding on other sides, and windows that are laid otherwise."""
    layer = evidence.layer
    assert isinstance(layer, WindowedLayer)
    shape = evidence.node.input_shapes[0]
    pads = layer.pads(shape)
    described = f"the spec says {show(layer.padding)}, {show(pads)}"
    flipped = tuple(pad[::-1] for pad in pads)
    halves = tuple(
        ((size - 1) * spread // 2,) * 2 for size, spread in zip(layer.kernel_size, layer.dilation, strict=True)
    )
    side = "the padding behind" if layer.padding == "causal" else "the odd padded element at the start"
    named = [
        (f"matches with {side}, padding {show(flipped)}; {described}", flipped),
        (f"matches with padding {show(halves)}, half the kernel on each side; {described}", halves),
    ]
    totals = [sum(pad) for pad in pads]
    splits = product(*([(before, total - before) for before in range(total + 1)] for total in totals))
    named += [(f"matches with padding {show(split)}; {described}", split) for split in splits if split != pads]
    for text, amounts in named[:40]:
        changed = changed_field(layer, "padding", amounts)
        if amounts != pads and isinstance(changed, LayerSpec) and keeps_shape(evidence, changed):
            yield Variant(text, with_fields(changed))


def average_pools(evidence: Evidence) -> Variants:
    """Padding that counts, sums for means."""
    layer = evidence.layer
    assert isinstance(layer, WindowedLayer)
    shape = evidence.node.input_shapes[0]
    pads = layer.pads(shape)
    for amounts in (pads, tuple(pad[::-1] for pad in pads)):
        padding = LAYER_TYPES["padding"].model_validate({"amounts": amounts})
        bare = changed_field(layer, "padding", "valid")
        if any(map(sum, amounts)) and isinstance(bare, LayerSpec):
            yield Variant("counts padding in the mean (count_include_pad); the spec does not", chain(padding, bare))
    area = float(np.prod(layer.kernel_size))
    yield Variant("sums the windows and does not divide by their size", formulas.scaled(area))


def max_pools(evidence: Evidence) -> Variants:
    """Padding that counts, other choices among equals."""
    layer = evidence.layer
    assert isinstance(layer, WindowedLayer)
    pads = layer.pads(evidence.node.input_shapes[0])
    padding = LAYER_TYPES["padding"].model_validate({"amounts": pads})
    bare = changed_field(layer, "padding", "valid")
    if any(map(sum, pads)) and isinstance(bare, LayerSpec):
        yield Variant("takes padding for zeros among which the largest is sought", chain(padding, bare))
    average = LAYER_TYPES.get(layer.type.replace("max", "average"))
    if average is not None:
        fields = {name: getattr(layer, name) for name in ("kernel_size", "strides", "padding", "dilation")}
        yield Variant("takes the mean, not the largest", with_fields(average.model_validate(fields)))
    last = formulas.rearranged(_reversed, _reversed)
    yield Variant("of equal elements gives the gradient to the last, not to the first", _mirrored(last))


def _reversed(x: Array) -> Array:
    return x[:, ::-1] if x.ndim == 3 else x[:, ::-1, ::-1]


def _mirrored(forward: Any) -> Any:
    """Turn the result back where the input was turned around: right where windows lie alike from both ends."""

    def turned(layer: Any, context: Any, parameters: Any, x: Array) -> Any:
        y, back = forward(layer, context, parameters, x)
        return _reversed(y), lambda dy: back(_reversed(dy))

    return turned


def transposed(evidence: Evidence) -> Variants:
    """Other parts of the full result."""
    layer: Any = evidence.layer
    if layer.padding != "same":
        return
    shape, wanted = evidence.node.input_shapes[0], evidence.node.output_shape[:-1]
    whole = changed_field(layer, "padding", "valid")
    assert isinstance(whole, LayerSpec)
    excess = [full - kept for full, kept in zip(whole.output_shape(shape), wanted, strict=False)]
    if min(excess) < 0:
        return
    right = tuple(amount // 2 for amount in excess)
    for starts in product(*(range(amount + 1) for amount in excess)):
        if starts != right:
            text = f"cuts {show(list(starts))} elements at the start, where the spec cuts {show(list(right))}"
            yield Variant(text, formulas.bound(formulas.cut, whole=whole, starts=starts))


def kernels(evidence: Evidence) -> Variants:
    """Weights that are read in another layout."""
    kernels = [name for name in evidence.parameters if "kernel" in name or name == "table"]
    for name in kernels:
        shape = evidence.parameters[name].shape
        spatial = len(shape) - 2
        changes: list[tuple[str, Callable[[Array], Array]]] = []
        if shape[-1] == shape[-2] and shape[-1] > 1:
            changes.append((f"reads the {name} transposed, (out, in) for (in, out)", lambda k: np.swapaxes(k, -1, -2)))
        if spatial == 2 and shape[0] == shape[1] and shape[0] > 1:
            changes.append((f"reads the {name} with height and width exchanged", lambda k: np.swapaxes(k, 0, 1)))
        if spatial > 0:
            flipped = tuple(range(spatial))
            changes.append(
                (f"flips the {name}: true convolution, not cross-correlation", partial(np.flip, axis=flipped))
            )
        changes.append(
            (f"reads the {name}'s numbers in another order (reshaped, not transposed)", lambda k: k.T.reshape(k.shape))
        )
        changes.append(
            (
                f"reads the {name}'s numbers in another order (reshaped, not transposed)",
                lambda k: np.moveaxis(k, (-1, -2), (0, 1)).reshape(k.shape),
            )
        )
        changes.append(
            (
                f"reads the {name}'s numbers in another order (reshaped, not transposed)",
                lambda k: np.moveaxis(k.reshape(k.shape[-1], k.shape[-2], *k.shape[:-2]), (0, 1), (-1, -2)),
            )
        )
        if "depthwise" in evidence.layer.type or name.startswith("depthwise"):
            changes.append(
                (
                    f"reads the {name} with channel and multiplier in the other order",
                    lambda k: np.swapaxes(k, -1, -2).reshape(k.shape),
                )
            )
        for text, change in changes:
            yield Variant(text, with_parameters(partial(_one_changed, name, change)))
    if "bias" in evidence.parameters:
        yield Variant("leaves the bias out", with_parameters(lambda p: {**p, "bias": np.zeros_like(p["bias"])}))
        yield Variant("adds the bias twice", with_parameters(lambda p: {**p, "bias": 2 * p["bias"]}))


def _one_changed(name: str, change: Callable[[Array], Array], parameters: dict[str, Array]) -> dict[str, Array]:
    return {**parameters, name: np.ascontiguousarray(change(parameters[name]))}


def global_pools(evidence: Evidence) -> Variants:
    """Sums for means, other choices among equals."""
    if evidence.layer.type == "global_average_pool":
        yield Variant("sums and does not divide", formulas.bound(formulas.mean_of_all, factor="sum"))
        yield Variant("divides by all elements, channels too", formulas.bound(formulas.mean_of_all, factor="channels"))
        other = "global_max_pool"
    else:
        yield Variant("gives the whole gradient to all equals", formulas.bound(formulas.ties, shares=False))
        yield Variant("shares the gradient among equals", formulas.bound(formulas.ties, shares=True))
        other = "global_average_pool"
    fields = {"keep_axes": getattr(evidence.layer, "keep_axes", False)}
    yield Variant(f"computes {other}", with_fields(LAYER_TYPES[other].model_validate(fields)))
