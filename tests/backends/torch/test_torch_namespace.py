"""torch's array functions give what NumPy's give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unitrain.backends.torch.namespace import NAMESPACE as XP

X = np.array([[-1.5, 0.0, 2.0, 2.0], [0.25, -3.0, 1.0, 0.5]])
POSITIVE = np.abs(X) + 0.5
Y = np.array([[1.0, -1.0, 2.0, 3.0], [0.0, -4.0, 1.0, 2.0]])


def check(found: torch.Tensor, expected: Any) -> None:
    assert tuple(found.shape) == np.shape(expected)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-15)


@pytest.mark.parametrize("name", ["abs", "exp", "square", "sign", "tanh", "zeros_like", "ones_like", "isfinite"])
def test_elementwise(name: str) -> None:
    check(getattr(XP, name)(torch.tensor(X)), getattr(np, name)(X))


@pytest.mark.parametrize("name", ["log", "log1p", "sqrt"])
def test_elementwise_of_positive_numbers(name: str) -> None:
    check(getattr(XP, name)(torch.tensor(POSITIVE)), getattr(np, name)(POSITIVE))


def test_isfinite_sees_nan_and_infinity() -> None:
    assert XP.isfinite(torch.tensor([1.0, np.nan, np.inf, -np.inf])).tolist() == [True, False, False, False]


@pytest.mark.parametrize("name", ["minimum", "maximum"])
@pytest.mark.parametrize("other", [Y, 0.5])
def test_smaller_and_larger(name: str, other: Any) -> None:
    second = torch.tensor(other) if isinstance(other, np.ndarray) else other
    check(getattr(XP, name)(torch.tensor(X), second), getattr(np, name)(X, other))


def test_clip_and_where() -> None:
    check(XP.clip(torch.tensor(X), -1.0, 1.0), np.clip(X, -1.0, 1.0))
    check(XP.where(torch.tensor(X > 0), torch.tensor(X), 7.0), np.where(X > 0, X, 7.0))
    check(XP.where(torch.tensor(X > 0), torch.tensor(X), torch.tensor(Y)), np.where(X > 0, X, Y))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums(axis: Any, keepdims: bool) -> None:
    check(XP.sum(torch.tensor(X), axis=axis, keepdims=keepdims), np.sum(X, axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_largest(axis: Any, keepdims: bool) -> None:
    check(XP.max(torch.tensor(X), axis=axis, keepdims=keepdims), np.max(X, axis=axis, keepdims=keepdims))


def test_argmax_is_the_first_of_equals() -> None:
    wide = np.zeros((3, 1000))
    wide[:, [400, 700]] = 1.0
    assert XP.argmax(torch.tensor(wide), axis=-1).tolist() == [400] * 3
    assert XP.argmax(torch.zeros(5, 300), axis=-1).tolist() == [0] * 5


def test_indexing() -> None:
    x, like = torch.tensor(X), torch.zeros(1, dtype=torch.float64)
    index = torch.tensor([2, 0], dtype=torch.int32)
    check(XP.take_last(x, index), [2.0, 0.25])
    check(XP.take(x, torch.tensor([[1, 0], [1, 1]], dtype=torch.int32)), X[[[1, 0], [1, 1]]])
    # What lies outside has no one.
    found = XP.one_hot(torch.tensor([1, -1, 3, 2]), 3, like)
    check(found, [[0.0, 1.0, 0.0], [0.0] * 3, [0.0] * 3, [0.0, 0.0, 1.0]])
    assert found.dtype == torch.float64


def test_kinds_and_shapes() -> None:
    like = torch.zeros(1, dtype=torch.float32)
    assert XP.cast(torch.tensor([True, False]), like).dtype == torch.float32
    assert XP.asarray(np.arange(3), like).dtype == torch.float32
    check(XP.reshape(torch.tensor(X), (4, -1)), X.reshape(4, -1))
