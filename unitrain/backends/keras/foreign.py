"""A user's ``keras.Model``, taken apart by way of the TensorFlow graph that one call of it makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitrain.backends.foreign import (
    Array,
    ForeignParameter,
    Operation,
    Ran,
    Role,
    Trace,
    blocks,
    float32,
    in_order_of_use,
    output_names,
    second_bias,
)
from unitrain.spec.errors import InputError

# What ``call`` may take beside its inputs.
_OPTIONS = ("training", "mask", "args", "kwargs")
_READS = ("ReadVariableOp",)
_ASSIGNS = ("AssignVariableOp",)
_CHANCE = ("Random", "StatelessRandom", "StatelessTruncated", "StatelessMultinomial", "Multinomial")

_ROLES: dict[str, Role] = {
    "kernel": "kernel",
    "depthwise_kernel": "depthwise_kernel",
    "pointwise_kernel": "pointwise_kernel",
    "bias": "bias",
    "gamma": "scale",
    "scale": "scale",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_variance",
    "embeddings": "table",
    "alpha": "slope",
}
_AXES: dict[str, str] = {
    "Dense": "io",
    "Conv1D": "wio",
    "Conv2D": "hwio",
    "Conv3D": "thwio",
    "DepthwiseConv1D": "wcm",
    "DepthwiseConv2D": "hwcm",
    "Conv1DTranspose": "woi",
    "Conv2DTranspose": "hwoi",
    "Embedding": "vd",
}
_SEPARABLE = {"SeparableConv1D": ("wcm", "wio"), "SeparableConv2D": ("hwcm", "hwio")}


# Gates of Keras' cells in its order of columns, where the cell's own is called c and the candidate's h.
_GATES = {"LSTMCell": "ifgo", "GRUCell": "zrn", "GRUCellOfVectors": "zrn", "SimpleRNNCell": "h"}


def _recurrent(kind: str, last: str, rank: int) -> tuple[str, ...]:
    """Return what stands in a variable of a recurrent layer's cell; nothing for one of another layer."""
    gates = _GATES.get(kind)
    if gates is None:
        return ()
    if last == "bias" and rank == 2:
        return blocks("bias", gates) + second_bias(gates)
    if last == "candidate_bias":
        return blocks("recurrent_bias", "n")
    local = {"recurrent_kernel": "recurrent", "input_bias": "bias"}.get(last, last)
    return blocks(local, gates)


@dataclass(frozen=True)
class _Section:
    """Numbers of the tensors that are fed, of those whose gradients are given, and by which to differentiate."""

    feeds: tuple[int, ...]
    seeds: tuple[int, ...]
    by: tuple[int, ...]


@dataclass
class _Recorded:
    """The graph of one call.

    Parameters
    ----------
    graph, session
        The graph, and what runs any part of it: every tensor can be fed.
    tensors
        By number.
    reads
        Number to variable name, of the tensors that hold variables.
    moves
        Variable name to the number of the tensor that is assigned to it, and the scope of the layer that does it.
    gradients
        What was added to the graph so far, by section.
    """

    graph: Any
    session: Any
    tensors: list[Any]
    reads: dict[int, str]
    moves: dict[str, tuple[int, str]]
    gradients: dict[_Section, tuple[list[Any], list[Any]]] = field(default_factory=dict)


class KerasModel:
    """`backends.foreign.Foreign` of a ``keras.Model``: sequential, functional or subclassed.

    Raises
    ------
    ValueError
        It holds parameters that are not float32.
    """

    label = "keras model"
    backend = "keras"
    trains = True
    channels_first: bool | None = False

    def __init__(self, model: Any) -> None:
        self.model = model
        self.input_names = _input_names(model)
        self._variables: dict[str, Any] = {}
        self._owners: dict[str, tuple[str, str, str]] = {}

    def _learn(self) -> None:
        """Look at the variables; a subclassed model has none before its first call."""
        layers = {id(variable): layer for layer in self.model._flatten_layers() for variable in _own(layer)}
        prefix = f"{self.model.name}/"
        for variable in self.model.variables:
            if not str(variable.dtype).startswith(("float", "bfloat")):
                continue
            name = str(variable.path).removeprefix(prefix)
            while name in self._variables and self._variables[name] is not variable:
                name += "'"
            float32(name, np.empty(0, "float16" if variable.dtype == "bfloat16" else variable.dtype))
            self._variables[name] = variable
            layer = layers.get(id(variable))
            kind = type(layer).__name__ if layer is not None else ""
            self._owners[name] = (name.rpartition("/")[0], kind, name.rpartition("/")[2].rstrip("'"))

    def arrays(self) -> dict[str, Array]:
        """Copy out all variables of kind float."""
        return {name: np.array(variable.numpy()) for name, variable in self._variables.items()}

    def record(self, inputs: Mapping[str, Array] | Sequence[Array], *, training: bool) -> Trace:
        """Make the graph of one call for these shapes."""
        arrays = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        arguments = self._called(inputs)
        taken: list[str] = []

        def call(*tensors: Any) -> list[Any]:
            result = self.model(*arguments(tensors), training=training)
            named = result if isinstance(result, Mapping) else None
            flat = list(named.values()) if named is not None else tf.nest.flatten(result)
            known = list(getattr(self.model, "output_names", None) or [])
            taken[:] = list(named) if named is not None else known if len(known) == len(flat) else []
            return [tf.convert_to_tensor(tensor) for tensor in flat]

        if not self.model.built or not self._variables:
            before = [np.array(variable.numpy()) for variable in self.model.variables]
            call(*(tf.constant(_narrow(array)) for array in arrays))
            for variable, value in zip(self.model.variables, before, strict=False):
                variable.assign(value)
        self._learn()
        specs = [tf.TensorSpec(array.shape, _narrow(array).dtype) for array in arrays]
        eager = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)  # so that functions inside the model stand open in the graph
        try:
            with _nothing_dropped(self.model) as rates, _unrolled(self.model), tf.device("/CPU:0"):
                function = tf.compat.v1.wrap_function(call, specs)
        finally:
            tf.config.run_functions_eagerly(eager)
        return self._trace(function, len(arrays), taken, training, tuple(rates))

    def _called(self, inputs: Mapping[str, Array] | Sequence[Array]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
        """Return how the model is called on tensors: with which positional arguments."""
        if isinstance(inputs, Mapping):
            names = list(inputs)
            if isinstance(getattr(self.model, "_inputs_struct", {}), Mapping):
                return lambda tensors: (dict(zip(names, tensors, strict=True)),)
            order = [names.index(name) for name in self.input_names]
            return lambda tensors: ([tensors[place] for place in order],)
        arguments = [name for name in inspect.signature(self.model.call).parameters if name not in _OPTIONS]
        if len(inputs) > 1 and len(arguments) >= len(inputs):
            return tuple
        return lambda tensors: (tensors[0] if len(tensors) == 1 else list(tensors),)

    def _trace(self, function: Any, count: int, taken: list[str], training: bool, rates: tuple[float, ...]) -> Trace:
        graph = function.graph
        names = {variable.value.handle._id: name for name, variable in self._variables.items()}
        handles = {
            inner.name: names[outer._id]
            for outer, inner in graph.captures
            if outer.dtype == tf.resource and getattr(outer, "_id", None) in names
        }
        tensors: list[Any] = []
        numbers: dict[str, int] = {}
        operations, reads, moves = [], {}, {}
        draws = False
        for operation in graph.get_operations():
            outputs = []
            for tensor in operation.outputs:
                numbers[tensor.name] = len(tensors)
                outputs.append(len(tensors))
                tensors.append(tensor)
            used = tuple(handles[tensor.name] for tensor in operation.inputs if tensor.name in handles)
            if operation.type in _READS and used:
                reads[outputs[0]] = used[0]
            if operation.type in _ASSIGNS and used:
                moves[used[0]] = numbers[operation.inputs[1].name], str(operation.name).rpartition("/")[0]
            if operation.type == "Placeholder":
                continue
            draws = draws or operation.type.startswith(_CHANCE)
            inputs = [numbers[tensor.name] for tensor in operation.inputs if tensor.name not in handles]
            owner = str(operation.name).rpartition("/")[0]
            operations.append(Operation(operation.type, owner, tuple(dict.fromkeys(inputs)), tuple(outputs), used))
        shapes = {number: _shape(tensor) for number, tensor in enumerate(tensors)}
        flat = [numbers[tensor.name] for tensor in function.outputs]
        return Trace(
            tuple(operations),
            shapes,
            tuple(numbers[tensor.name] for tensor in function.inputs[:count]),
            dict(zip(taken or output_names(len(flat)), flat, strict=True)),
            training,
            rates,
            draws,
            _Recorded(graph, _session(graph), tensors, reads, moves),
        )

    def parameters(self, trace: Trace) -> tuple[ForeignParameter, ...]:
        """Describe the variables by the layers that own them."""
        found = []
        trained = {id(variable) for variable in self.model.trainable_variables}
        for name, variable in self._variables.items():
            owner, kind, last = self._owners[name]
            role = _ROLES.get(last, "")
            shape = tuple(variable.shape)
            axes = "c" if len(shape) == 1 else _AXES.get(kind, "") if role in ("kernel", "table") else ""
            if kind in _SEPARABLE and role in ("depthwise_kernel", "pointwise_kernel"):
                axes = _SEPARABLE[kind][role == "pointwise_kernel"]
            learns = id(variable) in trained or role not in ("running_mean", "running_variance")
            stand = _recurrent(kind, last, len(shape))
            if stand:
                role, axes = "", "io" if last.endswith("kernel") else ""
            frozen = learns and id(variable) not in trained
            found.append(ForeignParameter(name, shape, owner, kind, role, axes, learns, stand, frozen))
        return in_order_of_use(trace, found)

    def run(
        self,
        trace: Trace,
        feeds: Mapping[int, Array],
        fetches: Sequence[int],
        upstream: Mapping[int, Array] | None = None,
    ) -> Ran:
        """Run a part of the graph; variables are fed like the tensors."""
        recorded: _Recorded = trace.recorded
        chosen, missing = trace.section(feeds, fetches)
        if missing:
            raise ValueError("the section needs tensors that are not fed")
        moves = {
            name: number
            for name, (number, scope) in recorded.moves.items()
            if any(f"{trace.operations[place].owner}/".startswith(f"{scope}/") for place in chosen)
            and not trace.section(feeds, [number])[1]
        }
        inner, _ = trace.section(feeds, [*fetches, *moves.values()])
        produced = {number for place in inner for number in trace.operations[place].outputs}
        read = {number: name for number, name in recorded.reads.items() if number in produced}
        values = {number: self._variables[name].numpy() for number, name in read.items()}
        given = {**{number: _narrow(array) for number, array in feeds.items()}, **values}
        wanted = [number for number in dict.fromkeys([*fetches, *moves.values()]) if number not in given]
        seeds = {number: _narrow(array) for number, array in (upstream or {}).items()}
        floats = [number for number, array in given.items() if array.dtype.kind == "f"]
        section = _Section(tuple(given), tuple(seeds), tuple(floats if seeds else ()))
        placeholders, gradients = self._gradients(recorded, section)
        tensors = recorded.tensors
        fed = {tensors[number].name: array for number, array in given.items()}
        fed |= {placeholder.name: array for placeholder, array in zip(placeholders, seeds.values(), strict=True)}
        found = recorded.session.run([*(tensors[number] for number in wanted), *gradients], fed)
        arrays = [np.asarray(array) for array in found]
        results = {**given, **dict(zip(wanted, arrays[: len(wanted)], strict=True))}
        by_number = dict(zip(section.by, arrays[len(wanted) :], strict=True))
        by_parameter: dict[str, Array] = {}
        for number, name in read.items():
            if number in by_number:  # a variable may be read at several places
                by_parameter[name] = by_parameter.get(name, np.float32(0.0)) + by_number[number]
        return Ran(
            {number: results[number] for number in fetches},
            {number: by_number[number] for number in feeds if number in by_number},
            by_parameter,
            {name: results[number] for name, number in moves.items()},
        )

    def _gradients(self, recorded: _Recorded, section: _Section) -> tuple[list[Any], list[Any]]:
        """Return tensors for the given gradients, and the gradients that follow from them; made at the first call."""
        if section not in recorded.gradients:
            tensors = recorded.tensors
            with recorded.graph.as_default(), tf.device("/CPU:0"):
                seeds = [tf.compat.v1.placeholder(tensors[n].dtype, tensors[n].shape) for n in section.seeds]
                found = tf.gradients(
                    [tensors[number] for number in section.seeds],
                    [tensors[number] for number in section.by],
                    seeds,
                    stop_gradients=[tensors[number] for number in section.feeds],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                recorded.gradients[section] = seeds, [tf.convert_to_tensor(gradient) for gradient in found]
        return recorded.gradients[section]


def _session(graph: Any) -> Any:
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    # As it was written: no operation is joined with another.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.compat.v1.Session(graph=graph, config=config)


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape.rank is None else tuple(tensor.shape.as_list())


def _own(layer: Any) -> list[Any]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _input_names(model: Any) -> tuple[str, ...]:
    try:
        return tuple(str(tensor.name) for tensor in model.inputs or ())
    except (AttributeError, ValueError):
        return ()  # a subclassed model before its first call


@contextmanager
def _nothing_dropped(model: Any) -> Iterator[list[float]]:
    """Set the rates of all dropout layers to 0 for a while, and give those that they had."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
    rates = [layer.rate for layer in layers]
    for layer in layers:
        layer.rate = 0.0
    try:
        yield [float(rate) for rate in rates]
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.rate = rate


@contextmanager
def _unrolled(model: Any) -> Iterator[None]:
    """Let recurrent layers write down every step for a while: a loop of TensorFlow's cannot be fed its variables."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    before = [layer.unroll for layer in layers]
    for layer in layers:
        layer.unroll = True
    try:
        yield
    finally:
        for layer, unroll in zip(layers, before, strict=True):
            layer.unroll = unroll


def _narrow(array: Array) -> Array:
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def wrap(model: Any) -> KerasModel:
    """Take a user's model. Raises `InputError` where it cannot be compared."""
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"Keras runs on {keras.backend.backend()} here", hint="set KERAS_BACKEND=tensorflow")
    return KerasModel(model)
