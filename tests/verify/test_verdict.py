"""The verdict passes what is computed correctly another way, and fails the faults a port really makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitrain.verify.verdict import bound_for, judge

Array = np.ndarray[Any, Any]
GENERATOR = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    """Values that are the same in float32 and in float64."""
    return GENERATOR.normal(size=shape).astype(np.float32).astype(np.float64)


def verdict_on(reference: Callable[[Array], Array], candidate: Callable[[Array], Array], x: Array) -> Any:
    return judge(candidate(x.astype(np.float32)), reference(x), reference(x.astype(np.float32)))


def layer_norm(x: Array, epsilon: float = 1e-5) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + x.dtype.type(epsilon))


def gelu(x: Array) -> Array:
    return x * torch.special.ndtr(torch.from_numpy(x)).numpy()


def test_a_wide_matrix_product_passes_though_elements_are_far_off() -> None:
    a, b = normal(64, 1024), normal(1024, 64)
    a32, b32 = a.astype(np.float32), b.astype(np.float32)
    one_by_one = np.zeros((64, 64), np.float32)
    for k in range(1024):
        one_by_one += a32[:, k, None] * b32[k]
    reference = a @ b
    assert np.max(np.abs(one_by_one - reference) / np.abs(reference)) > 1e-4
    assert not np.allclose(one_by_one, reference, rtol=1e-5, atol=1e-6)
    for candidate in (one_by_one, torch.from_numpy(a32).matmul(torch.from_numpy(b32)).numpy()):
        # The yardstick is a product that adds one by one as well: BLAS loses less than that.
        assert judge(candidate, reference, one_by_one).passed


def test_torch_layer_norm_passes_and_a_wrong_epsilon_fails() -> None:
    x = normal(64, 128)

    def candidate(epsilon: float) -> Any:
        return lambda x: torch.nn.functional.layer_norm(torch.from_numpy(x), (128,), eps=epsilon).numpy()

    assert verdict_on(layer_norm, candidate(1e-5), x).passed
    slightly = verdict_on(layer_norm, candidate(1e-6), x)
    wildly = verdict_on(layer_norm, candidate(1e-3), x)
    assert not slightly.passed
    assert 10 < slightly.ratio < 100 < 1000 < wildly.ratio
    torch.testing.assert_close(  # the fault that a fixed tolerance lets past
        torch.from_numpy(layer_norm(x, 1e-6)), torch.from_numpy(layer_norm(x)), rtol=1e-5, atol=1e-5
    )


def test_gelu_by_tanh_for_the_exact_one_fails() -> None:
    x = normal(50, 50)
    assert verdict_on(gelu, lambda x: torch.nn.functional.gelu(torch.from_numpy(x)).numpy(), x).passed
    fault = verdict_on(gelu, lambda x: torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy(), x)
    assert not fault.passed
    assert fault.ratio > 100


def test_an_unbiased_variance_fails() -> None:
    x = normal(2000, 4)
    fault = verdict_on(lambda x: x.var(0), lambda x: x.var(0, ddof=1), x)
    assert not fault.passed


@pytest.mark.parametrize(("size", "bound"), [(1, 16), (99, 16), (100, 8), (999, 8), (1000, 4), (5000, 4)])
def test_the_bound_follows_the_size(size: int, bound: float) -> None:
    assert bound_for(size) == bound
    reference = np.ones(size)
    error = 2.0**-23  # twice the yardstick u * rms, so `steps` steps give a ratio of 2 * steps
    for steps, passed in ((bound // 2, True), (bound // 2 + 1, False)):
        candidate = np.full(size, 1 + steps * error, np.float32)
        verdict = judge(candidate, reference, reference.astype(np.float32))
        assert verdict.ratio == pytest.approx(2 * steps, rel=1e-6)
        assert verdict.passed is passed


def test_one_wrong_element_among_many_fails_by_the_largest_error() -> None:
    reference = normal(100_000)
    exact = reference.astype(np.float32)
    candidate = exact.copy()
    candidate[7] += 20 * 2.0**-24 * np.abs(reference).max()
    verdict = judge(candidate, reference, exact)
    assert verdict.ratio < verdict.bound
    assert verdict.max_ratio > 2 * verdict.bound
    assert not verdict.passed


def test_numpys_own_loss_widens_the_yardstick() -> None:
    # A difference of nearly equal numbers keeps few digits, in every backend.
    reference, lost = np.full(10, 1e-3), np.full(10, 1e-3 + 1e-6)
    candidate = np.full(10, 1e-3 - 2e-6, np.float32)
    assert judge(candidate, reference, lost.astype(np.float32)).ratio == pytest.approx(2, rel=1e-3)
    assert not judge(candidate, reference, reference.astype(np.float32)).passed


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20))
def test_moved_elements_pass_with_ratio_zero(values: list[float]) -> None:
    exact = np.array(values, np.float32)
    verdict = judge(exact.copy(), exact.astype(np.float64), exact)
    assert verdict.passed
    assert verdict.ratio == verdict.max_ratio == 0


@given(st.integers(2, 30), st.integers(0, 28))
def test_swapped_elements_fail(size: int, place: int) -> None:
    exact = np.arange(size, dtype=np.float32)
    moved = np.roll(exact, 1 + place % (size - 1))
    assert not judge(moved, exact.astype(np.float64), exact).passed


def test_float64_is_judged_at_its_own_roundoff() -> None:
    reference = normal(200)
    near, far = reference * (1 + 2.0**-52), reference * (1 + 2.0**-46)
    assert judge(near, reference, reference.astype(np.float32)).passed
    assert not judge(far, reference, reference.astype(np.float32)).passed
    # The same numbers are without fault in float32.
    assert judge(far.astype(np.float32), reference, reference.astype(np.float32)).passed
    # An ill-conditioned result may lose in float64 what NumPy loses in float32, scaled by 2**-29.
    lossy = (reference * (1 + 2.0**-14)).astype(np.float32)
    assert judge(far, reference, lossy).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinities_stand_where_the_reference_has_them(value: float, dtype: Any) -> None:
    clean = np.array([1.0, 2.0, 3.0])
    marked = np.array([1.0, value, 3.0])
    assert judge(marked.astype(dtype), marked, marked.astype(np.float32)).passed
    assert not judge(clean.astype(dtype), marked, marked.astype(np.float32)).passed
    assert not judge(marked.astype(dtype), clean, clean.astype(np.float32)).passed
    moved = np.array([value, 2.0, 3.0])
    assert not judge(moved.astype(dtype), marked, marked.astype(np.float32)).passed


def test_the_sign_of_an_infinity_counts() -> None:
    up, down = np.array([np.inf, 1.0]), np.array([-np.inf, 1.0])
    verdict = judge(down.astype(np.float32), up, up.astype(np.float32))
    assert not verdict.passed
    assert "Inf is missing at [0]" in str(verdict)


def test_an_overflow_of_float32_is_an_infinity_there() -> None:
    reference = np.array([1e39, 1.0])
    infinite = np.array([np.inf, 1.0], np.float32)
    assert judge(infinite, reference, infinite).passed
    assert not judge(np.array([3e38, 1.0], np.float32), reference, infinite).passed


def test_where_numpy_overflows_the_reference_decides() -> None:
    reference = np.array([1.0, 2.0])
    numpy32 = np.array([np.inf, 2.0], np.float32)
    assert judge(np.array([1.0, 2.0], np.float32), reference, numpy32).passed
    assert not judge(numpy32, reference, numpy32).passed


def test_flushed_denormals_pass_and_real_numbers_for_zero_do_not() -> None:
    denormal = np.full(5, 1e-40)
    assert judge(np.zeros(5, np.float32), denormal, denormal.astype(np.float32)).passed
    zero = np.zeros(5)
    assert not judge(np.full(5, 1e-30, np.float32), zero, zero.astype(np.float32)).passed


def test_a_wrong_shape_fails_and_says_so() -> None:
    verdict = judge(np.zeros((2, 3), np.float32), np.zeros((3, 2)), np.zeros((3, 2), np.float32))
    assert not verdict.passed
    assert "shape [2, 3], not [3, 2]" in str(verdict)


def test_whole_numbers_must_be_equal() -> None:
    reference = np.array([1, 2, 3])
    assert judge(np.array([1, 2, 3], np.int32), reference, reference).passed
    assert not judge(np.array([1, 2, 4], np.int32), reference, reference).passed


def test_an_empty_tensor_passes() -> None:
    assert judge(np.zeros((0, 3), np.float32), np.zeros((0, 3)), np.zeros((0, 3), np.float32)).passed


def test_the_ratio_is_printed() -> None:
    reference = np.ones(4)
    verdict = judge(np.full(4, 1 + 2.0**-23, np.float32), reference, reference.astype(np.float32))
    assert str(verdict) == "PASS ratio 2 of 16, largest 2 of 32"


def test_a_yardstick_that_ended_early_is_none() -> None:
    right = np.array([1.0, 2.0, 3.0])
    early = np.array([1.0])
    assert judge(right.astype(np.float32), right, early).passed
    assert not judge((right * 1.01).astype(np.float32), right, early).passed
