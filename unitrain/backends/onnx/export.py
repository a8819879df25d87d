"""ONNX files: writing them, putting in order those that other exporters wrote, and running one again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, checker

from unitrain.backends.contract import Arrays, Precision
from unitrain.backends.onnx.model import DEFAULT_OPSET, emit
from unitrain.backends.onnx.preprocessing import Preprocessing
from unitrain.backends.onnx.program import FLOATS, _threads
from unitrain.backends.onnx.surroundings import with_preprocessing
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]


def write_onnx(
    graph: Graph,
    weights: Arrays,
    path: Path,
    *,
    opset: int = DEFAULT_OPSET,
    precision: Precision = "float32",
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write a graph as our own emitter does, with the preprocessing of its data in front where one is given.

    Raises
    ------
    InputError
        As `emit` and `with_preprocessing` do.
    """
    model = emit(graph, weights, opset=opset, precision=precision)
    if preprocessing is not None:
        model = with_preprocessing(model, graph, preprocessing, precision)
    onnx.save_model(model, str(path))


def put_in_order(path: Path, graph: Graph, outputs: Sequence[str], opset: int) -> None:
    """Give another exporter's file the graph's names, take out what it tells of the machine, and check it.

    Parameters
    ----------
    outputs
        Names of the graph's outputs in the order in which the exporter has them.
    opset
        What was asked for.

    Raises
    ------
    InputError
        The exporter wrote another opset, other inputs, or a file that is no sound model.
    """
    model = onnx.load(str(path))
    written = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if written != opset:
        raise InputError("the exporter cannot write this opset", found=str(opset), allowed=str(written))
    found = [given.name for given in model.graph.input]
    if sorted(found) != sorted(graph.inputs):
        raise InputError(
            "the exporter changed the inputs", found=", ".join(found) or "none", allowed=", ".join(graph.inputs)
        )
    _rename_outputs(model, outputs)
    _name_batch(model)
    _forget_the_machine(model)
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"the exporter wrote an unsound model: {reason}") from None
    # Weights that the exporter put beside the file come into it: one export is one file.
    beside = path.with_name(path.name + ".data")
    onnx.save_model(model, str(path), save_as_external_data=False)
    beside.unlink(missing_ok=True)


def load_onnx(
    path: Path, outputs: Sequence[str], *, entries: Sequence[tuple[str, str]] = (FLOATS,)
) -> Callable[[Arrays], dict[str, Array]]:
    """Load a file into onnxruntime; return a function of one batch: inputs by name to the named outputs.

    ``entries`` are those of the session's configuration. By default it computes in floats what the file rounds to the
    levels of integers.

    Raises
    ------
    InputError
        onnxruntime cannot run it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3
    for entry in entries:
        options.add_session_config_entry(*entry)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds of error have no common class
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"onnxruntime {onnxruntime.__version__} cannot run the model: {reason}",
            hint="a lower opset may do, or a newer onnxruntime",
        ) from None
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Arrays) -> dict[str, Array]:
        given = session.run(list(outputs), {name: np.ascontiguousarray(inputs[name]) for name in names})
        return dict(zip(outputs, given, strict=True))

    return run


def _rename_outputs(model: ModelProto, outputs: Sequence[str]) -> None:
    """Name the outputs; a tensor inside that has such a name gets another."""
    found = [output.name for output in model.graph.output]
    if len(found) != len(outputs):
        raise InputError("the exporter changed the outputs", found=", ".join(found), allowed=", ".join(outputs))
    names = {old: new for old, new in zip(found, outputs, strict=True) if old != new}
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in (*model.graph.initializer, *model.graph.input)}
    for name in {*names.values()} & taken - names.keys():
        names[name] = next(new for n in range(1, len(taken) + 2) if (new := f"{name}_{n}") not in taken)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for named in (*model.graph.output, *model.graph.value_info, *model.graph.initializer):
        named.name = names.get(named.name, named.name)


def _name_batch(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and not dimensions[0].HasField("dim_value"):
            dimensions[0].dim_param = "batch"


def _forget_the_machine(model: ModelProto) -> None:
    """Take out traces of source files, which hold paths of the machine that exported."""
    parts: list[Any] = [model, model.graph, *model.functions]
    for part in list(parts):
        parts += [*getattr(part, "node", ()), *getattr(part, "input", ()), *getattr(part, "output", ())]
        parts += [*getattr(part, "value_info", ()), *getattr(part, "initializer", ())]
    for part in parts:
        if hasattr(part, "doc_string"):
            part.ClearField("doc_string")
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
