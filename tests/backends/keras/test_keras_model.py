"""Models as Keras sees them: layers, layouts, going on with them, and the meaning where Keras has another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from unitrain.backends import load_backend
from unitrain.backends.contract import Settings
from unitrain.backends.keras import BACKEND
from unitrain.backends.keras.dropout import keep_mask
from unitrain.backends.keras.namespace import TensorFlowNamespace
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.model import ModelSpec
from unitrain.weights import random

IMAGE = {"x": {"shape": [7, 6, 4]}}
SEQUENCE = {"x": {"shape": [9, 4]}}


def graph_of(inputs: dict[str, Any], *layers: dict[str, Any], **more: Any) -> Graph:
    return resolve(ModelSpec.model_validate({"inputs": inputs, "layers": list(layers), **more}))


def weights_of(graph: Graph) -> dict[str, Any]:
    """Draw weights that are all different, running statistics too."""
    generator = np.random.default_rng(5)
    return {
        name: generator.uniform(0.2, 1.0, parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters.items()
    }


# One network with every layer of ours and every other layout than the canonical one.
RICH = graph_of(
    {"image": {"shape": [8, 8, 4]}, "words": {"shape": [5], "dtype": "integer"}},
    {
        "type": "conv2d",
        "name": "stem",
        "inputs": "image",
        "filters": 4,
        "kernel_size": 3,
        "padding": 1,
        "groups": 2,
    },
    {"type": "batch_norm", "name": "norm"},
    {"type": "prelu", "name": "slope"},
    {
        "type": "conv2d",
        "name": "wide",
        "filters": 4,
        "kernel_size": 3,
        "strides": 2,
        "dilation": 2,
        "padding": "same",
    },
    {"type": "conv_transpose2d", "name": "up", "filters": 3, "kernel_size": [3, 2], "strides": 2},
    {"type": "separable_conv2d", "name": "apart", "filters": 5, "kernel_size": 3, "multiplier": 2},
    {"type": "max_pool2d", "name": "pool", "kernel_size": 2, "padding": 1, "dilation": 2},
    {"type": "upsample2d", "name": "bilinear", "interpolation": "bilinear"},
    {"type": "padding", "name": "mirror", "amounts": [1, [0, 2]], "mode": "reflect"},
    {"type": "rms_norm", "name": "plain", "use_scale": False},
    {"type": "leaky_relu", "name": "leaky"},
    {"type": "selu", "name": "selu"},
    {"type": "gelu", "name": "gelu", "approximate": "tanh"},
    {"type": "gelu", "name": "exact"},
    {"type": "hard_sigmoid", "name": "sigmoid"},
    {"type": "hard_swish", "name": "swish"},
    {"type": "dropout", "name": "drop", "rate": 0.25},
    {"type": "global_average_pool", "name": "mean"},
    {"type": "embedding", "name": "table", "inputs": "words", "vocabulary": 7, "width": 5},
    {"type": "block", "name": "tower", "block": "unit", "repeat": 2},
    {"type": "shared", "name": "again", "layer": "tower"},
    {"type": "global_max_pool", "name": "most"},
    {"type": "add", "name": "sum", "inputs": ["mean", "most"]},
    {"type": "dense", "name": "classes", "units": 3},
    {"type": "dense", "name": "side", "units": 2, "inputs": "sum"},
    outputs=["classes", "side"],
    blocks={
        "unit": {"layers": [{"type": "conv1d", "name": "conv", "filters": 5, "kernel_size": 3, "padding": "same"}]}
    },
)


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    generator = np.random.default_rng(1)
    return {
        "image": generator.normal(size=(6, 8, 8, 4)).astype(np.float32),
        "words": generator.integers(0, 7, (6, 5)).astype(np.int32),
    }


def test_every_layer_has_an_implementation() -> None:
    assert BACKEND.layer_types() == frozenset(LAYER_TYPES)


def test_layouts_go_round_bit_for_bit() -> None:
    weights = weights_of(RICH)
    program = BACKEND.compile(RICH, weights, Settings())
    found = program.weights()
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    doubled = {name: 2 * array for name, array in weights.items()}
    program.load_weights(doubled)
    for name, array in program.weights().items():
        np.testing.assert_array_equal(array, doubled[name])


def test_going_on_in_keras(tmp_path: Path, batch: dict[str, Any]) -> None:
    model = BACKEND.build(RICH, weights_of(RICH), Settings(seed=2))
    assert isinstance(model, keras.Model)
    names = [layer.name for layer in model.layers]
    # The node's names; a shared block's layers are there once and called twice.
    assert {"stem", "wide", "tower.0.conv", "tower.1.conv", "classes"} <= set(names)
    assert not any(name.startswith("again") for name in names)
    assert isinstance(model.get_layer("stem"), keras.layers.Conv2D)

    model.compile(optimizer="sgd", loss={"classes": "mse", "side": "mse"})
    targets = {"classes": np.zeros((6, 3), np.float32), "side": np.zeros((6, 2), np.float32)}
    model.fit(batch, targets, epochs=1, batch_size=3, verbose=0)
    assert int(model.get_layer("drop").step) == 2

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, values in model(batch, training=False).items():
        np.testing.assert_array_equal(loaded(batch, training=False)[name], values)
    for name, values in model(batch, training=True).items():  # the same dropout mask comes next
        np.testing.assert_allclose(loaded(batch, training=True)[name], values, rtol=1e-6)


def test_single_input_and_output_are_plain_tensors() -> None:
    graph = graph_of({"x": {"shape": [4]}}, {"type": "dense", "units": 3, "activation": "relu"}, name="a net/1")
    weights = weights_of(graph)
    model = BACKEND.build(graph, weights, Settings(precision="float64"))
    x = np.random.default_rng(0).normal(size=(5, 4))
    expected = np.maximum(x @ weights["dense_1.kernel"].astype(np.float64) + weights["dense_1.bias"], 0)
    np.testing.assert_allclose(model(x), expected, rtol=1e-12)


def settings_of_keras() -> tuple[str, ...]:
    return (keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy().name)


def test_keras_is_left_as_it_was() -> None:
    before = settings_of_keras()
    keras.layers.Dense(1)  # the first of a process has no number
    number = int(keras.layers.Dense(1).name.rpartition("_")[2])
    graph = graph_of(IMAGE, {"type": "conv2d", "filters": 2, "kernel_size": 3}, {"type": "dense", "units": 1})
    BACKEND.compile(graph, weights_of(graph), Settings(precision="float64"))
    assert settings_of_keras() == before
    assert int(keras.layers.Dense(1).name.rpartition("_")[2]) == number + 1


def test_what_keras_is_set_to_does_not_matter() -> None:
    layers = ({"type": "conv2d", "filters": 2, "kernel_size": 3}, {"type": "batch_norm"}, {"type": "flatten"})
    graph = graph_of(IMAGE, *layers)
    weights = weights_of(graph)
    x = {"x": np.random.default_rng(0).normal(size=(2, 7, 6, 4)).astype(np.float32)}
    expected = BACKEND.compile(graph, weights, Settings()).predict(x)["flatten_1"]
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        found = BACKEND.compile(graph, weights, Settings()).predict(x)["flatten_1"]
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("size", "step"), [(1, 0), (7, 3), (64, 2**32 - 1), (1001, 2**33 + 5)])
def test_masks_are_the_projects_bit_for_bit(size: int, step: int) -> None:
    key = random.mask_key(11, "dropout", "layer")
    for rate in (0.0, 0.3, 0.999):
        np.testing.assert_array_equal(
            keep_mask(key, np.int64(step), size, rate), random.keep_mask(key, step, size, rate)
        )


def test_dropout_layer_uses_the_mask_of_its_step() -> None:
    graph = graph_of({"x": {"shape": [5, 3]}}, {"type": "dropout", "name": "drop", "rate": 0.3})
    program = BACKEND.compile(graph, {}, Settings(seed=4))
    x = np.ones((7, 5, 3), np.float32)
    kept = random.keep_mask(random.mask_key(4, "dropout", "drop"), 12, x.size, 0.3).reshape(x.shape)
    found = program.activations({"x": x}, training=True, step=12)["drop"]
    np.testing.assert_array_equal(found, kept * np.float32(1 / 0.7))
    np.testing.assert_array_equal(program.predict({"x": x})["drop"], x)


CONVOLUTION = {"kernel_size": [3, 2], "name": "layer"}
# Options for which Keras or TensorFlow has no layer, refuses, or has another meaning.
UNUSUAL = {
    "strides and dilation": (
        IMAGE,
        {"type": "conv2d", "filters": 4, "strides": 2, "dilation": 2, **CONVOLUTION},
    ),
    "the same, padded": (
        IMAGE,
        {
            "type": "conv2d",
            "filters": 4,
            "strides": [1, 2],
            "dilation": [2, 1],
            "padding": "same",
            **CONVOLUTION,
        },
    ),
    "groups": (SEQUENCE, {"type": "conv1d", "filters": 6, "groups": 2, "kernel_size": 3, "padding": "same"}),
    "the same, grouped": (
        IMAGE,
        {
            "type": "conv2d",
            "filters": 4,
            "groups": 2,
            "strides": 2,
            "dilation": 2,
            "padding": 2,
            **CONVOLUTION,
        },
    ),
    "explicit padding": (
        IMAGE,
        {"type": "conv2d", "filters": 4, "padding": [[1, 2], [0, 1]], "strides": 2, **CONVOLUTION},
    ),
    "unequal depthwise strides": (
        IMAGE,
        {"type": "depthwise_conv2d", "multiplier": 3, "strides": [1, 2], "padding": "same", **CONVOLUTION},
    ),
    "unequal separable strides": (
        IMAGE,
        {"type": "separable_conv2d", "filters": 3, "strides": [2, 1], "multiplier": 2, **CONVOLUTION},
    ),
    "transposed, stride over kernel": (
        IMAGE,
        {"type": "conv_transpose2d", "filters": 3, "strides": 4, **CONVOLUTION},
    ),
    "transposed, same": (
        SEQUENCE,
        {"type": "conv_transpose1d", "filters": 3, "strides": 4, "padding": "same", "kernel_size": 3},
    ),
    "padded mean": (
        IMAGE,
        {"type": "average_pool2d", "padding": [[1, 0], [0, 1]], "strides": 1, **CONVOLUTION},
    ),
    "dilated mean": (
        IMAGE,
        {"type": "average_pool2d", "dilation": 2, "strides": 2, "padding": "same", **CONVOLUTION},
    ),
    "padded maximum": (IMAGE, {"type": "max_pool2d", "padding": [[1, 0], [0, 1]], **CONVOLUTION}),
    "dilated maximum": (SEQUENCE, {"type": "max_pool1d", "dilation": 3, "strides": 2, "kernel_size": 2}),
    "global maximum": ({"x": {"shape": [2, 3, 2, 4]}}, {"type": "global_max_pool", "keep_axes": True}),
    "global mean": ({"x": {"shape": [2, 3, 2, 4]}}, {"type": "global_average_pool"}),
    "bilinear": (IMAGE, {"type": "upsample2d", "factor": [3, 2], "interpolation": "bilinear"}),
    "edge": (IMAGE, {"type": "padding", "amounts": [[2, 1], 0, [1, 1]], "mode": "edge"}),
    "reflect": (SEQUENCE, {"type": "padding", "amounts": [[2, 5]], "mode": "reflect"}),
    "filled": (IMAGE, {"type": "padding", "amounts": [1, 2], "value": -1.5}),
    "plain rms norm": (IMAGE, {"type": "rms_norm", "use_scale": False}),
    "layer norm over three axes": (IMAGE, {"type": "layer_norm", "axes": 3}),
    "batch norm": (IMAGE, {"type": "batch_norm", "use_scale": False}),
    "softmax over the height": (IMAGE, {"type": "softmax", "axis": 0}),
}
KINKED = (
    "relu",
    "relu6",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "softplus",
)


def compare(graph: Graph, x: Any) -> None:
    """Hold outputs and gradients in float64, in inference and training, to the reference's."""
    reference = load_backend("numpy")
    weights, settings = weights_of(graph), Settings(precision="float64")
    here, there = (backend.compile(graph, weights, settings) for backend in (BACKEND, reference))
    (output,) = graph.outputs
    generator = np.random.default_rng(2)
    seeds = {output: generator.normal(size=(len(x), *graph.shape(graph.outputs[output])))}
    for training in (False, True):
        found = here.differentiate({"x": x}, seeds, training=training, step=1)
        expected = there.differentiate({"x": x}, seeds, training=training, step=1)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.keys() == theirs.keys()
            for name, array in theirs.items():
                np.testing.assert_allclose(ours[name], array, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_options_agree_with_the_reference(case: str) -> None:
    inputs, layer = UNUSUAL[case]
    x = np.random.default_rng(3).normal(size=(3, *inputs["x"]["shape"]))
    compare(graph_of(inputs, layer), x)


@pytest.mark.parametrize("kind", KINKED)
def test_derivatives_at_kinks(kind: str) -> None:
    points = np.array([[-7.0, -6.0, -3.0, -1.0, -0.0, 0.0, 1.0, 3.0, 6.0, 7.0]])
    compare(graph_of({"x": {"shape": [10]}}, {"type": kind}), points)


@pytest.mark.parametrize(
    "layer",
    [
        {"type": "max_pool2d", "kernel_size": 3, "strides": 1, "padding": "same"},
        {"type": "max_pool2d", "kernel_size": 2, "strides": 1, "padding": 1},
        {"type": "max_pool2d", "kernel_size": 2, "strides": 1, "dilation": 2},
        {"type": "global_max_pool"},
    ],
)
def test_the_first_of_equals_gets_the_gradient(layer: dict[str, Any]) -> None:
    compare(graph_of(IMAGE, layer), -np.random.default_rng(0).integers(1, 3, (2, 7, 6, 4)).astype(np.float64))


def test_namespace_is_numpys() -> None:
    import tensorflow as tf

    xp = TensorFlowNamespace()
    array = np.random.default_rng(0).uniform(0.5, 2.0, (3, 4))
    x = tf.constant(array)
    for name in (
        "abs",
        "exp",
        "log",
        "log1p",
        "sqrt",
        "square",
        "sign",
        "tanh",
        "zeros_like",
        "ones_like",
        "isfinite",
    ):
        np.testing.assert_allclose(getattr(xp, name)(x), getattr(np, name)(array), rtol=1e-14)
    index = np.array([2, 0, 3])
    np.testing.assert_array_equal(xp.take_last(x, tf.constant(index)), array[np.arange(3), index])
    np.testing.assert_array_equal(xp.take(x, tf.constant([[2, 0]])), array[[[2, 0]]])
    np.testing.assert_array_equal(xp.one_hot(tf.constant([1, -1, 4]), 4, x), np.eye(4)[[1, 1, 1]] * [[1], [0], [0]])
    np.testing.assert_array_equal(xp.argmax(tf.constant([[1.0, 3.0, 3.0]]), 1), [1])
    np.testing.assert_allclose(xp.sum(x, (0, 1)), array.sum(), rtol=1e-14)
    np.testing.assert_allclose(xp.sum(x, 1, keepdims=True), array.sum(1, keepdims=True), rtol=1e-14)
    np.testing.assert_allclose(xp.max(x, 0), array.max(0))
    np.testing.assert_array_equal(xp.clip(x, 1.0, 1.5), array.clip(1.0, 1.5))
    np.testing.assert_array_equal(xp.where(x > 1.0, x, 0.0), np.where(array > 1.0, array, 0.0))
    np.testing.assert_array_equal(xp.where(x > 1.0, 0.0, x), np.where(array > 1.0, 0.0, array))
    assert xp.asarray(np.float64(0.1), x).dtype == tf.float64
    assert float(xp.asarray(0.1, x)) == 0.1
    assert xp.cast(x > 1.0, x).dtype == tf.float64
    np.testing.assert_array_equal(xp.reshape(x, (4, 3)), array.reshape(4, 3))
    np.testing.assert_array_equal(xp.minimum(x, 1.0) + xp.maximum(x, 1.0), np.minimum(array, 1) + np.maximum(array, 1))


def test_keras_on_another_backend_is_refused() -> None:
    code = (
        "import sys, types\n"
        "keras = types.ModuleType('keras')\n"
        "keras.backend = types.SimpleNamespace(backend=lambda: 'jax')\n"
        "sys.modules['keras'] = keras\n"
        "from unitrain.backends import load_backend\n"
        "from unitrain.spec.errors import InputError\n"
        "try:\n    load_backend('keras')\nexcept InputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "found:   jax" in done.stdout
    assert "KERAS_BACKEND=tensorflow" in done.stdout
