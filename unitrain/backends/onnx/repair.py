"""Brings a file into the form that quantisers read: weights as initialisers, a new enough opset, batch norms folded."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper, version_converter

from unitrain.backends.onnx.anatomy import anatomy, bodies, opset
from unitrain.backends.onnx.deployed import all_nodes, open_session, session_options
from unitrain.spec.errors import InputError

# From 13 on QuantizeLinear knows an axis; 17 is what our own files have at least.
PER_CHANNEL_OPSET = 13
RAISED_OPSET = 17


@dataclass(frozen=True)
class Repaired:
    """A model for the quantisers, and what was done to it, a sentence each."""

    model: ModelProto
    notes: tuple[str, ...]


def repair(model: ModelProto) -> Repaired:
    """Repair what can be repaired; what cannot is told, and stays as it is."""
    repaired = ModelProto()
    repaired.CopyFrom(model)
    notes = []
    found = anatomy(repaired)
    moved = _lift_constants(repaired.graph)
    if moved and found.constant_weights:
        notes.append(f"weights in {moved} Constant nodes were made initialisers: quantisers look nowhere else")
    if found.opset < PER_CHANNEL_OPSET:
        repaired, note = _raise_opset(repaired, found.opset)
        notes.append(note)
    prepared = _preprocess(repaired)
    _name_nodes(prepared)
    left = anatomy(prepared)
    settled = found.operators.get("If", 0) - left.operators.get("If", 0)
    if settled:
        notes.append(f"{settled} If whose condition never changes became the branch that is taken")
    if left.nested_weights:
        notes.append(
            f"{left.nested_weights:,} weights stand inside If or Loop bodies, where dynamic quantisation alone looks"
        )
    return Repaired(prepared, tuple(notes))


def _name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own, by which it can be chosen."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}.{number}"
        taken.add(node.name)


def _lift_constants(graph: GraphProto) -> int:
    """Turn ``Constant`` nodes with tensors into initialisers, in branches too; return how many the top graph had."""
    lifted = []
    for node in graph.node:
        for body in bodies(node):
            _lift_constants(body)
        value = next((item for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = graph.initializer.add()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            lifted.append(node)
    for node in lifted:
        graph.node.remove(node)
    return len(lifted)


def _raise_opset(model: ModelProto, old: int) -> tuple[ModelProto, str]:
    try:
        raised = version_converter.convert_version(model, RAISED_OPSET)
        open_session(raised.SerializeToString(), session_options(1, "none"))
    except Exception as error:  # the converter raises its own kinds of error
        reason = str(error).strip().splitlines()[0]
        return model, f"opset {old} could not be raised to {RAISED_OPSET}: {reason}"
    return (
        raised,
        f"opset {old} was raised to {RAISED_OPSET}: older ones know no channels",
    )


def _preprocess(model: ModelProto) -> ModelProto:
    """Let onnxruntime infer shapes, fold constants and batch norms; the model as it is where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save_model(model, str(source))
        try:
            with quiet():
                quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
            done = onnx.load(str(target))
            open_session(done.SerializeToString(), session_options(1, "none"))
        except Exception:  # its own kinds of error; the quantisers may still do with what there is
            return model
    # Its optimiser may name an opset of its own domain that nothing uses.
    used = {node.domain for node in all_nodes(done.graph)} | {""}
    kept = [entry for entry in done.opset_import if entry.domain in used or entry.domain == "ai.onnx"]
    del done.opset_import[:]
    done.opset_import.extend(kept)
    return done


def gemm_to_matmul(model: ModelProto) -> tuple[ModelProto, int]:
    """Write ``Gemm`` with constant weights as ``MatMul`` and ``Add``; return the model and how many there were.

    Weight-only quantisers know MatMul alone.
    """
    written = ModelProto()
    written.CopyFrom(model)
    weights = {item.name: item for item in written.graph.initializer}
    nodes: list[NodeProto] = []
    count = 0
    for node in written.graph.node:
        options = {item.name: item for item in node.attribute}
        plain = (
            node.op_type == "Gemm"
            and node.input[1] in weights
            and not ("transA" in options and options["transA"].i)
            and all(options[name].f == 1.0 for name in ("alpha", "beta") if name in options)
        )
        if not plain:
            nodes.append(node)
            continue
        count += 1
        name = node.input[1]
        if "transB" in options and options["transB"].i:
            turned = numpy_helper.from_array(numpy_helper.to_array(weights[name]).T.copy(), f"{name}.turned")
            if turned.name not in weights:
                written.graph.initializer.append(turned)
                weights[turned.name] = turned
            name = turned.name
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}.product" if biased else node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], name], [product], name=f"{node.name}.MatMul"))
        if biased:
            nodes.append(
                onnx.helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}.Add")
            )
    del written.graph.node[:]
    written.graph.node.extend(nodes)
    used = {name for node in all_nodes(written.graph) for name in node.input}
    unused = [item for item in written.graph.initializer if item.name not in used]
    for item in unused:
        written.graph.initializer.remove(item)
    return written, count


def refuse_quantised(model: ModelProto) -> None:
    """Raise `InputError` when a model is quantised already."""
    found = anatomy(model)
    if found.quantised:
        raise InputError(f"it is quantised already: {found.quantised} of its operators are a quantised model's")


def refuse_per_channel(model: ModelProto) -> None:
    """Raise `InputError` when a model's opset knows no quantisation per channel."""
    if opset(model) < PER_CHANNEL_OPSET:
        raise InputError(
            f"opset {opset(model)} knows no quantisation per channel, and could not be raised to {RAISED_OPSET}"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the quantisers' own advice to themselves: what matters of it stands in the study."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
