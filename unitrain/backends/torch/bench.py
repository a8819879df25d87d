"""How torch is timed: its functions, its automatic differentiation, its modules eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unitrain.backends.contract import Arrays, Settings
from unitrain.backends.toolkit import Call
from unitrain.backends.torch.candidates import compiled
from unitrain.backends.torch.module import GraphModule
from unitrain.backends.torch.runtime import differentiable, dtype_of
from unitrain.backends.torch.transfer import Tensors, Transfer, copied
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError

Array = npt.NDArray[Any]

_FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "matmul": torch.matmul,
    "batched matmul": torch.matmul,
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "exp": torch.exp,
    "sum": lambda x: torch.sum(x, dim=-1),
    "softmax": lambda x: torch.softmax(x, dim=-1),
    "convolution": torch.nn.functional.conv2d,
}


class TorchToolkit:
    """`toolkit.Toolkit` for torch."""

    name = "torch"
    modes: Mapping[str, str] = {"eager": "a call of the torch.nn.Module", "compile": "torch.compile of the same"}

    def prepare(self, threads: int) -> int:
        """Set the threads within an operation, and full float32 in matrix products and convolutions."""
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        return torch.get_num_threads()

    def wait(self, device: str) -> None:
        """Synchronise with an accelerator."""
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        elif device == "mps":
            torch.mps.synchronize()

    def device_memory(self, device: str) -> int | None:
        """Return the most bytes that torch's allocator has given out on a GPU since the last call."""
        if not device.startswith("cuda"):
            return None
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return int(peak)

    def operation(self, name: str, operands: Sequence[Array], device: str) -> Call | None:
        """Prepare one of `toolkit.OPERATIONS`, images and kernels in torch's own layouts."""
        function = _FUNCTIONS[name]
        tensors = [torch.tensor(operand, device=device) for operand in operands]
        if name == "convolution":
            images, kernel = tensors
            tensors = [images.permute(0, 3, 1, 2).contiguous(), kernel.permute(3, 2, 0, 1).contiguous()]

        def run() -> torch.Tensor:
            with torch.inference_mode():
                return function(*tensors)

        def read(result: torch.Tensor) -> Arrays:
            return {"result": copied(result.permute(0, 2, 3, 1) if name == "convolution" else result)}

        return Call(run, read)

    @differentiable()
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
        """Prepare ``torch.autograd.grad`` through the module."""
        module = GraphModule(graph, weights, settings)
        module.train()
        transfer = Transfer(graph, torch.device(settings.device), dtype_of(settings))
        prepared = transfer.inputs(inputs)
        names = [name for name, given in graph.inputs.items() if by_inputs and given.dtype == "float"]
        leaves = [prepared[name].requires_grad_() for name in names]
        leaves += [module.tensor(name) for name in graph.trainable]
        outputs = list(output_gradients)
        seeds = [transfer.moved(output_gradients[name], transfer.dtype) for name in outputs]

        def run() -> Sequence[torch.Tensor | None]:
            with torch.inference_mode(False), torch.enable_grad():
                values = module.run(prepared)
                return torch.autograd.grad(
                    [values[graph.outputs[name]] for name in outputs], leaves, seeds, allow_unused=True
                )

        def read(found: Sequence[torch.Tensor | None]) -> Arrays:
            by_input = {
                f"input {name}": copied(gradient)
                for name, gradient in zip(names, found, strict=False)
                if gradient is not None
            }
            by_parameter = {
                name: module.to_canonical(name, gradient)
                for name, gradient in zip(graph.trainable, found[len(names) :], strict=True)
                if gradient is not None
            }
            return {**by_input, **by_parameter}

        return Call(run, read)

    def inference(self, graph: Graph, weights: Arrays, settings: Settings, mode: str, inputs: Arrays) -> Call:
        """Prepare the module in evaluation mode."""
        module = GraphModule(graph, weights, settings)
        module.eval()
        called: Callable[..., Any] = module
        transfer = Transfer(graph, torch.device(settings.device), dtype_of(settings))
        if mode == "compile":
            called = _compiled(module, transfer.inputs(inputs))

        def run() -> dict[str, Array]:
            with torch.inference_mode():
                found = called(transfer.inputs(inputs))
                named = found if isinstance(found, dict) else {next(iter(graph.outputs)): found}
                return {name: np.asarray(tensor.cpu()) for name, tensor in named.items()}

        return Call(run, lambda result: result)


def _compiled(module: GraphModule, inputs: Tensors) -> Callable[..., Any]:
    """Compile a module for inputs of these shapes. Raises `InputError` where that does not work, as without a compiler.

    torch keeps a few compiled forms of a ``forward`` and runs further modules of its class uncompiled: it forgets here.
    """
    torch.compiler.reset()
    called = compiled(module)
    try:
        with torch.inference_mode():
            called(inputs)
    except Exception as error:  # its compilers raise what they like
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"torch.compile does not work here: {type(error).__name__}: {reason}") from None
    return called


TOOLKIT = TorchToolkit()
