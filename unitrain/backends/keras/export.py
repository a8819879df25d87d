"""Files that Keras and TensorFlow write of a graph: ``.keras``, SavedModel, and ONNX by Keras' own exporter."""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from unitrain.backends.contract import Arrays, Precision, Settings
from unitrain.backends.keras.model import build_model, plain_or_named
from unitrain.backends.keras.standalone import standalone
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
    model = standalone(_model(graph, weights, precision))
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


def write_onnx(graph: Graph, weights: Arrays, path: Path, *, opset: int = 18, precision: Precision = "float32") -> None:
    """Write an ONNX file with Keras' own exporter, ``model.export(format="onnx")``.

    Inputs have the graph's names. Outputs stand in the order of their names, under names that Keras gives. tf2onnx,
    by which Keras goes, knows no opset above 18.

    Raises
    ------
    InputError
        ``tf2onnx`` is not installed, the precision is not float32, or the exporter cannot write the model.
    """
    if precision != "float32":
        raise InputError(
            "Keras' ONNX exporter writes float32 only", found=precision, hint="leave out --exporter: ours writes both"
        )
    if find_spec("tf2onnx") is None:
        raise InputError("Keras' ONNX exporter needs tf2onnx", hint="pip install tf2onnx")
    # tf2onnx knows a counterpart for more of Keras' operations than of ours, and none of its grouped convolutions.
    model = standalone(_model(graph, weights, precision), lambda layer: layer)
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
