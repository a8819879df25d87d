"""Initial weights: the moments and limits of every initialiser, the fans of every layer, and no order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.initializers import (
    Constant,
    Glorot,
    He,
    Lecun,
    Normal,
    Ones,
    Orthogonal,
    TruncatedNormal,
    Uniform,
    Zeros,
)
from unitrain.spec.layers.base import Parameter
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import TRUNCATED_STDDEV, check_weights, draw, initialize
from unitrain.weights.random import stream

SHAPE, FANS = (200, 300), (200, 300)
VARIANCES = {Glorot: 2 / 500, He: 2 / 200, Lecun: 1 / 200}


def drawn(initializer: Any, shape: tuple[int, ...] = SHAPE, fans: tuple[int, int] = FANS) -> np.ndarray[Any, Any]:
    return draw(Parameter(shape, initializer, fans), stream(0, "test", initializer.type))


def graph_of(*layers: dict[str, Any], shape: tuple[int, ...] = (8, 8, 6), dtype: str = "float") -> Graph:
    spec = {"inputs": {"x": {"shape": list(shape), "dtype": dtype}}, "layers": list(layers)}
    return resolve(ModelSpec.model_validate(spec))


def test_the_plain_ones() -> None:
    assert (drawn(Zeros()) == 0).all()
    assert (drawn(Ones()) == 1).all()
    assert (drawn(Constant(value=-0.25)) == -0.25).all()


@pytest.mark.parametrize("gain", [1.0, 1.7])
@pytest.mark.parametrize("family", [Glorot, He, Lecun])
@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncated_normal"])
def test_scaled_initialisers_have_their_distribution(family: Any, distribution: Any, gain: float) -> None:
    values = drawn(family(distribution=distribution, gain=gain)).ravel()
    stddev = gain * VARIANCES[family] ** 0.5
    # The standard error of a mean of 60,000, and of a standard deviation.
    assert abs(values.mean()) < 5 * stddev / values.size**0.5
    assert values.std() == pytest.approx(stddev, rel=0.02)
    law = {
        "uniform": stats.uniform(-(3**0.5) * stddev, 2 * 3**0.5 * stddev),
        "normal": stats.norm(0, stddev),
        "truncated_normal": stats.truncnorm(-2, 2, scale=stddev / stats.truncnorm(-2, 2).std()),
    }[distribution]
    assert stats.kstest(values, law.cdf).pvalue > 1e-3


def test_simple_initialisers_have_their_distribution() -> None:
    laws = [
        (Uniform(low=-0.2, high=0.6), stats.uniform(-0.2, 0.8)),
        (Normal(stddev=0.3), stats.norm(0, 0.3)),
        (TruncatedNormal(stddev=0.3), stats.truncnorm(-2, 2, scale=0.3 / stats.truncnorm(-2, 2).std())),
    ]
    for initializer, law in laws:
        assert stats.kstest(drawn(initializer).ravel(), law.cdf).pvalue > 1e-3


def test_a_truncated_normal_ends_at_two_sigma() -> None:
    assert pytest.approx(stats.truncnorm(-2, 2).std(), rel=1e-12) == TRUNCATED_STDDEV
    limit = 2 * 0.3 / TRUNCATED_STDDEV
    largest = np.abs(drawn(TruncatedNormal(stddev=0.3))).max()
    assert 0.99 * limit < largest <= limit


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (3, 3, 4, 50), (2, 3, 8, 16)])
def test_orthogonal_kernels_are_orthonormal_once_folded(shape: tuple[int, ...]) -> None:
    matrix = drawn(Orthogonal(gain=2.0), shape).reshape(-1, shape[-1]) / 2.0
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(min(matrix.shape)), atol=1e-12)


def test_orthogonal_matrices_are_uniform() -> None:
    """Of a uniform orthogonal matrix the trace has mean 0 and variance 1; without the signs it has not."""
    traces = [np.trace(draw(Parameter((6, 6), Orthogonal()), stream(seed, "orthogonal"))) for seed in range(1000)]
    assert abs(np.mean(traces)) < 5 / 1000**0.5
    assert np.var(traces) == pytest.approx(1, rel=0.25)


# In and out: window area times channels that one output reads, and that one input feeds.
FAN_TABLE = [
    ({"type": "dense", "units": 5}, "kernel", (6, 5)),
    ({"type": "conv2d", "filters": 4, "kernel_size": [3, 2]}, "kernel", (36, 24)),
    ({"type": "conv2d", "filters": 4, "kernel_size": 3, "groups": 2}, "kernel", (27, 18)),
    ({"type": "depthwise_conv2d", "kernel_size": 3, "multiplier": 2}, "kernel", (9, 18)),
    ({"type": "separable_conv2d", "filters": 4, "kernel_size": 3, "multiplier": 2}, "depthwise_kernel", (9, 18)),
    ({"type": "separable_conv2d", "filters": 4, "kernel_size": 3, "multiplier": 2}, "pointwise_kernel", (12, 4)),
    ({"type": "conv_transpose2d", "filters": 4, "kernel_size": 3}, "kernel", (54, 36)),
]


@pytest.mark.parametrize(("layer", "name", "fans"), FAN_TABLE)
def test_fans_are_pinned(layer: dict[str, Any], name: str, fans: tuple[int, int]) -> None:
    assert graph_of({**layer, "name": "y"}).parameters[f"y.{name}"].fans == fans


def test_neither_order_nor_company_of_layers_matters() -> None:
    first = {"type": "dense", "name": "first", "units": 4}
    second = {"type": "dense", "name": "second", "units": 4, "inputs": "x"}
    both = {"type": "add", "name": "y", "inputs": ["first", "second"]}
    one = initialize(graph_of(first, second, both), 5)
    other = initialize(graph_of({**second}, {**first, "inputs": "x"}, both), 5)
    alone = initialize(graph_of(first), 5)
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array)
    np.testing.assert_array_equal(alone["first.kernel"], one["first.kernel"])
    assert (one["first.kernel"] != one["second.kernel"]).all()


def test_another_seed_gives_other_weights() -> None:
    graph = graph_of({"type": "dense", "name": "y", "units": 4})
    assert (initialize(graph, 0)["y.kernel"] != initialize(graph, 1)["y.kernel"]).all()
    np.testing.assert_array_equal(initialize(graph, 0)["y.kernel"], initialize(graph, 0)["y.kernel"])


def test_weights_are_float32_and_statistics_start_neutral() -> None:
    weights = initialize(graph_of({"type": "batch_norm", "name": "n"}), 0)
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    expected = {"scale": 1, "bias": 0, "running_mean": 0, "running_variance": 1}
    assert {name: array.tolist() for name, array in weights.items()} == {
        f"n.{name}": [value] * 6 for name, value in expected.items()
    }


def test_what_does_not_fit_is_told() -> None:
    graph = graph_of({"type": "dense", "name": "y", "units": 4})
    weights = initialize(graph, 0)
    assert check_weights(graph, weights) == []
    problems = check_weights(graph, {"y.kernel": weights["y.kernel"].T, "z": weights["y.bias"]})
    assert problems == [
        "'y.bias' is missing",
        "'y.kernel' has shape [4, 6], the model's is [6, 4]",
        "'z' is not a parameter of the model",
    ]


def test_weights_past_all_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("unitrain.weights.initialize.draw", full)
    with pytest.raises(InputError, match=r"no memory for 'y.kernel'"):
        initialize(graph_of({"type": "dense", "name": "y", "units": 3}, shape=(4,)), 0)
