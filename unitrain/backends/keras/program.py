"""A graph compiled for training and inference with TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from unitrain.backends.contract import Arrays, Batchable, Plan, Settings, Statistics
from unitrain.backends.indices import check_indices
from unitrain.backends.keras.call import Call, compiled
from unitrain.backends.keras.model import build_model, device_name, load
from unitrain.backends.keras.runtime import tensor_float32
from unitrain.backends.keras.training import Placed, Training
from unitrain.backends.precision import host_dtype, stored_in
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph

Array = npt.NDArray[Any]


class KerasProgram:
    """`contract.Program` in TensorFlow; ``model`` is the functional ``keras.Model`` that holds the weights.

    Parameters
    ----------
    graph, weights, settings, rule
        As for `contract.Backend.compile`.
    """

    def __init__(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> None:
        self.graph = graph
        self._built = build_model(graph, weights, settings)
        self.model = self._built.model
        self._device = device_name(settings.device)
        self._dtype = tf.as_dtype(stored_in(settings.precision))
        self._tf32 = settings.tf32
        self._call = Call(graph, self._built, self._dtype)
        self._tapped: Any = None
        self._inference: Callable[..., Any] | None = None
        with self._placed():
            self._training = None if rule is None else Training(self._call, rule, settings.execution)

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """Compute on the program's device, with TensorFloat-32 or without."""
        with tf.device(self._device), tensor_float32(self._tf32):
            yield

    def weights(self) -> dict[str, Array]:
        """Copy out all parameters, running statistics included, canonical names and layouts."""
        bindings = self._built.bindings
        return {name: bindings[name].to_canonical(_read(bindings[name].variable)) for name in self.graph.parameters}

    def load_weights(self, weights: Arrays) -> None:
        """Take over all parameters; gradients accumulated so far belong to the old ones and are dropped."""
        load(self._built.bindings, weights)
        if self._training:
            self._training.forget_gradients()

    def slots(self) -> dict[str, dict[str, Array]]:
        """Copy out the optimizer state: ``{slot: {parameter: array}}``, canonical layouts."""
        slots = self._training.slots if self._training else {}
        return {
            slot: {
                name: self._built.bindings[name].to_canonical(_read(variable)) for name, variable in variables.items()
            }
            for slot, variables in slots.items()
        }

    def load_slots(self, slots: Mapping[str, Arrays]) -> None:
        """Take over the optimizer state (canonical)."""
        for slot, variables in (self._training.slots if self._training else {}).items():
            for name, variable in variables.items():
                variable.assign(self._built.bindings[name].to_keras(slots[slot][name]))

    def place(self, data: Batchable) -> Placed:
        """Copy a data set to the device once.

        Raises
        ------
        InputError
            An index is outside the table of an embedding it reaches.
        """
        check_indices(self.graph, data.inputs)
        with self._placed():
            return Placed(
                {name: tf.constant(self._stored(data.inputs[name])) for name in self.graph.inputs},
                {name: tf.constant(self._target(array)) for name, array in data.targets.items()},
                () if data.weight is None else (tf.constant(data.weight, self._dtype),),
            )

    def _stored(self, array: Array) -> Array:
        """Keep integers as they are (images of bytes stay small), bring floats into the working precision."""
        return array.astype(self._dtype.as_numpy_dtype, copy=False) if array.dtype.kind == "f" else array

    def _target(self, array: Array) -> Array:
        return self._stored(array) if array.dtype.kind == "f" else array.astype(np.int32, copy=False)

    def run_steps(self, placed: Placed, plan: Plan) -> Statistics:
        """Train for the planned steps, up to the first whose loss is not finite; that one is not applied."""
        if self._training is None:
            raise ValueError("the program was compiled without a training rule")
        with self._placed():
            return self._training.run(placed, plan)

    def predict(self, inputs: Arrays, batch_size: int = 256) -> dict[str, Array]:
        """Run inference in chunks of ``batch_size``; outputs keyed by graph output name.

        Raises
        ------
        InputError
            An index is outside the table of an embedding it reaches.
        """
        check_indices(self.graph, inputs)
        samples = len(next(iter(inputs.values())))
        if samples == 0:
            return {
                output: np.empty((0, *self.graph.shape(name)), host_dtype(self._dtype.name))
                for output, name in self.graph.outputs.items()
            }
        run = self._inference or self._compile_inference()
        with self._placed():
            chunks = [
                run(self._call.prepare({name: inputs[name][first : first + batch_size] for name in self.graph.inputs}))
                for first in range(0, samples, batch_size)
            ]
        return {name: np.concatenate([_read(chunk[name]) for chunk in chunks]) for name in self.graph.outputs}

    def _compile_inference(self) -> Callable[..., Any]:
        def infer(inputs: Any) -> Any:
            parameters, moving = self._call.state()
            outputs, _ = self._call(inputs, parameters, moving, training=False, step=tf.constant(0, tf.int64))
            return self._call.named(outputs)

        kinds = {
            name: tf.TensorSpec([None, *given.shape], self._dtype if given.dtype == "float" else tf.int32)
            for name, given in self.graph.inputs.items()
        }
        with self._placed():  # it is traced here
            self._inference = compiled(infer, [kinds])
        return self._inference

    def activations(self, inputs: Arrays, *, training: bool = False, step: int = 0) -> dict[str, Array]:
        """Return the output of every node for one batch, in the spec's layout. Changes no state."""
        check_indices(self.graph, inputs)
        if self._tapped is None:
            self._tapped = keras.Model(self.model.input, self._built.tensors, name=self.model.name)
        with self._placed():
            outputs, _ = self._call(
                self._call.prepare(inputs),
                *self._call.state(),
                training=training,
                step=tf.constant(step, tf.int64),
                model=self._tapped,
            )
        return {node.name: _read(outputs[node.name]) for node in self.graph.nodes}

    def differentiate(
        self, inputs: Arrays, output_gradients: Arrays, *, training: bool = True, step: int = 0
    ) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Return outputs, gradients by float inputs and by trainable parameters. Changes no state."""
        check_indices(self.graph, inputs)
        with self._placed():
            prepared = self._call.prepare(inputs)
            watched = {name: prepared[name] for name, given in self.graph.inputs.items() if given.dtype == "float"}
            parameters, moving = self._call.state()
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch((watched, parameters))
                results, _ = self._call(
                    prepared, parameters, moving, training=training, step=tf.constant(step, tf.int64)
                )
                outputs = self._call.named(results)
            by_input, by_parameter = tape.gradient(
                [outputs[name] for name in output_gradients],
                (watched, parameters),
                output_gradients=[tf.constant(array, self._dtype) for array in output_gradients.values()],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
        bindings = self._built.bindings
        return (
            {name: _read(value) for name, value in outputs.items()},
            {name: _read(value) for name, value in by_input.items()},
            {name: bindings[name].to_canonical(_read(value)) for name, value in by_parameter.items()},
        )


def _read(tensor: Any) -> Array:
    """Copy a tensor or variable to the host: sparse gradients become dense, numbers of 16 bits float32."""
    dense = tf.convert_to_tensor(tensor)
    array: Array = (tf.cast(dense, tf.float32) if dense.dtype in (tf.float16, tf.bfloat16) else dense).numpy()
    return array
