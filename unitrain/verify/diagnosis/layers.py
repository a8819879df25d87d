"""The known differences of layers: for each, what a port computes when it follows its framework and not the spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from unitrain.backends.numpy.activation import SELU_ALPHA, SELU_SCALE
from unitrain.spec.layers import LAYER_TYPES, LayerSpec
from unitrain.spec.layers.base import ShapeError
from unitrain.spec.layers.conv import WindowedLayer
from unitrain.verify.diagnosis import formulas
from unitrain.verify.diagnosis.evidence import Array, Evidence, Variant, chain, with_fields, with_parameters
from unitrain.verify.diagnosis.fields import alternatives, changed_field, numeric_fields, says, show
from unitrain.verify.diagnosis.patterns import describe
from unitrain.verify.kinks import KINKS

Variants = Iterator[Variant]


def explain_layer(evidence: Evidence) -> str:
    """Return the difference that explains what a backend computed for a layer, or nothing.

    Tried in this order: each of the layer's fields with another value, the known differences of its kind, a number
    fitted for each of its numeric fields, and last what can be seen without knowing the layer.
    """
    for variant in known_differences(evidence):
        if evidence.matches(variant.forward):
            return variant.text
    return _fitted(evidence) or describe(evidence)


def known_differences(evidence: Evidence) -> Variants:
    """Give the meanings that a layer is known to be given elsewhere."""
    node = evidence.node
    for text, changed in alternatives(node.layer):
        if isinstance(changed, LayerSpec) and _keeps_shape(evidence, changed):
            yield Variant(text, with_fields(changed))
    for families, differences in _DIFFERENCES:
        if node.layer.type in families:
            yield from differences(evidence)
    if len(node.input_shapes) == 1 and node.input_shapes[0] == node.output_shape and not node.parameters:
        yield Variant("gives its input back unchanged", formulas.identity)


def _keeps_shape(evidence: Evidence, changed: LayerSpec) -> bool:
    try:
        return changed.output_shape(*evidence.node.input_shapes) == evidence.node.output_shape
    except (ShapeError, ValueError, IndexError):
        return False


def _fitted(evidence: Evidence) -> str:
    """Fit a number for each numeric field of the layer, by golden section over its logarithm."""
    for name in numeric_fields(evidence.layer):
        value = float(getattr(evidence.layer, name))

        def error(logarithm: float, field: str = name) -> float:
            changed = changed_field(evidence.layer, field, float(10.0**logarithm))
            return evidence.error(with_fields(changed)) if isinstance(changed, LayerSpec) else np.inf

        grid = np.linspace(-12.0, 2.0, 57)
        errors = [error(point) for point in grid]
        best = int(np.argmin(errors))
        if not np.isfinite(errors[best]):
            continue
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        golden = (np.sqrt(5.0) - 1.0) / 2.0
        for _ in range(45):
            left, right = high - golden * (high - low), low + golden * (high - low)
            if error(left) < error(right):
                high = right
            else:
                low = left
        number = float(10.0 ** ((low + high) / 2))
        for candidate in (float(f"{number:.3g}"), float(f"{number:.6g}"), number):
            changed = changed_field(evidence.layer, name, candidate)
            if isinstance(changed, LayerSpec) and evidence.matches(with_fields(changed)):
                return says(name, candidate, value)
    return ""


def _windows(evidence: Evidence) -> Variants:
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
    named = [
        (f"matches with the odd padded element at the start, padding {show(flipped)}; {described}", flipped),
        (f"matches with padding {show(halves)}, half the kernel on each side; {described}", halves),
    ]
    totals = [sum(pad) for pad in pads]
    splits = product(*([(before, total - before) for before in range(total + 1)] for total in totals))
    named += [(f"matches with padding {show(split)}; {described}", split) for split in splits if split != pads]
    for text, amounts in named[:40]:
        changed = changed_field(layer, "padding", amounts)
        if amounts != pads and isinstance(changed, LayerSpec) and _keeps_shape(evidence, changed):
            yield Variant(text, with_fields(changed))


def _average_pools(evidence: Evidence) -> Variants:
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
    yield Variant("sums the windows and does not divide by their size", _scaled(area))


def _max_pools(evidence: Evidence) -> Variants:
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


def _scaled(factor: float) -> Any:
    """Return the meaning of which result and gradients are ``factor`` times the layer's."""
    from unitrain.backends.numpy.registry import IMPLEMENTATIONS

    def forward(layer: Any, context: Any, parameters: Any, *inputs: Array) -> Any:
        y, back = IMPLEMENTATIONS[type(layer)](layer, context, parameters, *inputs)
        return y * factor, lambda dy: back(dy * factor)

    return forward


def _batch_norms(evidence: Evidence) -> Variants:
    layer: Any = evidence.layer
    axes = tuple(range(len(evidence.node.input_shapes[0])))

    def variant(text: str, **choices: Any) -> Variant:
        def forward(spec: Any, context: Any, parameters: Any, x: Array) -> Any:
            own = {"statistics": context.training, **choices}
            if callable(own["statistics"]):
                own["statistics"] = own["statistics"](context.training)
            return formulas.standardised(spec, context, parameters, x, axes=axes, **own)

        return Variant(text, forward)

    swapped = 1.0 - layer.momentum
    yield variant(
        f"matches with momentum={show(swapped)}: the share that is new, where the spec's {show(layer.momentum)} is the "
        "share that is kept",
        momentum=swapped,
    )
    yield variant(
        "moves the running variance by the unbiased variance (N - 1); the spec says biased (N)", running_correction=1
    )
    yield variant("divides by the unbiased variance (N - 1); the spec says biased (N)", correction=1)
    yield variant("divides by the unbiased variance (N - 1) in training only", correction=1, running_correction=0)
    yield variant("does not move the running statistics", moves=False)
    yield variant("uses the running statistics in training too", statistics=lambda training: False)
    yield variant("uses the batch's statistics in inference too", statistics=lambda training: True)
    yield variant("takes mean and variance for constants in the backward pass", detached=True)
    yield variant("adds epsilon to the standard deviation, not to the variance", outside=True)
    for other in (0.99, 0.9, 0.1, 0.01):
        yield variant(
            f"matches with momentum={show(other)} and the unbiased running variance, the spec says "
            f"{show(layer.momentum)} and biased",
            momentum=other,
            running_correction=1,
        )


def _sample_norms(evidence: Evidence) -> Variants:
    layer: Any = evidence.layer
    shape = evidence.node.input_shapes[0]
    rank = len(shape) + 1
    view: Callable[[Array], tuple[int, ...]] | None = None
    centred = layer.type != "rms_norm"
    if layer.type == "group_norm":
        axes: tuple[int, ...] = (1, 3)
        view = lambda x: (len(x), -1, layer.groups, x.shape[-1] // layer.groups)  # noqa: E731  # one of two shapes
    else:
        count = layer.axes if layer.type == "layer_norm" else 1
        axes = tuple(range(rank - count, rank))

    def variant(text: str, **choices: Any) -> Variant:
        def forward(spec: Any, context: Any, parameters: Any, x: Array) -> Any:
            own = {"axes": axes, "view": view(x) if view else None, "centred": centred, **choices}
            return formulas.standardised(spec, context, parameters, x, **own)

        return Variant(text, forward)

    yield variant("divides by the unbiased variance (N - 1); the spec says biased (N)", correction=1)
    yield variant("adds epsilon to the root, not under it", outside=True)
    yield variant("subtracts the mean" if not centred else "does not subtract the mean", centred=not centred)
    yield variant("takes mean and variance for constants in the backward pass", detached=True)
    if layer.type == "layer_norm":
        everything = tuple(range(1, rank))
        yield variant("normalises over all axes of a sample", axes=everything)
    if layer.type == "group_norm":
        size = shape[-1] // layer.groups
        yield Variant(
            "takes every n-th channel for a group, where the spec takes neighbours",
            _interleaved(layer.groups, size),
        )


def _interleaved(groups: int, size: int) -> Any:
    def order(x: Array) -> Array:
        return x.reshape(*x.shape[:-1], size, groups).swapaxes(-1, -2).reshape(x.shape)

    def back(x: Array) -> Array:
        return x.reshape(*x.shape[:-1], groups, size).swapaxes(-1, -2).reshape(x.shape)

    def forward(layer: Any, context: Any, parameters: Any, x: Array) -> Any:
        from unitrain.backends.numpy.registry import IMPLEMENTATIONS

        ordered = {name: order(array) for name, array in parameters.items()}
        y, backward = IMPLEMENTATIONS[type(layer)](layer, context, ordered, order(x))

        def reverse(dy: Array) -> Any:
            (dx,), gradients = backward(order(dy))
            assert dx is not None
            return (back(dx),), {name: back(array) for name, array in gradients.items()}

        return back(y), reverse

    return forward


def _kernels(evidence: Evidence) -> Variants:
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
        for text, change in changes:
            yield Variant(text, with_parameters(partial(_one_changed, name, change)))
    if "bias" in evidence.parameters:
        yield Variant("leaves the bias out", with_parameters(lambda p: {**p, "bias": np.zeros_like(p["bias"])}))
        yield Variant("adds the bias twice", with_parameters(lambda p: {**p, "bias": 2 * p["bias"]}))


def _one_changed(name: str, change: Callable[[Array], Array], parameters: dict[str, Array]) -> dict[str, Array]:
    return {**parameters, name: np.ascontiguousarray(change(parameters[name]))}


def _flattens(evidence: Evidence) -> Variants:
    shape = evidence.node.input_shapes[0]
    if len(shape) > 1:
        first = [len(shape) - 1, *range(len(shape) - 1)]
        permute = LAYER_TYPES["permute"].model_validate({"axes": first})
        text = "takes the elements channel by channel (channels first); the spec's order has the channel last"
        yield Variant(text, chain(permute, evidence.layer))
        backwards = LAYER_TYPES["permute"].model_validate({"axes": list(range(len(shape)))[::-1]})
        yield Variant("takes the elements in column-major order", chain(backwards, evidence.layer))


def _activations(evidence: Evidence) -> Variants:
    kind = evidence.layer.type
    for slope in (0.0, 0.5, 1.0, SELU_SCALE, SELU_SCALE * SELU_ALPHA):
        for places in [KINKS[kind], *((place,) for place in KINKS[kind])] if kind in KINKS else []:
            text = f"takes {slope:g} for the derivative at {' and '.join(f'{place:g}' for place in places)}"
            yield Variant(text, formulas.kink(places, slope))
    others = [LAYER_TYPES[name].model_validate({}) for name in _PLAIN if name != kind]
    yield from (Variant(f"computes {other.type}", with_fields(other)) for other in others)
    if kind == "gelu":
        yield Variant("computes x * sigmoid(1.702 x)", formulas.elementwise(_quick_gelu, _quick_gelu_derivative))
    if kind == "hard_sigmoid":
        yield Variant(
            "computes clip(0.2 x + 0.5, 0, 1), where the spec has relu6(x + 3) / 6",
            formulas.elementwise(
                lambda x: np.clip(0.2 * x + 0.5, 0, 1), lambda x: 0.2 * ((x > -2.5) & (x < 2.5)).astype(x.dtype)
            ),
        )
    if kind == "hard_swish":
        yield Variant(
            "computes x * clip(0.2 x + 0.5, 0, 1), where the spec has x * relu6(x + 3) / 6",
            formulas.elementwise(
                lambda x: x * np.clip(0.2 * x + 0.5, 0, 1),
                lambda x: np.clip(0.2 * x + 0.5, 0, 1) + x * 0.2 * ((x > -2.5) & (x < 2.5)).astype(x.dtype),
            ),
        )
    if kind == "selu":
        elu = LAYER_TYPES["elu"].model_validate({"alpha": SELU_ALPHA})
        yield Variant("computes elu with selu's alpha, without the scale", with_fields(elu))
    if kind == "softmax":
        yield Variant("computes the logarithm of the softmax", _log_softmax(getattr(evidence.layer, "axis", -1)))


def _quick_gelu(x: Array) -> Array:
    result: Array = x / (1 + np.exp(-1.702 * x))
    return result


def _quick_gelu_derivative(x: Array) -> Array:
    share = 1 / (1 + np.exp(-1.702 * x))
    result: Array = share + 1.702 * x * share * (1 - share)
    return result


def _log_softmax(axis: int) -> Any:
    def forward(layer: Any, context: Any, parameters: Any, x: Array) -> Any:
        where = axis if axis < 0 else axis + 1
        shifted = x - x.max(axis=where, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(axis=where, keepdims=True))
        return y, lambda dy: ((dy - np.exp(y) * dy.sum(axis=where, keepdims=True),), {})

    return forward


def _global_pools(evidence: Evidence) -> Variants:
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


def _dropouts(evidence: Evidence) -> Variants:
    for kind, text in (
        ("inverted", "keeps what is to be dropped, and drops the rest"),
        ("unscaled", "does not divide by 1 - rate in training"),
        ("always", "drops in inference too"),
        ("never", "does not drop in training"),
        ("scaled later", "multiplies by 1 - rate in inference, not by 1 / (1 - rate) in training"),
    ):
        yield Variant(text, formulas.bound(formulas.other_mask, kind=kind))


def _embeddings(evidence: Evidence) -> Variants:
    for shift in (1, -1):
        yield Variant(f"takes the row {'after' if shift > 0 else 'before'} the one that is asked for",
                      formulas.bound(formulas.looked_up, shift=shift))  # fmt: skip


def _enlargements(evidence: Evidence) -> Variants:
    if getattr(evidence.layer, "interpolation", "") == "bilinear":
        text = "matches with corners aligned (align_corners); the spec has half-pixel centres"
        yield Variant(text, formulas.align_corners)


def _merges(evidence: Evidence) -> Variants:
    from unitrain.backends.numpy.registry import IMPLEMENTATIONS

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
        yield Variant("takes the mean of its inputs", _scaled(1.0 / len(evidence.node.inputs)))


def _only(kept: int) -> Any:
    def forward(layer: Any, context: Any, parameters: Any, *inputs: Array) -> Any:
        return inputs[kept], lambda dy: (
            tuple(dy if place == kept else np.zeros_like(x) for place, x in enumerate(inputs)),
            {},
        )

    return forward


# Activations without fields, or with the usual values of them.
_PLAIN = ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "hard_sigmoid", "hard_swish", "tanh",
          "softplus")  # fmt: skip

_CONVOLUTIONS = frozenset(name for name in LAYER_TYPES if "conv" in name)
_POOLS = frozenset({"max_pool1d", "max_pool2d", "average_pool1d", "average_pool2d"})
_DIFFERENCES: tuple[tuple[frozenset[str], Callable[[Evidence], Variants]], ...] = (
    (frozenset(name for name in _CONVOLUTIONS if "transpose" not in name) | _POOLS, _windows),
    (frozenset({"average_pool1d", "average_pool2d"}), _average_pools),
    (frozenset({"max_pool1d", "max_pool2d"}), _max_pools),
    (_CONVOLUTIONS | {"dense", "embedding"}, _kernels),
    (frozenset({"batch_norm"}), _batch_norms),
    (frozenset({"layer_norm", "group_norm", "rms_norm"}), _sample_norms),
    (frozenset({"flatten", "reshape"}), _flattens),
    (frozenset({*_PLAIN, "prelu", "softmax"}), _activations),
    (frozenset({"global_average_pool", "global_max_pool"}), _global_pools),
    (frozenset({"dropout"}), _dropouts),
    (frozenset({"embedding"}), _embeddings),
    (frozenset({"upsample2d"}), _enlargements),
    (frozenset({"add", "multiply", "concatenate"}), _merges),
)
