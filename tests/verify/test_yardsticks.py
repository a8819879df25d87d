"""The yardsticks: other right formulas, and runs in which every number is moved by half an ulp of float32."""

from __future__ import annotations

import numpy as np
import pytest
from conformance.cases import CASES, Case, case_graph, case_inputs, case_output_gradient, case_weights

from unitrain.backends.contract import Program, Settings
from unitrain.backends.numpy import BACKEND
from unitrain.spec.layers import AFFINE_LAYERS
from unitrain.verify.altered import AlteredBackend
from unitrain.verify.growth import inherited_growth
from unitrain.verify.noise import HALF_ULP, moved, noise
from unitrain.verify.twins import TWINS, twins
from unitrain.verify.verdict import judge, sum_growth

TWINNED = [case for case in CASES if type(case.layer) in {*TWINS, *AFFINE_LAYERS}]


def tensors(program: Program, case: Case, training: bool) -> dict[str, np.ndarray]:
    inputs = {
        name: array if array.dtype.kind == "i" else array.astype(np.float64)
        for name, array in case_inputs(case).items()
    }
    gradient = {"y": case_output_gradient(case).astype(np.float64)}
    outputs, by_input, by_parameter = program.differentiate(inputs, gradient, training=training)
    return {**outputs, **by_input, **by_parameter}


@pytest.mark.parametrize("case", TWINNED, ids=lambda case: case.label)
@pytest.mark.parametrize("training", [True, False])
def test_a_twin_is_the_same_function_in_float64(case: Case, training: bool) -> None:
    graph, weights, settings = case_graph(case), case_weights(case), Settings(precision="float64")
    right = tensors(BACKEND.compile(graph, weights, settings), case, training)
    found = tensors(AlteredBackend(twins).compile(graph, weights, settings), case, training)
    assert found.keys() == right.keys()
    for name, array in right.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-11, err_msg=name)


def test_every_kind_with_a_twin_has_cases() -> None:
    assert {type(case.layer) for case in TWINNED} == {*TWINS, *AFFINE_LAYERS}


def test_a_move_is_at_most_half_an_ulp_and_leaves_zero_and_integers() -> None:
    generator = np.random.default_rng(0)
    x = np.concatenate([np.zeros(10), generator.normal(size=1000) * 10.0 ** generator.uniform(-20, 20, 1000)])
    y = moved(x, generator)
    assert (np.abs(y - x) <= HALF_ULP * np.abs(x) * (1 + 1e-9)).all()
    assert (y[:10] == 0).all()
    assert (y[10:] != x[10:]).mean() > 0.99
    rows = np.arange(5)
    assert moved(rows, generator) is rows


def test_noise_shows_what_cancels() -> None:
    """The gradient of a bias before a batch norm is 0; float32 leaves roundings of its terms, and noise shows them."""
    from unitrain.graph.resolve import resolve
    from unitrain.spec.model import ModelSpec

    layers = [{"type": "dense", "name": "dense", "units": 3}, {"type": "batch_norm", "name": "norm"}]
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [4]}}, "layers": layers}))
    generator = np.random.default_rng(1)
    weights = {name: generator.uniform(0.5, 1.5, p.shape).astype(np.float32) for name, p in graph.parameters.items()}
    x, dy = generator.normal(size=(64, 4)), {"norm": generator.normal(size=(64, 3))}
    wide = Settings(precision="float64")
    found = {}
    for label, backend in (("exact", BACKEND), ("noisy", AlteredBackend(noise(0, 1)))):
        found[label] = backend.compile(graph, weights, wide).differentiate({"x": x}, dy)[2]["dense.bias"]
    narrow = BACKEND.compile(graph, weights, Settings()).differentiate({"x": x}, dy)[2]["dense.bias"]
    assert np.abs(found["exact"]).max() < 1e-13
    assert 1e-9 < np.abs(found["noisy"]).max() < 1e-4
    assert judge(narrow, found["exact"], found["noisy"]).passed
    assert not judge(narrow, found["exact"]).passed


def test_noise_shows_what_cancels_in_a_cosine_with_itself() -> None:
    """By either input it is dy (u - u) / |x|: nothing, but for half an ulp of each of the two terms."""
    from unitrain.graph.resolve import resolve
    from unitrain.spec.model import ModelSpec

    layers = [{"type": "cosine", "name": "alike", "inputs": ["x", "x"]}]
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [4]}}, "layers": layers}))
    generator = np.random.default_rng(2)
    x, dy = generator.normal(size=(64, 4)), generator.normal(size=64)
    program = AlteredBackend(noise(0, 1)).compile(graph, {}, Settings(precision="float64"))
    (found,) = program.differentiate({"x": x}, {"alike": dy})[1].values()
    term = np.abs(dy[:, None] * x / np.square(x).sum(axis=1, keepdims=True))
    # Two inputs, two terms of each, none moved by more than half an ulp, and a quarter of that in the mean of four.
    assert (np.abs(found) <= 4.0 * HALF_ULP * term * (1 + 1e-6)).all()
    assert np.abs(found).mean() > 0.25 * HALF_ULP * term.mean()


@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru"])
def test_noise_reaches_the_steps_of_a_recurrent_layer(kind: str) -> None:
    """Next to saturation 1 - y^2 has lost its digits: gradients move by far more than what is given and comes out."""
    from unitrain.graph.resolve import resolve
    from unitrain.spec.model import ModelSpec

    layers = [{"type": kind, "name": "steps", "units": 3}]
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [1, 1]}}, "layers": layers}))
    # Of one step from a state of zeros, with biases at which every curve is within 2e-3 of its end.
    weights = {
        name: np.full(p.shape, 4.0 if name.endswith(".bias") else 0.5, np.float32)
        for name, p in graph.parameters.items()
    }
    x, dy = np.full((1, 1, 1), 0.1), {"steps": np.ones((1, 3))}
    wide = Settings(precision="float64")
    exact, noisy = (
        backend.compile(graph, weights, wide).differentiate({"x": x}, dy)[2]["steps.bias"]
        for backend in (BACKEND, AlteredBackend(noise(0, 1)))
    )
    lost = np.abs(noisy - exact)[exact != 0] / np.abs(exact)[exact != 0] / HALF_ULP
    assert 8.0 < lost.max() < 1e4


@pytest.mark.parametrize(("terms", "growth"), [(1, 1.0), (32, 1.0), (3200, 10.0), (320000, 100.0)])
def test_growth_of_a_sum(terms: int, growth: float) -> None:
    assert sum_growth(terms) == pytest.approx(growth)


def test_growth_is_inherited() -> None:
    from unitrain.graph.resolve import resolve
    from unitrain.spec.model import ModelSpec

    layers = [{"type": "relu", "name": "a"}, {"type": "batch_norm", "name": "b"}, {"type": "relu", "name": "c"}]
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [40, 5, 2]}}, "layers": layers}))
    growth = inherited_growth(graph, 16, training=True)
    assert growth["a"] == 1.0
    assert growth["b"] == growth["c"] == pytest.approx(10.0)
    assert set(inherited_growth(graph, 16, training=False).values()) == {1.0}
