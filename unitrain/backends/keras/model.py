"""Builds a graph as a functional ``keras.Model``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.contract import Arrays, Precision, Settings

# Imported for what they register: each fills its row of the table.
from unitrain.backends.keras import (  # noqa: F401
    activation,
    arithmetic,
    attention,
    axis,
    conv,
    dense,
    dropout,
    embedding,
    gate,
    mask,
    merge,
    norm,
    pool,
    position,
    projection,
    quantize,
    recurrent,
    resize,
    shape,
    similarity,
    tabular,
    vision,
)
from unitrain.backends.keras.dropout import CounterDropout
from unitrain.backends.keras.registry import (
    IMPLEMENTATIONS,
    Binding,
    Context,
    KerasTensor,
    Parts,
    Variable,
)
from unitrain.backends.keras.shared import After
from unitrain.backends.precision import MIXED, stored_in
from unitrain.graph.graph import Graph
from unitrain.spec.layers import LAYER_TYPES


@dataclass(frozen=True)
class BuiltModel:
    """A model and where its parts are.

    Parameters
    ----------
    model
        The functional model.
    tensors
        Node name to the symbolic tensor of its output.
    bindings
        Canonical parameter name to the variable that holds it.
    counters
        The step counters of the dropout layers.
    """

    model: Any
    tensors: dict[str, KerasTensor]
    bindings: dict[str, Binding]
    counters: list[Variable]


def implemented_types() -> frozenset[str]:
    """Return the layer types that have an implementation."""
    return frozenset(name for name, layer in LAYER_TYPES.items() if layer in IMPLEMENTATIONS)


def device_name(device: str) -> str:
    """Turn ``cpu`` or ``cuda:N`` into TensorFlow's name."""
    kind, _, index = device.partition(":")
    return f"/{ {'cpu': 'CPU', 'cuda': 'GPU'}[kind] }:{index or 0}"


def build_model(graph: Graph, weights: Arrays, settings: Settings) -> BuiltModel:
    """Build a graph's functional model, on its device, with these weights (canonical)."""
    with tf.device(device_name(settings.device)):
        parts = Parts()
        stored = stored_in(settings.precision)
        inputs = {
            name: keras.Input(given.shape, dtype=stored if given.dtype == "float" else "int32", name=name)
            for name, given in graph.inputs.items()
        }
        mixed = settings.precision in MIXED
        read = {
            name: _brought(x, settings.precision, f"{name}.lowered")
            if mixed and graph.inputs[name].dtype == "float"
            else x
            for name, x in inputs.items()
        }
        tensors: dict[str, KerasTensor] = {}
        moved: dict[str, KerasTensor] = {}
        for node in graph.nodes:
            context = Context(node, settings, parts)
            sources = [read[name] if name in read else tensors[name] for name in node.inputs]
            if node.owner in moved:
                ready = After(name=f"{node.name}.after", dtype=sources[0].dtype)
                sources[0] = ready([sources[0], moved[node.owner]])
            tensors[node.name] = IMPLEMENTATIONS[type(node.layer)](node.layer, context, *sources)
            _name_operations(node.name, tensors[node.name], sources)
            if not all(graph.parameters[name].trainable for name in node.parameters.values()):
                moved[node.owner] = tensors[node.name]
        outputs = {name: tensors[node] for name, node in graph.outputs.items()}
        if mixed:
            outputs = {name: _brought(output, stored, f"{name}.raised") for name, output in outputs.items()}
        model = keras.Model(plain_or_named(inputs), plain_or_named(outputs), name=_scope_name(graph.name))
        load(parts.bindings, weights)
    counters = [layer.step for layer in model.layers if isinstance(layer, CounterDropout)]
    return BuiltModel(model, tensors, parts.bindings, counters)


def _name_operations(node: str, result: KerasTensor, sources: Sequence[KerasTensor]) -> None:
    """Put a node's name before those of its operations, which Keras numbers: another layer may be ``multiply_1``."""
    seen = {id(source) for source in sources}
    waiting = [result]
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, call, _ = tensor._keras_history
        if not isinstance(operation, keras.layers.Layer):
            operation.name = f"{node}.{operation.name}"
        waiting += operation._inbound_nodes[call].input_tensors


def _brought(x: KerasTensor, precision: Precision, name: str) -> KerasTensor:
    """Round or widen floats to what a policy's layers compute in."""
    return keras.layers.Identity(dtype=precision, name=name)(x)


def plain_or_named(tensors: dict[str, Any]) -> Any:
    """Return the only tensor as it is, several as a dictionary, as our models have it."""
    return next(iter(tensors.values())) if len(tensors) == 1 else tensors


def load(bindings: dict[str, Binding], weights: Arrays) -> None:
    """Put canonical weights into their variables."""
    for name, binding in bindings.items():
        binding.variable.assign(binding.to_keras(weights[name]))


def _scope_name(name: str) -> str:
    """Return a name that TensorFlow takes for a scope: letters, digits and ``_.-``, no sign first."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return plain if plain[:1].isalnum() else f"model{plain}"
