"""A built model as a pure function: inputs and values of the variables in, outputs and new values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.model import BuiltModel, plain_or_named
from unitrain.backends.keras.registry import Variable
from unitrain.backends.namespace import Tensor
from unitrain.graph.graph import Graph

Tensors = dict[str, Tensor]


def compiled(function: Callable[..., Any], signature: Sequence[Any]) -> Callable[..., Any]:
    """Compile a function of tensors for one signature: traced at once, and never again.

    What comes back takes tensors alone. A ``tf.function`` would look at the kinds of its arguments in each call to find
    the one graph there is, which takes longer than a step of a small model.
    """
    result: Callable[..., Any] = tf.function(
        function, input_signature=signature, autograph=False
    ).get_concrete_function()
    return result


class Call:
    """Calls a built model, or another over the same layers, without a side effect.

    Parameters
    ----------
    graph, built
        The graph and the model built from it.
    dtype
        TensorFlow's dtype of the working precision.
    """

    def __init__(self, graph: Graph, built: BuiltModel, dtype: Any) -> None:
        self.graph = graph
        self.built = built
        self.dtype = dtype
        self.parameters: dict[str, Variable] = {name: built.bindings[name].variable for name in graph.trainable}
        taken = {id(variable) for variable in (*self.parameters.values(), *built.counters)}
        # What a call in training moves: running statistics, and the states of Keras' own generators.
        self.moving: list[Variable] = [variable for variable in built.model.variables if id(variable) not in taken]

    def prepare(self, inputs: Mapping[str, Any]) -> Tensors:
        """Bring inputs into the kinds the model takes."""
        kinds = {"float": self.dtype, "integer": tf.int32}
        return {name: tf.cast(inputs[name], kinds[given.dtype]) for name, given in self.graph.inputs.items()}

    def state(self) -> tuple[Tensors, list[Tensor]]:
        """Read the parameters and the moving variables."""
        parameters = {name: tf.convert_to_tensor(variable) for name, variable in self.parameters.items()}
        return parameters, [tf.convert_to_tensor(variable) for variable in self.moving]

    def __call__(
        self,
        inputs: Tensors,
        parameters: Tensors,
        moving: Sequence[Tensor],
        *,
        training: bool,
        step: Tensor,
        model: Any = None,
    ) -> tuple[Any, list[Tensor]]:
        """Return the outputs of the model (or of ``model``) and the moved variables.

        ``step`` keys the dropout masks.
        """
        mapping = [
            *((self.parameters[name], value) for name, value in parameters.items()),
            *zip(self.moving, moving, strict=True),
            *((counter, step) for counter in self.built.counters),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            outputs = (model or self.built.model)(plain_or_named(inputs), training=training)
            return outputs, [scope.get_current_value(variable) for variable in self.moving]

    def named(self, outputs: Any) -> Tensors:
        """Return the built model's outputs by name."""
        return dict(outputs) if len(self.graph.outputs) > 1 else {next(iter(self.graph.outputs)): outputs}
