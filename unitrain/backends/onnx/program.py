"""A graph compiled for inference with onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, ValueInfoProto

from unitrain.backends.contract import Arrays, Batchable, Plan, Settings, Statistics
from unitrain.backends.indices import check_indices
from unitrain.backends.onnx.model import DEFAULT_OPSET, PRECISIONS, emit_with_places
from unitrain.backends.precision import check_precision, host_dtype
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError, unknown_name
from unitrain.spec.layers.base import show_shape
from unitrain.weights.initialize import check_weights

Array = npt.NDArray[Any]
SMALL = 5_000_000
"""Multiply-accumulates up to which waking another thread costs more than it saves.

Measured with one sample on two cores: MLP, 203,000 of them, 46 us instead of 62; LeNet, 417,000, 59 instead of 95; on a
newer processor a CNN, 4,241,000, 55 instead of 57.
"""
FLOATS = ("session.disable_quant_qdq", "1")
"""Keeps onnxruntime from computing in integers where a model rounds to their levels: the model says floats."""
UNSATURATED = ("session.x64quantprecision", "1")
"""Integers are exact on processors without VNNI too, where sums of two products of bytes saturate otherwise."""
# Errors only: its warnings tell of what it does with the graph.
_ERRORS = 3


class OnnxProgram:
    """`contract.Program` in onnxruntime, for inference.

    Parameters
    ----------
    graph, weights, settings, rule
        As for `contract.Backend.compile`.
    opset
        Version of ONNX's operators.

    Raises
    ------
    InputError
        There is a ``rule``, or onnxruntime lacks something that the model needs.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Arrays,
        settings: Settings,
        rule: TrainingRule | None = None,
        *,
        opset: int = DEFAULT_OPSET,
    ) -> None:
        if rule is not None:
            _refuse("train")
        self.graph = graph
        self.opset = opset
        self._settings = settings
        self._macs = graph.macs
        check_precision("onnx", PRECISIONS, settings.precision)
        self._outputs = list(graph.outputs)
        self._dtype = np.dtype(settings.precision)
        self._host = host_dtype(settings.precision)
        self._weights: dict[str, Array] = {}
        self.load_weights(weights)

    def weights(self) -> dict[str, Array]:
        """Copy out all parameters, running statistics included, canonical names and layouts."""
        return {name: array.astype(self._host) for name, array in self._weights.items()}

    def load_weights(self, weights: Arrays) -> None:
        """Take over all parameters, which stand in the model: it is written anew."""
        problems = check_weights(self.graph, weights)
        if problems:
            raise InputError(f"the weights do not fit the model '{self.graph.name}': {'; '.join(problems[:5])}")
        self._weights = {name: np.array(weights[name], dtype=self._dtype) for name in self.graph.parameters}
        emitted = emit_with_places(self.graph, self._weights, opset=self.opset, precision=self._settings.precision)
        self.model, self._places = emitted.model, emitted.places
        self._session = _session(self.model)
        self._alone: onnxruntime.InferenceSession | None = None
        self._inside: onnxruntime.InferenceSession | None = None

    def predict(self, inputs: Arrays, batch_size: int = 256) -> dict[str, Array]:
        """Run inference in chunks of ``batch_size``; outputs keyed by graph output name."""
        arrays = self._prepared(inputs)
        samples = len(next(iter(arrays.values())))
        names = self._outputs
        if 0 < samples <= batch_size:
            results = self._session_for(samples).run(names, arrays)
            return dict(zip(names, map(self._given_out, results), strict=True))
        if samples == 0:
            return {
                output: self._given_out(np.empty((0, *self.graph.shape(node)), self._kind(node)))
                for output, node in self.graph.outputs.items()
            }
        chunks = [
            self._session.run(names, {key: array[start : start + batch_size] for key, array in arrays.items()})
            for start in range(0, samples, batch_size)
        ]
        return {
            name: self._given_out(np.concatenate(parts))
            for name, parts in zip(names, zip(*chunks, strict=True), strict=True)
        }

    def _session_for(self, samples: int) -> onnxruntime.InferenceSession:
        """Return the session for so many samples: where they are little work, one that keeps to the calling thread."""
        if samples * self._macs > SMALL:
            return self._session
        if self._alone is None:
            self._alone = _session(self.model, threads=1)
        return self._alone

    def activations(self, inputs: Arrays, *, training: bool = False, step: int = 0) -> dict[str, Array]:
        """Return the output of every node for one batch, in the spec's layout.

        They come from the model with every node's tensor as an output: onnxruntime cannot fuse across those, so
        that roundings may differ from those of `predict`.
        """
        if training:
            _refuse("run in training mode")
        arrays = self._prepared(inputs)
        if self._inside is None:
            self._inside = _session(_opened(self.model, [tensor for tensor, _ in self._places.values()]))
        names = [output.name for output in self._inside.get_outputs()]
        # A layer that hands an input of the graph on has its result there.
        found = {**arrays, **dict(zip(names, self._inside.run(names, arrays), strict=True))}
        return {
            name: self._given_out(
                np.moveaxis(found[tensor], 1, -1).copy() if layout == "channels_first" else found[tensor].copy()
            )
            for name, (tensor, layout) in self._places.items()
        }

    def slots(self) -> dict[str, dict[str, Array]]:
        """Refuse: there is no optimizer."""
        _refuse("train")

    def load_slots(self, slots: Mapping[str, Arrays]) -> None:
        """Refuse: there is no optimizer."""
        _refuse("train")

    def place(self, data: Batchable) -> Any:
        """Refuse: data is placed for training."""
        _refuse("train")

    def run_steps(self, placed: Any, plan: Plan) -> Statistics:
        """Refuse: there is no training."""
        _refuse("train")

    def differentiate(
        self, inputs: Arrays, output_gradients: Arrays, *, training: bool = True, step: int = 0
    ) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Refuse: there are no gradients."""
        _refuse("differentiate")

    def _given_out(self, array: Array) -> Array:
        """Return a result, which is nobody else's; numbers of 16 bits come as float32."""
        return array.astype(self._host, copy=False) if array.dtype.kind == "f" else array

    def _kind(self, name: str) -> np.dtype[Any]:
        given = self.graph.inputs[name] if name in self.graph.inputs else self.graph.node(name)
        return self._dtype if given.dtype == "float" else np.dtype(np.int32)

    def _prepared(self, inputs: Arrays) -> dict[str, Array]:
        """Check names, shapes and indices, and bring the inputs into the kind that the graph reads."""
        for name in inputs:
            if name not in self.graph.inputs:
                raise unknown_name("input", name, self.graph.inputs)
        prepared = {}
        for name, given in self.graph.inputs.items():
            if name not in inputs:
                raise InputError(f"the input '{name}' is missing", allowed=", ".join(self.graph.inputs))
            array = np.asarray(inputs[name])
            if array.ndim == 0 or array.shape[1:] != given.shape:
                raise InputError(
                    f"the input '{name}' has the wrong shape",
                    found=str(list(array.shape)),
                    allowed=show_shape(given.shape),
                )
            if given.dtype == "integer" and array.dtype.kind not in "iub":
                raise InputError(f"the input '{name}' must hold integers", found=str(array.dtype))
            prepared[name] = array
        if len(prepared) > 1 and len({len(array) for array in prepared.values()}) > 1:
            sizes = ", ".join(f"{name} {len(array)}" for name, array in prepared.items())
            raise InputError("the inputs hold different numbers of samples", found=sizes)
        check_indices(self.graph, prepared)
        return {name: np.asarray(array, self._kind(name), order="C") for name, array in prepared.items()}


def _refuse(what: str) -> NoReturn:
    raise InputError(f"the backend 'onnx' runs inference only: it cannot {what}")


def _opened(model: ModelProto, tensors: list[str]) -> ModelProto:
    """Return a copy of a model with more tensors as outputs."""
    opened = ModelProto()
    opened.CopyFrom(model)
    known = {output.name for output in model.graph.output} | {given.name for given in model.graph.input}
    opened.graph.output.extend(ValueInfoProto(name=tensor) for tensor in dict.fromkeys(tensors) if tensor not in known)
    return opened


def _session(model: ModelProto, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Load a model.

    Threads are ``threads``, or as many as ``OMP_NUM_THREADS`` says, else the processors that this process may use.
    They wait without spinning, which would take the processor from others.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry(*FLOATS)
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds of error have no common class
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"onnxruntime {onnxruntime.__version__} cannot run the model: {reason}",
            hint="a lower opset may do, or a newer onnxruntime",
        ) from None


def _threads() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
