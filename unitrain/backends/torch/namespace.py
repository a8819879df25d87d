"""torch's few functions for losses, metrics and optimizers, as `unitrain.backends.namespace.ArrayNamespace`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from unitrain.backends.namespace import Tensor


class TorchNamespace:
    """Array functions with NumPy's arguments on torch tensors."""

    abs = staticmethod(torch.abs)
    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    log1p = staticmethod(torch.log1p)
    sqrt = staticmethod(torch.sqrt)
    square = staticmethod(torch.square)
    sign = staticmethod(torch.sign)
    tanh = staticmethod(torch.tanh)
    zeros_like = staticmethod(torch.zeros_like)
    ones_like = staticmethod(torch.ones_like)
    isfinite = staticmethod(torch.isfinite)

    def asarray(self, value: Any, like: Tensor) -> Tensor:
        """Turn a number, NumPy array or tensor into a tensor of the dtype and device of ``like``."""
        if isinstance(value, torch.Tensor):
            return value.to(like)
        array = np.asarray(value)
        return _constant(array.tobytes(), array.dtype.str, array.shape, like.dtype, like.device)

    def cast(self, x: Tensor, like: Tensor) -> Tensor:
        """Convert a tensor to the dtype of ``like``."""
        return x.to(like.dtype)

    def minimum(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Return the smaller of each pair."""
        return torch.minimum(x, y) if isinstance(y, torch.Tensor) else torch.clamp_max(x, y)

    def maximum(self, x: Tensor, y: Tensor | float) -> Tensor:
        """Return the larger of each pair."""
        return torch.maximum(x, y) if isinstance(y, torch.Tensor) else torch.clamp_min(x, y)

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        """Limit to ``low .. high``."""
        return torch.clamp(x, low, high)

    def where(self, condition: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
        """Choose element by element."""
        return torch.where(condition, x, y)

    def sum(self, x: Tensor, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """Add up."""
        return torch.sum(x, dim=axis, keepdim=keepdims)

    def size(self, x: Tensor) -> float:
        """Return the number of elements."""
        return float(x.numel())

    def log_softmax(self, x: Tensor) -> Tensor:
        """Return the logarithm of softmax over the last axis."""
        return torch.log_softmax(x, -1)

    def softmax(self, x: Tensor) -> Tensor:
        """Return softmax over the last axis."""
        return torch.softmax(x, -1)

    def max(self, x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the largest element."""
        return torch.amax(x, dim=() if axis is None else axis, keepdim=keepdims)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        """Return the index of the largest element, the first of equals."""
        return torch.argmax(x, dim=axis)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Give the elements another shape."""
        return torch.reshape(x, tuple(shape))

    def one_hot(self, index: Tensor, classes: int, like: Tensor) -> Tensor:
        """Return ``[..., classes]`` of zeros and a one; an index outside gives zeros."""
        return (index[..., None] == _counting(classes, index.device)).to(like.dtype)

    def take_last(self, x: Tensor, index: Tensor) -> Tensor:
        """Return ``x[..., index]`` element by element."""
        return torch.gather(x, -1, index[..., None].long())[..., 0]

    def take(self, x: Tensor, index: Tensor) -> Tensor:
        """Return ``x[index]`` along the first axis."""
        return x[index.long()]


@lru_cache(maxsize=64)
def _constant(data: bytes, kind: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Bring a constant, such as class weights, to the device once: each copy would hold the device up."""
    with torch.inference_mode(False):
        return torch.tensor(np.frombuffer(data, kind).reshape(shape), dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _counting(count: int, device: torch.device) -> torch.Tensor:
    """Return 0 .. count - 1, made once."""
    with torch.inference_mode(False):
        return torch.arange(count, device=device)


NAMESPACE = TorchNamespace()
