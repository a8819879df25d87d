"""Mixed precision: modules whose parameters are float32 compute in 16 bits, as `unitrain.backends.precision` tells.

A parameter is rounded each time the model is called, and autograd brings its gradient back to float32. That is what
torch's autocast does too; but autocast decides by operation, and Keras' policies by layer, as here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from unitrain.backends.torch.vision import ChannelScale

# Norms and scales compute in float32. Of an embedding a few rows are looked up: rounding those is rounding all.
_WIDE = (_BatchNorm, torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.RMSNorm, ChannelScale, torch.nn.Embedding)


class Lowering:
    """Runs a module in 16 bits.

    Parameters
    ----------
    module
        Its parameters are float32, and stay so.
    dtype
        ``torch.float16`` or ``torch.bfloat16``.
    """

    def __init__(self, module: torch.nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._places = [
            (part._parameters, name)
            for part in module.modules()
            if not isinstance(part, _WIDE)
            for name, parameter in part._parameters.items()
            if parameter is not None
        ]

    @contextmanager
    def parameters(self) -> Iterator[None]:
        """Let the module's parts see their parameters in 16 bits."""
        held = [table[name] for table, name in self._places]
        try:
            for (table, name), parameter in zip(self._places, held, strict=True):
                assert parameter is not None
                # What a module keeps here need not be a leaf: torch.func.functional_call does the same.
                table[name] = parameter.to(self.dtype)  # type: ignore[assignment]  # the stub wants a Parameter
            yield
        finally:
            for (table, name), parameter in zip(self._places, held, strict=True):
                table[name] = parameter

    def lowered(self, tensor: torch.Tensor) -> torch.Tensor:
        """Round floats to 16 bits."""
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def raised(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return numbers of 16 bits as float32."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
