"""How onnxruntime is timed: inference of the model that unitrain writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from unitrain.backends.contract import Arrays, Settings
from unitrain.backends.onnx.program import OnnxProgram
from unitrain.backends.toolkit import Call
from unitrain.graph.graph import Graph

Array = npt.NDArray[Any]


class OnnxToolkit:
    """`toolkit.Toolkit` for onnxruntime."""

    name = "onnx"
    modes: Mapping[str, str] = {"session": "onnxruntime's session on the exported model"}

    def prepare(self, threads: int) -> int:
        """Set how many threads the sessions made from now on take."""
        os.environ["OMP_NUM_THREADS"] = str(threads)
        return threads

    def wait(self, device: str) -> None:
        """Return: a session's run is done when it returns."""

    def device_memory(self, device: str) -> int | None:
        """Return None: there is no accelerator."""
        return None

    def operation(self, name: str, operands: Sequence[Array], device: str) -> Call | None:
        """Return None: onnxruntime runs models."""
        return None

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
        """Return None: onnxruntime runs inference."""
        return None

    def inference(self, graph: Graph, weights: Arrays, settings: Settings, mode: str, inputs: Arrays) -> Call:
        """Prepare a session."""
        program = OnnxProgram(graph, weights, settings)
        batch = len(next(iter(inputs.values())))
        return Call(lambda: program.predict(inputs, batch), lambda result: result)


TOOLKIT = OnnxToolkit()
