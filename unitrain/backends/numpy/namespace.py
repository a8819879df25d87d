"""NumPy's few functions for losses, metrics and optimizers, as `unitrain.backends.namespace.ArrayNamespace`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unitrain.backends.namespace import Tensor


class NumpyNamespace:
    """Array functions on NumPy arrays; results keep the precision of their arguments."""

    abs = staticmethod(np.abs)
    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    log1p = staticmethod(np.log1p)
    sqrt = staticmethod(np.sqrt)
    square = staticmethod(np.square)
    sign = staticmethod(np.sign)
    tanh = staticmethod(np.tanh)
    minimum = staticmethod(np.minimum)
    maximum = staticmethod(np.maximum)
    zeros_like = staticmethod(np.zeros_like)
    ones_like = staticmethod(np.ones_like)
    isfinite = staticmethod(np.isfinite)

    def asarray(self, value: Any, like: Tensor) -> Tensor:
        """Turn a number or array into an array of the dtype of ``like``."""
        return np.asarray(value, dtype=like.dtype)

    def cast(self, x: Tensor, like: Tensor) -> Tensor:
        """Convert an array to the dtype of ``like``."""
        return x.astype(like.dtype, copy=False)

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        """Limit to ``low .. high``."""
        return np.clip(x, low, high)

    def where(self, condition: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
        """Choose element by element."""
        return np.where(condition, x, y)

    def sum(self, x: Tensor, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """Add up."""
        return np.sum(x, axis=axis, keepdims=keepdims)

    def size(self, x: Tensor) -> float:
        """Return the number of elements."""
        return float(x.size)

    def log_softmax(self, x: Tensor) -> Tensor:
        """Return x - m - log(sum(exp(x - m))) with m the largest element of the last axis."""
        shifted = x - np.max(x, axis=-1, keepdims=True)
        return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))

    def softmax(self, x: Tensor) -> Tensor:
        """Return exp(x - m) / sum(exp(x - m)) with m the largest element of the last axis."""
        powers = np.exp(x - np.max(x, axis=-1, keepdims=True))
        return powers / np.sum(powers, axis=-1, keepdims=True)

    def max(self, x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the largest element."""
        return np.max(x, axis=axis, keepdims=keepdims)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        """Return the index of the largest element, the first of equals."""
        return np.argmax(x, axis=axis)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Give the elements another shape."""
        return np.reshape(x, tuple(shape))

    def one_hot(self, index: Tensor, classes: int, like: Tensor) -> Tensor:
        """Return ``[..., classes]`` of zeros and a one; an index outside gives zeros."""
        return (index[..., None] == np.arange(classes)).astype(like.dtype)

    def take_last(self, x: Tensor, index: Tensor) -> Tensor:
        """Return ``x[..., index]`` element by element."""
        return np.take_along_axis(x, index[..., None], axis=-1)[..., 0]

    def take(self, x: Tensor, index: Tensor) -> Tensor:
        """Return ``x[index]`` along the first axis."""
        return x[index]
