"""The table of layer implementations, and how canonical parameters lie in torch's layouts.

An implementation is one function ``make(layer, node) -> torch.nn.Module``; the module takes and gives tensors in the
spec's layout, batch first and channel last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from unitrain.backends.contract import Settings
from unitrain.graph.node import Node
from unitrain.spec.layers.base import LayerSpec


@dataclass(frozen=True)
class Layout:
    """How a canonical array becomes torch's: blocks and axes reordered, then ``merged`` first ones joined.

    Parameters
    ----------
    axes
        For each axis of torch's array the canonical axis, or None for the same order.
    merged
        Join the first two axes after reordering, and put an axis of size 1 behind them (depthwise kernels).
    blocks
        For each equal block of torch's rows the block of canonical columns that it is (gates), or None.
    """

    axes: tuple[int, ...] | None = None
    merged: bool = False
    blocks: tuple[int, ...] | None = None

    def to_torch(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring a canonical array into torch's layout."""
        array = _reordered(array, self.blocks)
        if self.axes is not None:
            array = array.transpose(self.axes)
        if self.merged:
            array = array.reshape(array.shape[0] * array.shape[1], 1, *array.shape[2:])
        return np.ascontiguousarray(array)

    def to_canonical(self, array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Bring torch's array into the canonical layout, of ``shape``."""
        if self.axes is None:
            array = array.reshape(shape)
        else:
            array = array.reshape([shape[axis] for axis in self.axes]).transpose(np.argsort(self.axes))
        back = None if self.blocks is None else tuple(np.argsort(self.blocks))
        return np.ascontiguousarray(_reordered(array, back))


def _reordered(array: npt.NDArray[Any], blocks: tuple[int, ...] | None) -> npt.NDArray[Any]:
    """Put equal blocks of the last axis into another order."""
    if blocks is None:
        return array
    parts = np.split(array, len(blocks), axis=-1)
    return np.concatenate([parts[block] for block in blocks], axis=-1)


SAME = Layout()


@dataclass(frozen=True)
class Slot:
    """Where a module holds one of its canonical parameters: an attribute path such as ``depthwise.weight``."""

    attribute: str
    layout: Layout = SAME

    def tensor(self, module: torch.nn.Module) -> torch.Tensor:
        """Return the parameter or buffer."""
        owner: Any = module
        for part in self.attribute.split("."):
            owner = getattr(owner, part)
        tensor: torch.Tensor = owner
        return tensor

    def put(self, module: torch.nn.Module, tensor: torch.Tensor) -> None:
        """Let the module hold another tensor in this place."""
        *owners, last = self.attribute.split(".")
        setattr(module.get_submodule(".".join(owners)), last, tensor)


@dataclass(frozen=True)
class Made:
    """A module and where it holds the layer's parameters, by local name."""

    module: torch.nn.Module
    slots: dict[str, Slot]


Maker = Callable[[Any, Node, Settings], Made]

IMPLEMENTATIONS: dict[type[LayerSpec], Maker] = {}
"""Layer specification to its maker, filled by `implements`."""

_Maker = TypeVar("_Maker", bound=Callable[..., Made])


def implements(*layers: type[LayerSpec]) -> Callable[[_Maker], _Maker]:
    """Register the decorated maker for one or more layer specifications."""

    def register(maker: _Maker) -> _Maker:
        for layer in layers:
            IMPLEMENTATIONS[layer] = maker
        return maker

    return register


def weight_and_bias(layout: Layout, bias: bool) -> dict[str, Slot]:
    """Return the slots of torch's usual ``weight`` and ``bias``."""
    return {"kernel": Slot("weight", layout), **({"bias": Slot("bias")} if bias else {})}
