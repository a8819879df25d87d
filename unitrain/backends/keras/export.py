"""Files that Keras and TensorFlow write of a graph: ``.keras``, SavedModel, and ONNX by Keras' own exporter."""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from unitrain.backends.contract import Arrays, Precision, Settings
from unitrain.backends.keras.activation import (
    LeakyReLU,
    PReLU,
    gelu_exact,
    gelu_tanh,
    hard_sigmoid,
    hard_swish,
    selu,
)
from unitrain.backends.keras.conv import GroupedConv1D, GroupedConv2D
from unitrain.backends.keras.dropout import CounterDropout
from unitrain.backends.keras.model import build_model, plain_or_named
from unitrain.backends.keras.norm import UnscaledRMSNormalization
from unitrain.backends.keras.pool import WindowPooling
from unitrain.backends.keras.registry import KerasLayer, KerasTensor
from unitrain.backends.keras.shape import BilinearUpSampling2D, Pad, Subsample
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]
Runner = Callable[[Arrays], dict[str, Array]]

SIGNATURE = "serving_default"


def write_keras(graph: Graph, weights: Arrays, path: Path, *, precision: Precision = "float32") -> list[str]:
    """Write a ``.keras`` file that loads wherever Keras is, without any code of ours.

    The layers of ours are put into the file as Keras' own, or as operations of ``keras.ops``. The name of the file
    must end in ``.keras``.

    Returns
    -------
    foreign
        Layers in the file that Keras lacks: to load it, ``import unitrain.backends.keras.model`` first.
    """
    model = _standalone(_model(graph, weights, precision))
    keras.saving.save_model(model, path)
    return foreign_layers(path)


def load_keras(path: Path, graph: Graph) -> Runner:
    """Load a ``.keras`` file in safe mode; return a function of one batch: inputs by name to outputs by name."""
    model = keras.saving.load_model(path, compile=False, safe_mode=True)

    def run(inputs: Arrays) -> dict[str, Array]:
        given = model(plain_or_named({name: tf.constant(inputs[name]) for name in graph.inputs}), training=False)
        outputs = given if len(graph.outputs) > 1 else {next(iter(graph.outputs)): given}
        return {name: np.asarray(tensor) for name, tensor in outputs.items()}

    return run


def foreign_layers(path: Path) -> list[str]:
    """Return the registered names in a ``.keras`` file that are ours and not Keras'."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            name = value.get("registered_name")
            if isinstance(name, str) and name.startswith("unitrain>"):
                found.add(name)
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    with zipfile.ZipFile(path) as archive:
        walk(json.loads(archive.read("config.json")))
    return sorted(found)


def write_saved_model(graph: Graph, weights: Arrays, path: Path, *, precision: Precision = "float32") -> None:
    """Write a TensorFlow SavedModel, a folder, whose signature takes inputs and gives outputs by their names."""
    module = _serving(graph, weights, precision)
    with _quiet():
        tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.serve})


def load_saved_model(path: Path, graph: Graph) -> Runner:
    """Load a SavedModel; return a function of one batch: inputs by name to outputs by name."""
    with _quiet():
        loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures[SIGNATURE]

    def run(inputs: Arrays) -> dict[str, Array]:
        # The signature holds its variables only as long as the loaded object lives.
        assert loaded is not None
        outputs = signature(**{name: tf.constant(inputs[name]) for name in graph.inputs})
        return {name: outputs[name].numpy() for name in graph.outputs}

    return run


def write_onnx(graph: Graph, weights: Arrays, path: Path, *, opset: int = 21, precision: Precision = "float32") -> None:
    """Write an ONNX file with Keras' own exporter, ``model.export(format="onnx")``.

    Inputs have the graph's names. Outputs stand in the order of their names, under names that Keras gives.

    Raises
    ------
    InputError
        ``tf2onnx`` is not installed, the precision is not float32, or the exporter cannot write the model.
    """
    if precision != "float32":
        raise InputError(
            "Keras' ONNX exporter writes float32 only", found=precision, hint="leave out --exporter: ours writes both"
        )
    try:
        import tf2onnx  # type: ignore[import-not-found,unused-ignore]  # noqa: F401  # Keras imports it when it exports
    except ModuleNotFoundError:
        raise InputError("Keras' ONNX exporter needs tf2onnx", hint="pip install tf2onnx") from None
    model = _model(graph, weights, precision)
    try:
        with _quiet():
            model.export(
                str(path),
                format="onnx",
                verbose=False,
                input_signature=[plain_or_named(_specs(graph, precision))],
                opset_version=opset,
            )
    except Exception as error:  # tracing and conversion raise errors of many kinds
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"Keras' ONNX exporter cannot write the model '{graph.name}': {reason[:300]}") from error


def _model(graph: Graph, weights: Arrays, precision: Precision) -> Any:
    return build_model(graph, weights, Settings(precision=precision)).model


def _specs(graph: Graph, precision: Precision) -> dict[str, Any]:
    kinds = {"float": precision, "integer": "int32"}
    return {
        name: tf.TensorSpec((None, *given.shape), kinds[given.dtype], name=name) for name, given in graph.inputs.items()
    }


def _serving(graph: Graph, weights: Arrays, precision: Precision) -> Any:
    """Return a module whose ``serve`` takes the inputs by name and gives a dictionary of the outputs."""
    model = _model(graph, weights, precision)
    specs = _specs(graph, precision)

    def serve(*tensors: Any) -> dict[str, Any]:
        given = model(plain_or_named(dict(zip(specs, tensors, strict=True))), training=False)
        outputs = given if len(graph.outputs) > 1 else {next(iter(graph.outputs)): given}
        return {name: tf.identity(tensor) for name, tensor in outputs.items()}

    module = tf.Module()
    module.held = [variable.value for variable in model.variables]
    module.serve = tf.function(serve, input_signature=list(specs.values()), autograph=False)
    return module


# From here on: a model of Keras' own parts.


def _standalone(model: Any) -> Any:
    """Return the same model, over the same weights, with Keras' own parts in the place of ours."""
    for _ in range(8):
        try:
            return keras.models.clone_model(model, clone_function=_own_layer, call_function=_call)
        except ValueError as error:
            # Keras numbers its operations, and a layer may have such a name. The next numbers are others.
            if "unique" not in str(error):
                raise
            failure = error
    raise failure


def _own_layer(layer: KerasLayer) -> KerasLayer:
    """Return the layer itself, or Keras' own of the same meaning in inference, with its weights."""
    kind = _LAYERS.get(type(layer))
    if kind is None:
        return layer
    if kind is keras.layers.Dropout:
        return kind(layer.rate, name=layer.name, dtype=layer.dtype_policy)
    own = kind.from_config(layer.get_config())
    own.build(layer.get_build_config()["input_shape"])
    own.set_weights(layer.get_weights())
    return own


def _call(layer: KerasLayer, *inputs: Any, **options: Any) -> KerasTensor:
    """Apply a layer, or the operations that say what it says."""
    key: Any = layer.activation if type(layer) is keras.layers.Activation else type(layer)
    if key in _OPERATIONS:
        return _OPERATIONS[key](layer, *inputs)
    return layer(*inputs, **options)


def _gelu_exact(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return 0.5 * x * (1.0 + keras.ops.erf(x * float(np.sqrt(0.5))))


def _gelu_tanh(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return 0.5 * x * (1.0 + keras.ops.tanh(float(np.sqrt(2.0 / np.pi)) * (x + 0.044715 * x * x * x)))


def _leaky_relu(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return keras.ops.where(x > 0.0, x, float(layer.negative_slope) * x)


def _unscaled_rms_norm(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    mean = keras.ops.mean(keras.ops.square(x), axis=-1, keepdims=True)
    return x * keras.ops.rsqrt(mean + layer.epsilon)


def _pad(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    amounts = [tuple(pair) for pair in layer.amounts]
    if layer.mode == "constant":
        return keras.ops.pad(x, ((0, 0), *amounts), mode="constant", constant_values=float(layer.value))
    for axis, pads in enumerate(amounts, start=1):
        if any(pads):
            source = np.pad(np.arange(x.shape[axis]), pads, layer.mode)
            x = keras.ops.take(x, source.astype(np.int32), axis=axis)
    return x


def _subsample(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return x[(slice(None), *(slice(None, None, stride) for stride in layer.strides))]


def _bilinear(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    """Interpolate one axis after the other: each new line is a mean of two old ones, edges clamped."""
    for axis, factor in enumerate(layer.factor, start=1):
        size = x.shape[axis]
        place = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.floor(place).astype(np.int32)
        high = np.minimum(low + 1, size - 1).astype(np.int32)
        share = (place - low).astype(layer.compute_dtype).reshape(-1, *([1] * (3 - axis)))
        x = keras.ops.take(x, low, axis=axis) * (1 - share) + keras.ops.take(x, high, axis=axis) * share
    return x


def _window_pooling(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    """Pool by joining, for each place in the window, the elements that stand there."""
    sizes = x.shape[1:-1]
    fill = 0.0 if layer.average else -np.inf
    pads = ((0, 0), *(tuple(pair) for pair in layer.padding), (0, 0))
    padded = keras.ops.pad(x, pads, mode="constant", constant_values=fill)
    counts = []
    for size, (before, after), window, spread, stride in zip(
        sizes, layer.padding, layer.pool_size, layer.dilation, layer.strides, strict=True
    ):
        counts.append((size + before + after - (window - 1) * spread - 1) // stride + 1)
    joined: Any = None
    for place in product(*(range(window) for window in layer.pool_size)):
        taken = padded[
            (
                slice(None),
                *(
                    slice(at * spread, at * spread + (count - 1) * stride + 1, stride)
                    for at, spread, count, stride in zip(place, layer.dilation, counts, layer.strides, strict=True)
                ),
            )
        ]
        if joined is not None:
            taken = joined + taken if layer.average else keras.ops.maximum(joined, taken)
        joined = taken
    if not layer.average:
        return joined
    share = layer._share(sizes) / float(np.prod(layer.pool_size))
    return joined * np.asarray(share, dtype=layer.compute_dtype)


_LAYERS: dict[type, Any] = {
    CounterDropout: keras.layers.Dropout,
    GroupedConv1D: keras.layers.Conv1D,
    GroupedConv2D: keras.layers.Conv2D,
    PReLU: keras.layers.PReLU,
}
"""Layers of ours to Keras' own of the same arguments and weights. In training these differ: see the layers."""

_OPERATIONS: dict[Any, Callable[..., KerasTensor]] = {
    selu: lambda layer, x: keras.ops.selu(x),
    gelu_exact: _gelu_exact,
    gelu_tanh: _gelu_tanh,
    hard_sigmoid: lambda layer, x: keras.ops.relu6(x + 3.0) * (1.0 / 6.0),
    hard_swish: lambda layer, x: x * (keras.ops.relu6(x + 3.0) * (1.0 / 6.0)),
    LeakyReLU: _leaky_relu,
    UnscaledRMSNormalization: _unscaled_rms_norm,
    Pad: _pad,
    Subsample: _subsample,
    BilinearUpSampling2D: _bilinear,
    WindowPooling: _window_pooling,
}
"""Layers without weights, and functions of ``Activation`` layers, to the operations that say the same."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what TensorFlow and its exporters tell of their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
