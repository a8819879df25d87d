"""The known differences of layers: for each, what a port computes when it follows its framework and not the spec."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unitrain.spec.layers import LAYER_TYPES, LayerSpec
from unitrain.verify.diagnosis import activations, formulas, moves, norms, windows
from unitrain.verify.diagnosis.evidence import Evidence, Variant, Variants, keeps_shape, with_fields
from unitrain.verify.diagnosis.fields import alternatives, changed_field, numeric_fields, says
from unitrain.verify.diagnosis.patterns import describe


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
        if isinstance(changed, LayerSpec) and keeps_shape(evidence, changed):
            yield Variant(text, with_fields(changed))
    for families, differences in _DIFFERENCES:
        if node.layer.type in families:
            yield from differences(evidence)
    if len(node.input_shapes) == 1 and node.input_shapes[0] == node.output_shape and not node.parameters:
        yield Variant("gives its input back unchanged", formulas.identity)


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


_CONVOLUTIONS = frozenset(name for name in LAYER_TYPES if "conv" in name)
_MAX_POOLS = frozenset({"max_pool1d", "max_pool2d", "max_pool3d"})
_AVERAGE_POOLS = frozenset({"average_pool1d", "average_pool2d", "average_pool3d"})
_DIFFERENCES: tuple[tuple[frozenset[str], Callable[[Evidence], Variants]], ...] = (
    (
        frozenset(name for name in _CONVOLUTIONS if "transpose" not in name) | _MAX_POOLS | _AVERAGE_POOLS,
        windows.windows,
    ),
    (frozenset({"conv_transpose1d", "conv_transpose2d"}), windows.transposed),
    (_AVERAGE_POOLS, windows.average_pools),
    (_MAX_POOLS, windows.max_pools),
    (_CONVOLUTIONS | {"dense", "embedding", "patch_embedding", "squeeze_excite"}, windows.kernels),
    (frozenset({"batch_norm"}), norms.batch_norms),
    (frozenset({"layer_norm", "group_norm", "instance_norm", "rms_norm"}), norms.sample_norms),
    (frozenset({"flatten", "reshape"}), moves.flattens),
    (frozenset({*activations.PLAIN, "prelu", "softmax"}), activations.activations),
    (frozenset({"global_average_pool", "global_max_pool"}), windows.global_pools),
    (frozenset({"dropout", "stochastic_depth"}), moves.dropouts),
    (frozenset({"embedding"}), moves.embeddings),
    (frozenset({"upsample2d", "resize"}), moves.enlargements),
    (frozenset({"pixel_shuffle", "pixel_unshuffle"}), moves.shuffles),
    (frozenset({"add", "multiply", "concatenate"}), moves.merges),
)
