"""How Keras and TensorFlow are timed: TensorFlow's functions, its tape in a compiled function, the model's modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from unitrain.backends.contract import Arrays, Settings
from unitrain.backends.keras import GPUS
from unitrain.backends.keras.call import Call as ModelCall
from unitrain.backends.keras.call import compiled
from unitrain.backends.keras.model import build_model, device_name
from unitrain.backends.toolkit import Call
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "matmul": tf.linalg.matmul,
    "batched matmul": tf.linalg.matmul,
    "add": tf.add,
    "subtract": tf.subtract,
    "multiply": tf.multiply,
    "exp": tf.exp,
    "sum": lambda x: tf.reduce_sum(x, axis=-1),
    "softmax": tf.nn.softmax,
    "convolution": lambda x, kernel: tf.nn.conv2d(x, kernel, strides=1, padding="VALID"),
}


class KerasToolkit:
    """`toolkit.Toolkit` for Keras on TensorFlow."""

    name = "keras"
    modes: Mapping[str, str] = {
        "function": "tf.function of the model",
        "call": "a call of the keras.Model, not compiled",
        "xla": "tf.function with jit_compile=True",
    }

    def prepare(self, threads: int) -> int:
        """Set the threads, as long as TensorFlow has not begun to compute, and full float32 on GPUs.

        It leaves memory of the GPUs to the other frameworks, and takes what it needs.
        """
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError:
            pass  # its pools stand already: what it has is said below
        return int(tf.config.threading.get_intra_op_parallelism_threads()) or threads

    def wait(self, device: str) -> None:
        """Synchronise with GPUs; on the CPU a result that can be read is there."""
        if device != "cpu":
            tf.test.experimental.sync_devices()

    def device_memory(self, device: str) -> int | None:
        """Return the most bytes that TensorFlow's allocator has given out on a GPU since the last call."""
        if device == "cpu":
            return None
        name = device_name(device).lstrip("/")
        peak = int(tf.config.experimental.get_memory_info(name)["peak"])
        tf.config.experimental.reset_memory_stats(name)
        return peak

    def operation(self, name: str, operands: Sequence[Array], device: str) -> Call | None:
        """Prepare one of `toolkit.OPERATIONS`, run eagerly."""
        function = _FUNCTIONS[name]
        with tf.device(device_name(device)):
            tensors = [tf.constant(operand) for operand in operands]
        return Call(_on(device, lambda: function(*tensors)), lambda result: {"result": result.numpy()})

    def gradient(
        self,
        graph: Graph,
        weights: Arrays,
        settings: Settings,
        inputs: Arrays,
        output_gradients: Arrays,
        *,
        by_inputs: bool,
    ) -> Call | None:
        """Prepare ``tf.GradientTape`` in a ``tf.function``, as training runs it."""
        built = build_model(graph, weights, settings)
        with tf.device(device_name(settings.device)):
            call = ModelCall(graph, built, tf.as_dtype(settings.precision))
            prepared = call.prepare({name: tf.constant(array) for name, array in inputs.items()})
            seeds = {name: tf.constant(array, call.dtype) for name, array in output_gradients.items()}
        names = [name for name, given in graph.inputs.items() if by_inputs and given.dtype == "float"]

        def differentiate(given: Any, upstream: Any) -> Any:
            parameters, moving = call.state()
            watched = {name: given[name] for name in names}
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch((watched, parameters))
                found, _ = call(given, parameters, moving, training=True, step=tf.constant(0, tf.int64))
                outputs = call.named(found)
            by_input, by_parameter = tape.gradient(
                [outputs[name] for name in upstream], (watched, parameters), output_gradients=list(upstream.values())
            )
            return {f"input {name}": value for name, value in by_input.items()}, _dense(by_parameter)

        kinds = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), [prepared, seeds])
        function = compiled(differentiate, kinds)

        def read(found: Any) -> Arrays:
            by_input, by_parameter = found
            canonical = {name: built.bindings[name].to_canonical(value.numpy()) for name, value in by_parameter.items()}
            return {**{name: value.numpy() for name, value in by_input.items()}, **canonical}

        return Call(_on(settings.device, lambda: function(prepared, seeds)), read)

    def inference(self, graph: Graph, weights: Arrays, settings: Settings, mode: str, inputs: Arrays) -> Call:
        """Prepare the model, called or compiled."""
        built = build_model(graph, weights, settings)
        call = ModelCall(graph, built, tf.as_dtype(settings.precision))
        model = built.model
        if mode != "call":
            kinds = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), model.input)
            model = tf.function(
                lambda given: built.model(given, training=False),
                input_signature=[kinds],
                autograph=False,
                jit_compile=mode == "xla",
            )
            model._omit_frequent_tracing_warning = True
        if mode == "xla":
            _try(model, call.prepare(inputs))

        def run() -> dict[str, Array]:
            found = model(_plain(call.prepare(inputs)))
            return {name: np.asarray(value) for name, value in call.named(found).items()}

        return Call(_on(settings.device, run), lambda result: result)


def _try(model: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Call a model that XLA is to compile. Raises `InputError` where XLA cannot."""
    try:
        model(_plain(given))
    except tf.errors.OpError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"XLA cannot compile this here: {type(error).__name__}: {reason}") from None


def _plain(given: Mapping[str, Any]) -> Any:
    return next(iter(given.values())) if len(given) == 1 else dict(given)


def _dense(gradients: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what nothing depends on; gradients of embeddings are made dense, as optimizers here take them."""
    return {name: tf.convert_to_tensor(value) for name, value in gradients.items() if value is not None}


def _on(device: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """Say where to compute. Without a GPU there is no choice, and saying it would cost more than a small operation."""
    if not GPUS:
        return run

    def placed() -> Any:
        with tf.device(device_name(device)):
            return run()

    return placed


TOOLKIT = KerasToolkit()
