"""Convolutions by rows against TensorFlow's own, values and gradients, in float64; and when they are taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from unitrain.backends import load_backend
from unitrain.backends.contract import Batchable, Plan, Settings
from unitrain.backends.keras.conv_rows import by_rows, convolve, eligible
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

sizes = st.integers(1, 5)


@settings(max_examples=25, deadline=None)
@given(
    rows=sizes,
    columns=sizes,
    channels=st.integers(1, 3),
    filters=sizes,
    more=st.tuples(sizes, sizes),
    same=st.booleans(),
)
def test_it_is_the_convolution(
    rows: int, columns: int, channels: int, filters: int, more: tuple[int, int], same: bool
) -> None:
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(3, rows + more[0] - 1, columns + more[1] - 1, channels)))
    kernel = tf.constant(generator.normal(size=(rows, columns, channels, filters)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((x, kernel))
        found = convolve(x, kernel, same=same)
        expected = tf.nn.conv2d(x, kernel, 1, "SAME" if same else "VALID")
        seed = tf.constant(generator.normal(size=expected.shape))
        products = [tf.reduce_sum(y * seed) for y in (found, expected)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(*(tape.gradient(product, (x, kernel)) for product in products), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("filters", "banded"), [(6, True), (32, False)])
def test_it_is_taken_where_it_pays_and_only_there(filters: int, banded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer read at two widths, as a shared one is; after the call Keras' own operation is back."""
    calls: list[int] = []

    def counted(x: tf.Tensor, kernel: tf.Tensor, *, same: bool) -> tf.Tensor:
        calls.append(x.shape[2])
        return convolve(x, kernel, same=same)

    monkeypatch.setattr("unitrain.backends.keras.conv_rows.convolve", counted)
    layer = keras.layers.Conv2D(filters, 5, padding="same")
    assert eligible(layer)
    images = [tf.random.normal((2, 28, width, 1)) for width in (28, 280)]
    expected = [layer(image) for image in images]
    with by_rows([layer]):
        found = [layer(image) for image in images]
    assert calls == ([28] if banded else [])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    layer(images[0])
    assert len(calls) == int(banded)


@pytest.mark.parametrize("options", [{"strides": 2}, {"dilation_rate": 2}, {"groups": 2}])
def test_other_convolutions_are_left_alone(options: dict[str, int]) -> None:
    assert not eligible(keras.layers.Conv2D(4, 3, **options))
    assert not eligible(keras.layers.DepthwiseConv2D(3))


def convolutional(**options: Any) -> Graph:
    layers = [
        {"type": "conv2d", "name": "conv", "filters": 3, "kernel_size": 3, **options},
        {"type": "flatten"},
        {"type": "dense", "name": "y", "units": 3},
    ]
    return resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [8, 8, 1]}}, "layers": layers}))


@pytest.mark.parametrize(
    ("options", "settings", "listed"),
    [
        ({}, Settings(), True),
        ({}, Settings(precision="float16"), False),
        ({}, Settings(device="cuda:0"), False),
        ({"strides": 2}, Settings(), False),
        ({"filters": 64}, Settings(), False),
    ],
    ids=["narrow", "16 bits", "GPU", "strided", "wide"],
)
def test_the_form_is_there_for_models_that_it_changes(
    options: dict[str, Any], settings: Settings, listed: bool
) -> None:
    names = [one.name for one in load_backend("keras").candidates(convolutional(**options), settings)]
    assert names == ["graph", *(["rows"] if listed else []), "xla"]


def test_a_program_goes_by_rows_in_that_form_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and weights of three steps in float64 are those of the standard form."""
    calls: list[bool] = []

    def counted(x: tf.Tensor, kernel: tf.Tensor, *, same: bool) -> tf.Tensor:
        calls.append(same)
        return convolve(x, kernel, same=same)

    monkeypatch.setattr("unitrain.backends.keras.conv_rows.convolve", counted)
    graph = convolutional(padding="same")
    generator = np.random.default_rng(0)
    data = Batchable({"x": generator.normal(size=(12, 8, 8, 1))}, {"y": generator.integers(0, 3, 12).astype(np.int32)})
    update = Update(Sgd(lr=0.1), {name: graph.parameters[name].decay for name in graph.trainable})
    rule = TrainingRule({"y": (1.0, make_loss(CrossEntropy()))}, [], update)
    indices = np.arange(12, dtype=np.int32).reshape(3, 4)
    plan = Plan(indices, update.coefficients(np.full(3, 0.1), 0), np.ones(3), np.ones(3, bool), 0)
    found = {}
    for execution in (None, "graph", "rows"):
        settings = replace(Settings(precision="float64"), execution=execution)
        program = load_backend("keras").compile(graph, initialize(graph, 0), settings, rule)
        losses = program.run_steps(program.place(data), plan).losses
        found[execution] = {"losses": losses, **program.weights()}
        assert bool(calls) == (execution == "rows")
    for name, expected in found["graph"].items():
        np.testing.assert_array_equal(found[None][name], expected)
        np.testing.assert_allclose(found["rows"][name], expected, rtol=1e-12, atol=1e-14)
