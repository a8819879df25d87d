"""Optimizers against torch.optim in float64, a hand loop where torch has none, and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.torch.namespace import TorchNamespace
from unitrain.spec.base import Spec
from unitrain.spec.optimizers import Adagrad, Adam, AdamW, Lion, Nadam, Optimizer, RmsProp, Sgd
from unitrain.train.update import Update

Floats = npt.NDArray[np.float64]
Weights = dict[str, Any]

UPDATES = 60
DECAYS = {"kernel": True, "bias": False}
NUMPY, TORCH = NumpyNamespace(), TorchNamespace()


def start() -> Weights:
    rng = np.random.default_rng(5)
    return {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}


def slope(weights: Weights, update: int) -> Weights:
    """Gradients that depend on the weights, so that errors feed back, and differ from update to update."""
    rng = np.random.default_rng(update)
    return {name: 0.3 * value + rng.normal(scale=1.5, size=value.shape) for name, value in weights.items()}


def rates(lr: float, updates: int = UPDATES) -> Floats:
    """A learning rate that falls to a tenth half way: what a velocity holds must not remember the old one."""
    return np.where(np.arange(updates) < updates // 2, lr, 0.1 * lr)


def zero_slots(update: Update, weights: Weights) -> dict[str, Weights]:
    return {
        slot: {name: value.copy() if slot == "ema" else np.zeros_like(value) for name, value in weights.items()}
        for slot in update.slots
    }


def run(spec: Optimizer, gradient: Callable[[Weights, int], Weights] = slope, updates: int = UPDATES) -> list[Weights]:
    """The weights after each update."""
    update = Update(spec, DECAYS)
    weights, trace = start(), []
    slots = zero_slots(update, weights)
    for number, row in enumerate(update.coefficients(rates(spec.lr, updates), 0)):
        weights, slots = update.update(NUMPY, weights, gradient(weights, number), slots, row)
        trace.append(weights)
    return trace


def run_torch(
    make: Callable[[Iterable[Any]], torch.optim.Optimizer],
    lr: float,
    clip: Callable[[list[torch.Tensor]], Any] = lambda parameters: None,
    decayed: tuple[str, ...] = ("kernel", "bias"),
) -> list[Weights]:
    """The same with torch.optim; parameters that are not ``decayed`` are in a group without decay."""
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in start().items()}
    groups: list[dict[str, Any]] = [{"params": [weights[name] for name in decayed]}]
    groups += [{"params": [value], "weight_decay": 0.0} for name, value in weights.items() if name not in decayed]
    optimizer = make(groups)
    trace = []
    for number, rate in enumerate(rates(lr)):
        gradients = slope({name: value.detach().numpy() for name, value in weights.items()}, number)
        for name, value in weights.items():
            value.grad = torch.tensor(gradients[name])
        clip(list(weights.values()))
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        optimizer.step()
        trace.append({name: value.detach().numpy().copy() for name, value in weights.items()})
    return trace


def assert_same(found: list[Weights], expected: list[Weights]) -> None:
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        for name in other:
            np.testing.assert_allclose(
                one[name], other[name], rtol=1e-11, atol=1e-13, err_msg=f"{name} after update {number}"
            )


@pytest.fixture(autouse=True)
def _scalars_in_float64() -> Iterator[None]:
    """torch keeps NAdam's product of momenta in the default dtype: float32 would cost nine digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        (Sgd(lr=0.05), lambda p: torch.optim.SGD(p)),
        (Sgd(lr=0.05, momentum=0.9), lambda p: torch.optim.SGD(p, momentum=0.9)),
        (Sgd(lr=0.05, momentum=0.8, nesterov=True), lambda p: torch.optim.SGD(p, momentum=0.8, nesterov=True)),
        (Adagrad(lr=0.1), lambda p: torch.optim.Adagrad(p)),
        (Adagrad(lr=0.1, epsilon=0.3), lambda p: torch.optim.Adagrad(p, eps=0.3)),
        (RmsProp(lr=0.02), lambda p: torch.optim.RMSprop(p)),
        (RmsProp(lr=0.02, decay=0.7, epsilon=0.1), lambda p: torch.optim.RMSprop(p, alpha=0.7, eps=0.1)),
        (RmsProp(lr=0.02, momentum=0.9), lambda p: torch.optim.RMSprop(p, momentum=0.9)),
        (RmsProp(lr=0.02, centred=True), lambda p: torch.optim.RMSprop(p, centered=True)),
        (
            RmsProp(lr=0.02, centred=True, momentum=0.5, decay=0.9),
            lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.5, alpha=0.9),
        ),
        (Adam(lr=0.03), lambda p: torch.optim.Adam(p)),
        (
            Adam(lr=0.03, beta1=0.6, beta2=0.9, epsilon=0.2),
            lambda p: torch.optim.Adam(p, betas=(0.6, 0.9), eps=0.2),
        ),
        (Adam(lr=0.03, beta1=0.0), lambda p: torch.optim.Adam(p, betas=(0.0, 0.999))),
        (Nadam(lr=0.03), lambda p: torch.optim.NAdam(p)),
        (
            Nadam(lr=0.03, beta1=0.7, beta2=0.95, epsilon=0.1),
            lambda p: torch.optim.NAdam(p, betas=(0.7, 0.95), eps=0.1),
        ),
        # l2 * sum(w^2) has the gradient 2 * l2 * w: torch's weight_decay is twice l2.
        (
            Sgd(lr=0.05, momentum=0.9, l2=0.1, decay_all=True),
            lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.2),
        ),
        (Adam(lr=0.03, l2=0.05, decay_all=True), lambda p: torch.optim.Adam(p, weight_decay=0.1)),
        (RmsProp(lr=0.03, l2=0.05, decay_all=True), lambda p: torch.optim.RMSprop(p, weight_decay=0.1)),
        (Nadam(lr=0.03, l2=0.05, decay_all=True), lambda p: torch.optim.NAdam(p, weight_decay=0.1)),
        (AdamW(lr=0.03, decay_all=True), lambda p: torch.optim.AdamW(p, weight_decay=0.01)),
        (AdamW(lr=0.03, weight_decay=0.4, decay_all=True), lambda p: torch.optim.AdamW(p, weight_decay=0.4)),
        (
            Nadam(lr=0.03, weight_decay=0.3, decay_all=True),
            lambda p: torch.optim.NAdam(p, weight_decay=0.3, decoupled_weight_decay=True),
        ),
    ],
    ids=lambda value: value.to_yaml().replace("\n", " ").strip() if isinstance(value, Spec) else "torch",
)
def test_as_torch(spec: Optimizer, make: Callable[[Iterable[Any]], torch.optim.Optimizer]) -> None:
    assert_same(run(spec), run_torch(make, spec.lr))


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        (AdamW(lr=0.03, weight_decay=0.4), lambda p: torch.optim.AdamW(p, weight_decay=0.4)),
        (Sgd(lr=0.05, l2=0.1), lambda p: torch.optim.SGD(p, weight_decay=0.2)),
    ],
    ids=["weight_decay", "l2"],
)
def test_biases_do_not_decay_by_default(
    spec: Optimizer, make: Callable[[Iterable[Any]], torch.optim.Optimizer]
) -> None:
    assert_same(run(spec), run_torch(make, spec.lr, decayed=("kernel",)))
    free = run(spec.model_copy(update={"weight_decay": 0.0, "l2": 0.0}))
    np.testing.assert_array_equal(run(spec)[0]["bias"], free[0]["bias"])
    everywhere = run(spec.model_copy(update={"decay_all": True}))
    assert not np.allclose(everywhere[-1]["bias"], free[-1]["bias"], rtol=1e-3)


def test_weight_decay_is_decoupled_in_sgd() -> None:
    """SGDW: what decays does not enter the velocity (Loshchilov & Hutter 2019, algorithm 1)."""
    spec = Sgd(lr=0.05, momentum=0.9, weight_decay=0.3, decay_all=True)
    w = start()
    b = {name: np.zeros_like(value) for name, value in w.items()}
    expected = []
    for number, rate in enumerate(rates(spec.lr)):
        g = slope(w, number)
        b = {name: 0.9 * b[name] + g[name] for name in w}
        w = {name: w[name] * (1.0 - rate * 0.3) - rate * b[name] for name in w}
        expected.append(w)
    assert_same(run(spec), expected)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lion_is_its_paper(decay: float) -> None:
    """Chen et al. 2023, algorithm 2, one number at a time."""
    spec = Lion(lr=0.02, beta1=0.8, beta2=0.95, weight_decay=decay, decay_all=True)
    w = start()
    m = {name: np.zeros_like(value) for name, value in w.items()}
    expected = []
    for number, rate in enumerate(rates(spec.lr)):
        g = slope(w, number)
        w = {name: value.copy() for name, value in w.items()}
        for name, value in w.items():
            for place in np.ndindex(value.shape):
                mixed = 0.8 * m[name][place] + (1 - 0.8) * g[name][place]
                value[place] -= rate * (math.copysign(1.0, mixed) + decay * value[place])
                m[name][place] = 0.95 * m[name][place] + (1 - 0.95) * g[name][place]
        expected.append(w)
    assert_same(run(spec), expected)


@pytest.mark.parametrize("limit", [0.5, 4.0, 1e3])
def test_clip_norm_is_torch(limit: float) -> None:
    expected = run_torch(
        lambda p: torch.optim.SGD(p, momentum=0.9), 0.05, lambda w: torch.nn.utils.clip_grad_norm_(w, limit)
    )
    assert_same(run(Sgd(lr=0.05, momentum=0.9, clip_norm=limit)), expected)


def test_clip_value_is_torch_and_comes_before_the_norm() -> None:
    def clip(weights: list[torch.Tensor]) -> None:
        torch.nn.utils.clip_grad_value_(weights, 0.7)

    def clip_both(weights: list[torch.Tensor]) -> None:
        clip(weights)
        torch.nn.utils.clip_grad_norm_(weights, 1.5)

    assert_same(run(Adam(clip_value=0.7)), run_torch(lambda p: torch.optim.Adam(p), 1e-3, clip))
    both = run_torch(lambda p: torch.optim.SGD(p), 0.01, clip_both)
    assert_same(run(Sgd(clip_value=0.7, clip_norm=1.5)), both)


def test_the_penalty_is_clipped_with_the_gradient() -> None:
    spec = Sgd(lr=1.0, l2=10.0, clip_value=1e-3, decay_all=True)
    first = run(spec, lambda weights, number: {name: np.zeros_like(value) for name, value in weights.items()})[0]
    for name, value in start().items():
        np.testing.assert_allclose(first[name], value - 1e-3 * np.sign(value), rtol=1e-14)


def test_no_gradient_no_norm() -> None:
    spec = Sgd(lr=1.0, clip_norm=1.0)
    zeros = run(spec, lambda weights, number: {name: 0.0 * value for name, value in weights.items()})
    assert_same(zeros[-1:], [start()])


def test_ema_is_the_weighted_sum_of_all_weights() -> None:
    """e_n = d^n w_0 + (1 - d) sum_k d^(n - k) w_k."""
    d, spec = 0.9, Adam(lr=0.03, ema=0.9)
    update = Update(spec, DECAYS)
    weights = start()
    slots, seen = zero_slots(update, weights), [weights]
    for number, row in enumerate(update.coefficients(rates(spec.lr), 0)):
        weights, slots = update.update(NUMPY, weights, slope(weights, number), slots, row)
        seen.append(weights)
    assert_same(seen[1:], run(spec.model_copy(update={"ema": None})))
    for name in weights:
        expected = d**UPDATES * seen[0][name]
        expected = expected + (1 - d) * sum(d ** (UPDATES - k) * seen[k][name] for k in range(1, UPDATES + 1))
        np.testing.assert_allclose(slots["ema"][name], expected, rtol=1e-12)


SPECS: list[Optimizer] = [
    Sgd(weight_decay=0.1),
    Sgd(momentum=0.9, nesterov=True),
    Lion(weight_decay=0.1),
    Adagrad(),
    RmsProp(momentum=0.5, centred=True),
    Adam(ema=0.99, clip_norm=1.0, clip_value=2.0, l2=0.1),
    AdamW(),
    Nadam(),
]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)


@every_spec
@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 39)), lr=st.floats(1e-5, 1.0))
def test_coefficients_do_not_depend_on_the_blocks(spec: Optimizer, cuts: set[int], lr: float) -> None:
    update = Update(spec, DECAYS)
    whole = update.coefficients(rates(lr, 40), 0)
    edges = [0, *sorted(cuts), 40]
    parts = [update.coefficients(rates(lr, 40)[a:b], a) for a, b in pairwise(edges)]
    assert whole.dtype == np.float64
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@every_spec
def test_coefficients_late_in_a_run_are_finite(spec: Optimizer) -> None:
    late = Update(spec, DECAYS).coefficients(np.array([spec.lr]), 2_000_000)
    assert late.shape[0] == 1
    assert np.isfinite(late).all()


@pytest.mark.parametrize("beta1", [0.0, 0.9, 0.999999])
def test_the_momenta_of_nadam_multiply(beta1: float) -> None:
    """mu_1 * ... * mu_t in plain Python, past the point where 1 - product is 1."""
    found = Update(Nadam(beta1=beta1, lr=1.0), DECAYS).coefficients(np.ones(400), 0)
    product, mu = 1.0, [beta1 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in range(1, 402)]
    for row, now, after in zip(found, mu, mu[1:], strict=False):
        product *= now
        np.testing.assert_allclose(row[1:3], [(1 - now) / (1 - product), after / (1 - product * after)], rtol=1e-15)


@every_spec
def test_nothing_is_changed_in_place(spec: Optimizer) -> None:
    update = Update(spec, DECAYS)
    weights = start()
    slots, gradients = zero_slots(update, weights), slope(weights, 0)
    before = {name: value.copy() for name, value in gradients.items()}
    new, new_slots = update.update(NUMPY, weights, gradients, slots, update.coefficients(np.array([0.1]), 0)[0])
    for name, value in start().items():
        np.testing.assert_array_equal(weights[name], value)
        np.testing.assert_array_equal(gradients[name], before[name])
        assert not np.array_equal(new[name], value)
        assert all(not slots[slot][name].any() for slot in update.rule.slots)
    assert set(new_slots) == set(update.slots)
    assert all(set(new_slots[slot]) == set(weights) for slot in update.slots)


@every_spec
def test_all_namespaces_agree_in_float32(spec: Optimizer) -> None:
    """A few float32 updates: the dtype stays, and the update is the float64 one to rounding."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is optional")
    from unitrain.backends.keras.namespace import TensorFlowNamespace

    update = Update(spec, DECAYS)
    exact = run(spec, lambda weights, number: slope(start(), number), updates=5)[-1]
    columns: list[tuple[Any, Callable[[Any], Any], Any]] = [
        (NUMPY, np.asarray, np.float32),
        (TORCH, torch.tensor, torch.float32),
        (TensorFlowNamespace(), tf.constant, tf.float32),
    ]
    for xp, convert, dtype in columns:
        single = {name: value.astype(np.float32) for name, value in start().items()}
        weights = {name: convert(value) for name, value in single.items()}
        slots = {
            slot: {name: convert(value) for name, value in values.items()}
            for slot, values in zero_slots(update, single).items()
        }
        for number, row in enumerate(update.coefficients(rates(spec.lr, 5), 0)):
            gradients = {name: convert(value.astype(np.float32)) for name, value in slope(start(), number).items()}
            scalars = [convert(np.float32(value)) for value in row]
            weights, slots = update.update(xp, weights, gradients, slots, scalars)
        for name, value in weights.items():
            assert value.dtype == dtype
            assert all(slots[slot][name].dtype == dtype for slot in update.slots)
            np.testing.assert_allclose(np.asarray(value), exact[name], rtol=1e-5, atol=2e-6)
