"""Files that torch writes of a graph: a ``torch.export`` program (.pt2), and ONNX by torch's own exporter."""

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

import numpy as np
import numpy.typing as npt
import torch

from unitrain.backends.contract import Arrays, Precision, Settings
from unitrain.backends.torch.module import GraphModule
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]


def write_program(graph: Graph, weights: Arrays, path: Path, *, precision: Precision = "float32") -> None:
    """Write a ``torch.export`` program for inference, with a batch of any size.

    The file holds no pickled object: weights lie in it as plain bytes, the program as JSON. It is called as
    ``torch.export.load(path).module()(x)``, several inputs in the graph's order; several outputs are a dictionary.

    Raises
    ------
    InputError
        torch cannot trace the model.
    """
    module = GraphModule(graph, weights, Settings(precision=precision)).eval()
    with _quiet(), _blamed("torch.export", graph):
        program = torch.export.export(module, _examples(graph, precision), dynamic_shapes=_dynamic(graph))
    # The examples are the one part that would be pickled.
    program._example_inputs = None
    with path.open("wb") as handle:
        torch.export.save(program, handle)


def load_program(path: Path, graph: Graph) -> Callable[[Arrays], dict[str, Array]]:
    """Load a written program; return a function of one batch: inputs by name to outputs by name.

    Raises
    ------
    InputError
        The file holds pickled objects, which are not loaded.
    """
    _refuse_pickles(path)
    with path.open("rb") as handle:
        module = torch.export.load(handle).module()

    def run(inputs: Arrays) -> dict[str, Array]:
        with torch.no_grad():
            given = module(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in graph.inputs))
        outputs = given if isinstance(given, dict) else {next(iter(graph.outputs)): given}
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return run


def write_onnx(graph: Graph, weights: Arrays, path: Path, *, opset: int = 21, precision: Precision = "float32") -> None:
    """Write an ONNX file with ``torch.onnx.export``, by way of ``torch.export``; the batch has any size.

    Raises
    ------
    InputError
        ``onnxscript`` is not installed, or torch's exporter cannot write the model.
    """
    if find_spec("onnxscript") is None:
        raise InputError("torch's ONNX exporter needs onnxscript", hint="pip install onnxscript")
    module = GraphModule(graph, weights, Settings(precision=precision)).eval()
    with _quiet(), _blamed("torch.onnx.export", graph):
        program = torch.onnx.export(
            module,
            _examples(graph, precision),
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=_dynamic(graph),
            opset_version=opset,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("it gave no program")
        program.save(path)


def _examples(graph: Graph, precision: Precision) -> tuple[torch.Tensor, ...]:
    """Make inputs to trace with. A batch of 0 or 1 would be taken for a constant."""
    kinds = {"float": getattr(torch, precision), "integer": torch.int32}
    return tuple(torch.zeros(3, *given.shape, dtype=kinds[given.dtype]) for given in graph.inputs.values())


def _dynamic(graph: Graph) -> dict[str, Any]:
    batch = torch.export.Dim("batch")
    # The module takes its inputs as ``*inputs``.
    return {"inputs": tuple({0: batch} for _ in graph.inputs)}


def _refuse_pickles(path: Path) -> None:
    """Look through the archive for what torch would unpickle. Raises `InputError`."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            folder, _, name = entry.filename.rpartition("/")
            pickled = name.endswith((".pt", ".pkl")) and entry.file_size > 0
            if name.endswith("_config.json"):
                payloads = json.loads(archive.read(entry)).get("config", {}).values()
                pickled = any(item.get("use_pickle") for item in payloads)
            if folder.endswith("data/constants") and name.startswith(("custom_obj_", "opaque_obj_")):
                pickled = True
            if pickled:
                raise InputError("the program holds pickled objects, which are not loaded", file=str(path), found=name)


@contextmanager
def _blamed(exporter: str, graph: Graph) -> Iterator[None]:
    """Turn whatever torch's exporter raises into an error that says who could not do it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # tracing raises errors of many kinds, which have no common class
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"{exporter} cannot write the model '{graph.name}': {reason[:300]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch's exporters tell of their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
