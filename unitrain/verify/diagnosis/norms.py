"""Other meanings of normalisation: which variance, which statistics, where epsilon stands."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from unitrain.backends.numpy.registry import IMPLEMENTATIONS
from unitrain.spec.layers import GroupedNorm
from unitrain.verify.diagnosis import formulas
from unitrain.verify.diagnosis.evidence import Array, Evidence, Variant, Variants, with_fields
from unitrain.verify.diagnosis.fields import show


def batch_norms(evidence: Evidence) -> Variants:
    """Which variance, which statistics, which momentum."""
    layer: Any = evidence.layer
    axes = tuple(range(len(evidence.node.input_shapes[0])))

    def variant(text: str, **choices: Any) -> Variant:
        def forward(spec: Any, context: Any, parameters: Any, x: Array) -> Any:
            own = {"statistics": context.training, **choices}
            if callable(own["statistics"]):
                own["statistics"] = own["statistics"](context.training)
            return formulas.standardised(spec, context, parameters, x, axes=axes, **own)

        return Variant(text, forward)

    for epsilon, momentum in product((1e-3, 1e-5, 1e-6), (0.99, 0.9, 0.1)):
        if epsilon != layer.epsilon and momentum != layer.momentum:
            yield Variant(
                f"matches with epsilon={show(epsilon)} and momentum={show(momentum)}, the spec says "
                f"{show(layer.epsilon)} and {show(layer.momentum)}",
                with_fields(layer.model_copy(update={"epsilon": epsilon, "momentum": momentum})),
            )
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


def sample_norms(evidence: Evidence) -> Variants:
    """Which variance, which axes, which groups."""
    layer: Any = evidence.layer
    shape = evidence.node.input_shapes[0]
    rank = len(shape) + 1
    view: Callable[[Array], tuple[int, ...]] | None = None
    centred = layer.type != "rms_norm"
    if isinstance(layer, GroupedNorm):
        groups = layer.groups_of(shape[-1])
        axes: tuple[int, ...] = (1, 3)
        view = lambda x: (len(x), -1, groups, x.shape[-1] // groups)  # noqa: E731  # one of two shapes
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
        ordered = {name: order(array) for name, array in parameters.items()}
        y, backward = IMPLEMENTATIONS[type(layer)](layer, context, ordered, order(x))

        def reverse(dy: Array) -> Any:
            (dx,), gradients = backward(order(dy))
            assert dx is not None
            return (back(dx),), {name: back(array) for name, array in gradients.items()}

        return back(y), reverse

    return forward
