"""Preprocessing as ONNX operators in front of a model, and the way back from its outputs behind it.

Numbers come in as float64, as tables and NumPy have them, and are scaled in float64: a year less its mean keeps its
digits. Names come in as strings, pixels as uint8.

A row that `unitrain predict` would refuse or leave out (a missing value that nothing fills, a category that training
did not have) cannot be an error inside an ONNX model. Every number of its outputs is NaN, and its class the empty
string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, shape_inference

from unitrain.backends.contract import Precision
from unitrain.backends.onnx.features import Features
from unitrain.backends.onnx.model import BATCH
from unitrain.backends.onnx.operators import Operators
from unitrain.backends.onnx.preprocessing import (
    Labels,
    Preprocessing,
    Target,
    Units,
)
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.spec.layers.base import Shape

Array = npt.NDArray[Any]

_ML_OPSET = 3
_FLOAT, _DOUBLE, _INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def with_preprocessing(
    model: ModelProto, graph: Graph, preprocessing: Preprocessing, precision: Precision = "float32"
) -> ModelProto:
    """Put preprocessing around a model that `emit` wrote.

    The model's inputs become those of the data, named like its columns. Its outputs stay, and the predictions in
    terms of the data are added, see `Preprocessing.output_names`. The names of the classes are also in the model's
    metadata: ``classes`` (or ``<output>.classes``), a JSON list.

    Raises
    ------
    InputError
        A feature is used in two ways that need different inputs, or has the name of an output.
    """
    return _Surroundings(model, graph, preprocessing, precision).written()


class _Surroundings:
    """Operators before and behind a model, while they are written."""

    def __init__(self, model: ModelProto, graph: Graph, preprocessing: Preprocessing, precision: Precision) -> None:
        self.model, self.graph, self.preprocessing = model, graph, preprocessing
        self.working = np.dtype(precision)
        self.metadata: dict[str, str] = {}
        taken = {name for node in model.graph.node for name in (*node.input, *node.output, node.name)}
        taken |= {tensor.name for tensor in model.graph.initializer}
        taken |= {feature.name for listed in preprocessing.inputs.values() for feature in listed}
        taken |= {name for names in preprocessing.output_names(graph).values() for name in names.values()}
        self.write = Operators(next(entry.version for entry in model.opset_import if entry.domain == ""), taken)
        self.op, self.constant = self.write.op, self.write.constant
        self.features = Features(self.write, graph, self.working)

    def written(self) -> ModelProto:
        """Write it all, with the model between."""
        self._check_names()
        prepared = {name: self.features.input(name, features) for name, features in self.preprocessing.inputs.items()}
        behind = len(self.write.nodes)
        accepted = self.features.all_accepted()
        self._rename_model(prepared)
        before, self.write.nodes = self.write.nodes[:behind], self.write.nodes[behind:]
        for output in self.graph.outputs:
            self._masked_output(output, accepted)
        outputs = list(self.model.graph.output)
        for output, target in self.preprocessing.targets.items():
            outputs += self._target(output, target, accepted)
        return self._assembled(before, outputs)

    # Behind the model.

    def _masked(self, tensor: str, accepted: str | None, rank: int, element: Any, *, output: str) -> str:
        """Give a tensor its last name, with NaN (or no word) in rows that are refused."""
        if accepted is None or np.dtype(element).kind in "iu":
            return self.op("Identity", f"{output}.named", tensor, output=output)
        if rank > 1:
            shape = self.constant(f"{output}.rows", [-1, *[1] * (rank - 1)], np.int64)
            accepted = self.op("Reshape", f"{output}.accepted", accepted, shape)
        nothing = np.array("" if np.dtype(element).kind in "UO" else np.nan, dtype=element)
        refused = self.constant(f"{output}.refused", nothing)
        return self.op("Where", f"{output}.masked", accepted, tensor, refused, output=output)

    def _masked_output(self, output: str, accepted: str | None) -> None:
        """Give out the model's own output, under its name."""
        node = self.graph.outputs[output]
        integer = self.graph.node(node).dtype == "integer"
        rank = len(self.graph.shape(node)) + 1
        element = np.int32 if integer else self.working
        self._masked(self.renamed[output], accepted, rank, element, output=output)

    def _target(self, output: str, target: Target, accepted: str | None) -> list[ValueInfoProto]:
        names = self.preprocessing.output_names(self.graph)[output]
        tensor, shape = self.renamed[output], self.graph.shape(self.graph.outputs[output])
        if isinstance(target, Units):
            return [self._units(names["prediction"], tensor, shape, target, accepted)]
        element = helper.np_dtype_to_tensor_dtype(self.working)
        self.metadata["classes" if len(self.graph.outputs) == 1 else f"{output}.classes"] = json.dumps(target.names)
        if isinstance(target, Labels):
            shares = self.op("Sigmoid", f"{output}.sigmoid", tensor)
            shares = self._masked(shares, accepted, 2, self.working, output=names["probabilities"])
            return [helper.make_tensor_value_info(shares, element, [BATCH, *shape])]
        if target.binary:
            column = self.op("Reshape", f"{output}.logit", tensor, self.constant(f"{output}.one", [-1, 1], np.int64))
            # A logit x against 0: softmax([0, x]) = [1 - sigmoid(x), sigmoid(x)].
            zero = self.op("Sub", f"{output}.zero", column, column)
            tensor = self.op("Concat", f"{output}.logits", zero, column, axis=1)
        width = len(target.names)
        probabilities = self._masked(
            self.op("Softmax", f"{output}.softmax", tensor, axis=1),
            accepted,
            2,
            self.working,
            output=names["probabilities"],
        )
        # Of equal ones the first is chosen, as NumPy does.
        code = self.op("ArgMax", f"{output}.class", tensor, axis=1, keepdims=0)
        words = self.constant(f"{output}.names", list(target.names), object)
        chosen = self._masked(
            self.op("Gather", f"{output}.word", words, code, axis=0),
            accepted,
            1,
            object,
            output=names["prediction"],
        )
        return [
            helper.make_tensor_value_info(chosen, TensorProto.STRING, [BATCH]),
            helper.make_tensor_value_info(probabilities, element, [BATCH, width]),
        ]

    def _units(self, name: str, tensor: str, shape: Shape, target: Units, accepted: str | None) -> ValueInfoProto:
        if shape == (1,):
            tensor = self.op("Reshape", f"{name}.flat", tensor, self.constant(f"{name}.shape", [-1], np.int64))
            shape = ()
        if any(target.shift) or any(number != 1.0 for number in target.scale):
            # In float64, as the run does it, and rounded to float32 in the end.
            wide = self.op("Cast", f"{name}.wide", tensor, to=_DOUBLE)
            scale = self._numbers_of(f"{name}.scale", target.scale)
            wide = self.op("Mul", f"{name}.scaled", wide, scale)
            wide = self.op("Add", f"{name}.shifted", wide, self._numbers_of(f"{name}.shift", target.shift))
            tensor = wide
        tensor = self.op("Cast", f"{name}.float", tensor, to=_FLOAT)
        self._masked(tensor, accepted, len(shape) + 1, np.float32, output=name)
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])

    def _numbers_of(self, name: str, numbers: tuple[float, ...]) -> str:
        return self.constant(name, numbers[0] if len(numbers) == 1 else numbers, np.float64)

    # The whole.

    def _check_names(self) -> None:
        outputs = {*self.graph.outputs}
        outputs |= {name for names in self.preprocessing.output_names(self.graph).values() for name in names.values()}
        for features in self.preprocessing.inputs.values():
            for feature in features:
                if feature.name in outputs:
                    raise InputError(
                        f"the column '{feature.name}' has the name of an output, and an ONNX model's inputs and "
                        "outputs have names of their own",
                        hint="rename the column or the output, or export without --with-preprocessing",
                    )

    def _rename_model(self, prepared: Mapping[str, str]) -> None:
        """Connect the model's inputs, free the names of its outputs, and of what meets a name of the data."""
        features = {feature.name for listed in self.preprocessing.inputs.values() for feature in listed}
        added = {name for names in self.preprocessing.output_names(self.graph).values() for name in names.values()}
        self.renamed = {output: self.write.unique(f"{output}.raw") for output in self.graph.outputs}
        graph = self.model.graph
        inside = {name for node in graph.node for name in node.output} | {item.name for item in graph.initializer}
        names = {name: self.write.unique(f"{name}.inner") for name in inside & (features | added)}
        names |= prepared
        names |= self.renamed
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for tensor in graph.initializer:
            tensor.name = names.get(tensor.name, tensor.name)

    def _assembled(self, before: list[NodeProto], outputs: list[ValueInfoProto]) -> ModelProto:
        graph = self.model.graph
        tensors = [*graph.initializer, *self.write.tensors()]
        versions = [helper.make_opsetid("", self.write.opset), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
        if not any(node.domain for node in before):
            versions = versions[:1]
        model = helper.make_model(
            helper.make_graph(
                [*before, *graph.node, *self.write.nodes],
                graph.name,
                list(self.features.inputs.values()),
                outputs,
                tensors,
            ),
            opset_imports=versions,
            ir_version=self.model.ir_version,
            producer_name=self.model.producer_name,
            producer_version=self.model.producer_version,
        )
        helper.set_model_props(model, self.metadata)
        model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        checker.check_model(model, full_check=True)
        return model
