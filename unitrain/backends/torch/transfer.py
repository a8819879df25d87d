"""Arrays to the device and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unitrain.backends.contract import Batchable
from unitrain.backends.torch.runtime import widened
from unitrain.graph.graph import Graph

Array = npt.NDArray[Any]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Placed:
    """A data set on the device."""

    inputs: Tensors
    targets: Tensors
    weight: torch.Tensor | None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that is there."""
        return [*self.inputs.values(), *self.targets.values(), *([] if self.weight is None else [self.weight])]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Placed:
        """Return the same of what a function makes of each tensor."""
        return Placed(
            {name: function(tensor) for name, tensor in self.inputs.items()},
            {name: function(tensor) for name, tensor in self.targets.items()},
            None if self.weight is None else function(self.weight),
        )


class Transfer:
    """Brings arrays to one device, in its working precision.

    Parameters
    ----------
    graph
        Tells which inputs are numbers and which are indices.
    device, dtype
        Where to, and the working dtype.
    """

    def __init__(self, graph: Graph, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.kinds = {name: dtype if given.dtype == "float" else torch.int64 for name, given in graph.inputs.items()}

    def place(self, data: Batchable) -> Placed:
        """Bring a data set: floats in the working precision, integers as they are (images of bytes stay small)."""

        def stored(array: Array) -> torch.Tensor:
            return self.moved(array, None if array.dtype.kind in "biu" else self.dtype)

        def target(array: Array) -> torch.Tensor:
            # Classes, one a sample, as torch's indexing wants them: else each step would convert them.
            return self.moved(array, torch.int64) if array.dtype.kind in "iu" and array.ndim == 1 else stored(array)

        return Placed(
            {name: stored(data.inputs[name]) for name in self.kinds},
            {name: target(array) for name, array in data.targets.items()},
            None if data.weight is None else self.moved(data.weight, self.dtype),
        )

    def gather(self, placed: Placed, rows: torch.Tensor) -> Placed:
        """Take one batch; inputs are brought into the kind that the graph reads."""
        return Placed(
            {name: tensor.index_select(0, rows).to(self.kinds[name]) for name, tensor in placed.inputs.items()},
            {name: tensor.index_select(0, rows) for name, tensor in placed.targets.items()},
            None if placed.weight is None else placed.weight.index_select(0, rows),
        )

    def inputs(self, arrays: Mapping[str, Array]) -> Tensors:
        """Bring one batch of the graph's inputs."""
        return {name: self.moved(arrays[name], kind) for name, kind in self.kinds.items()}

    def moved(self, array: Array, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Bring one array, as ``dtype`` if given; on the CPU without a copy where that is possible."""
        whole = np.ascontiguousarray(array).reshape(array.shape)
        tensor = torch.from_numpy(whole if whole.flags.writeable else whole.copy())
        wanted = dtype or tensor.dtype
        # The smaller of the two forms is the one to send.
        if wanted.itemsize < tensor.dtype.itemsize:
            tensor = tensor.to(wanted)
        return tensor.to(self.device).to(wanted)


def copied(tensor: torch.Tensor) -> Array:
    """Copy a tensor to the host: what a program gives away is neither its own memory nor its caller's.

    Numbers of 16 bits come as float32, see `unitrain.backends.precision.host_dtype`.
    """
    array: Array = widened(tensor.detach()).cpu().numpy().copy()
    return array
