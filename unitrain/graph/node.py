"""One layer at its place in a graph, its shapes known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unitrain.spec.layers.base import LayerSpec, Shape, ValueType


@dataclass(frozen=True)
class Node:
    """One application of one layer.

    Parameters
    ----------
    name
        Full name, blocks included: ``stage1.0.conv1``.
    layer
        The layer, all arguments worked out.
    inputs
        Names of the nodes or graph inputs it reads.
    input_shapes, output_shape
        Without the batch.
    dtype
        Kind of its output.
    parameters
        Local name to canonical name: ``{"kernel": "stage1.0.conv1.kernel"}``. A shared layer's nodes name the
        same parameters.
    """

    name: str
    layer: LayerSpec
    inputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    dtype: ValueType
    parameters: Mapping[str, str]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        return self.layer.macs(*self.input_shapes)

    @property
    def owner(self) -> str:
        """Name of the node that owns the weights: its own, unless the layer is shared; tied ones do not count."""
        tied = {local for local, field in self.layer.ties.items() if getattr(self.layer, field) is not None}
        first = next((name for local, name in self.parameters.items() if local not in tied), None)
        return self.name if first is None else first.rpartition(".")[0]
