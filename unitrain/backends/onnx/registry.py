"""The table of layer implementations.

A layer is one function ``emit(layer, b, *inputs) -> Value``, which adds operators through the `LayerEmitter` ``b`` and
returns where the result is. A layer that does nothing in inference returns its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from unitrain.backends.onnx.emitter import Value
from unitrain.spec.layers.base import LayerSpec

Emission = Callable[..., Value]

IMPLEMENTATIONS: dict[type[LayerSpec], Emission] = {}
"""Layer specification to the function that emits it, filled by `implements`."""

_Emission = TypeVar("_Emission", bound=Emission)


def implements(*layers: type[LayerSpec]) -> Callable[[_Emission], _Emission]:
    """Register the decorated function for one or more layer specifications."""

    def register(emission: _Emission) -> _Emission:
        for layer in layers:
            IMPLEMENTATIONS[layer] = emission
        return emission

    return register
