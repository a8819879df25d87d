"""What a backend offers for timing: operations, gradients and inference, as calls on its own tensors.

A `Program` is what a user of unitrain runs; a `Toolkit` gives what one of the framework would run, so that frameworks
are compared and not our handling of them. Each ``backends/<name>/bench.py`` offers an object ``TOOLKIT``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from unitrain.backends.contract import Arrays, Settings
from unitrain.graph.graph import Graph

Array = npt.NDArray[Any]

OPERATIONS = (
    "matmul",
    "batched matmul",
    "add",
    "subtract",
    "multiply",
    "exp",
    "sum",
    "softmax",
    "convolution",
)
"""Operations on one or two tensors. ``sum`` and ``softmax`` are over the last axis; ``convolution`` has stride 1, no
padding, images ``[batch, height, width, channel]`` and a kernel ``[height, width, in, out]``."""


@dataclass(frozen=True)
class Call:
    """Work that is ready to be done, again and again.

    Parameters
    ----------
    run
        Do it once; on an accelerator it may still be under way when this returns, see `Toolkit.wait`.
    read
        Bring what ``run`` returned to the host, in canonical layouts and under names.
    """

    run: Callable[[], Any]
    read: Callable[[Any], Arrays]


class Toolkit(Protocol):
    """How one framework is timed."""

    name: str
    modes: Mapping[str, str]
    """In what ways the framework runs a model for inference, and a few words on each; the plainest first."""

    def prepare(self, threads: int) -> int:
        """Set the threads of this process' framework, and float32 that is float32: no TF32.

        Returns
        -------
        int
            How many threads it now uses; another number than asked for where it cannot change them any more.
        """
        ...

    def wait(self, device: str) -> None:
        """Return when all that was started on a device is done."""
        ...

    def device_memory(self, device: str) -> int | None:
        """Return the most bytes of an accelerator in use since the last call; None for the CPU."""
        ...

    def operation(self, name: str, operands: Sequence[Array], device: str) -> Call | None:
        """Prepare one of `OPERATIONS` on float32 arrays (canonical layouts) that are copied to the device first.

        None where the framework has no such operation. The result is called ``result``.
        """
        ...

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
        """Prepare a forward pass in training mode and a backward pass from given output gradients.

        All lies on the device and stays there. Gradients by trainable parameters go by their canonical names; with
        ``by_inputs`` those by float inputs are computed too, and go by ``input NAME``. None where there are none.
        """
        ...

    def inference(self, graph: Graph, weights: Arrays, settings: Settings, mode: str, inputs: Arrays) -> Call:
        """Prepare inference in one of `modes`, from arrays on the host to arrays on the host, as a server does it."""
        ...


def load_toolkit(name: str) -> Toolkit:
    """Import the toolkit of a backend that is installed."""
    toolkit: Toolkit = importlib.import_module(f"unitrain.backends.{name}.bench").TOOLKIT
    return toolkit
