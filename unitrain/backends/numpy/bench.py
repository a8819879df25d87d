"""How NumPy is timed: its own functions, and unitrain's layers where it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays, Settings
from unitrain.backends.host_memory import keep_freed_memory
from unitrain.backends.numpy.execution import Mode, backward, forward
from unitrain.backends.numpy.model import NumpyModel
from unitrain.backends.numpy.program import NumpyProgram
from unitrain.backends.toolkit import Call
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec

Array = npt.NDArray[Any]


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result


_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "matmul": np.matmul,
    "batched matmul": np.matmul,
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "exp": np.exp,
    "sum": lambda x: np.sum(x, axis=-1),
    "softmax": _softmax,
}


class NumpyToolkit:
    """`toolkit.Toolkit` for NumPy."""

    name = "numpy"
    modes: Mapping[str, str] = {"numpy": "unitrain's NumPy program"}

    def prepare(self, threads: int) -> int:
        """Limit the threads of the BLAS; NumPy's other functions have one."""
        from threadpoolctl import threadpool_info, threadpool_limits

        keep_freed_memory()
        threadpool_limits(threads, user_api="blas")
        return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)

    def wait(self, device: str) -> None:
        """Return: NumPy's calls are done when they return."""

    def device_memory(self, device: str) -> int | None:
        """Return None: there is no accelerator."""
        return None

    def operation(self, name: str, operands: Sequence[Array], device: str) -> Call | None:
        """Prepare one of `toolkit.OPERATIONS`; a convolution is that of unitrain's layer."""
        if name == "convolution":
            return _convolution(*operands)
        function = _FUNCTIONS[name]
        held = [np.array(operand) for operand in operands]
        return Call(lambda: function(*held), lambda result: {"result": result})

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
        """Prepare the hand-written backward pass."""
        model = NumpyModel(graph, weights, settings)
        prepared = model.prepare(inputs)
        seeds = {name: array.astype(model.dtype) for name, array in output_gradients.items()}
        mode = Mode(True, settings.seed, 0)

        def run() -> tuple[Mapping[str, Array], Mapping[str, Array]]:
            done = forward(graph, model.weights, prepared, mode, differentiate=True, input_gradients=by_inputs)
            return backward(done, seeds)

        def read(found: tuple[Mapping[str, Array], Mapping[str, Array]]) -> Arrays:
            return {**{f"input {name}": array for name, array in found[0].items()}, **found[1]}

        return Call(run, read)

    def inference(self, graph: Graph, weights: Arrays, settings: Settings, mode: str, inputs: Arrays) -> Call:
        """Prepare the program's prediction."""
        program = NumpyProgram(graph, weights, settings)
        batch = len(next(iter(inputs.values())))
        return Call(lambda: program.predict(inputs, batch), lambda result: result)


def _convolution(images: Array, kernel: Array) -> Call:
    graph = resolve(
        ModelSpec.model_validate(
            {
                "inputs": {"image": {"shape": images.shape[1:]}},
                "layers": [
                    {
                        "type": "conv2d",
                        "name": "result",
                        "filters": kernel.shape[-1],
                        "kernel_size": kernel.shape[:2],
                        "use_bias": False,
                    }
                ],
            }
        )
    )
    model = NumpyModel(graph, {"result.kernel": kernel}, Settings())
    given = {"image": np.array(images)}
    return Call(lambda: forward(graph, model.weights, given, Mode()).outputs(), lambda result: result)


TOOLKIT = NumpyToolkit()
