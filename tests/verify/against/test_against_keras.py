"""A user's Keras models: sequential, functional and subclassed; right ones pass, wrong ones fail at the right layer."""

from __future__ import annotations

import numpy as np
import pytest
from verify.against.against_specs import against, image, small, subject, told

from unitrain.backends.keras.foreign import wrap

import keras  # isort: skip  # after our backend, which quietens TensorFlow
from keras import layers as kl  # isort: skip


def shaken(model):
    """Give a model weights of which none is constant."""
    generator = np.random.default_rng(1)
    for variable in model.variables:
        if str(variable.dtype).startswith("float"):
            variable.assign(variable.numpy() + generator.uniform(0.02, 0.12, variable.shape).astype(np.float32))
    return model


def average(x, counts):
    if counts:
        return kl.AveragePooling2D(3, 2)(kl.ZeroPadding2D(1)(x))
    # Keras pads average pooling at the end only: the mean of what is there, by hand.
    ones = keras.ops.ones_like(x)
    pad = kl.ZeroPadding2D(1)
    pool = kl.AveragePooling2D(3, 2)
    return pool(pad(x)) / pool(pad(ones))


def made(
    *, eps=1e-5, momentum=0.9, counts=False, pads_end=True, activation=True, softmax=False, extra=False, rate=0.5,
    flattens="last",
):  # fmt: skip
    keras.utils.set_random_seed(0)
    given = x = keras.Input((12, 12, 3))
    if pads_end:
        x = kl.Conv2D(8, 3, 2, padding="same", name="conv1")(x)
    else:
        x = kl.Conv2D(8, 3, 2, name="conv1")(kl.ZeroPadding2D(((1, 0), (1, 0)))(x))
    x = kl.BatchNormalization(epsilon=eps, momentum=momentum, name="bn1")(x)
    x = average(kl.ReLU()(x) if activation else x, counts)
    y = kl.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(x)
    x = kl.Add()([x, y])
    if flattens == "first":
        x = kl.Permute((3, 1, 2))(x)
    if flattens == "columns":
        x = kl.Permute((2, 1, 3))(x)
    x = kl.Dropout(rate)(kl.Flatten()(x))
    x = kl.Dense(16, activation="gelu", name="fc1")(x)
    x = kl.Dense(16, activation="tanh", name="fc2")(x)
    if extra:
        x = keras.ops.silu(x)
    x = kl.Dense(10, activation="softmax" if softmax else None, name="logits")(x)
    return shaken(keras.Model(given, x))


@pytest.mark.parametrize("options", [{}, {"flattens": "first"}], ids=str)
def test_right_models_pass(options):
    report = against(small(), wrap(made(**options)))
    assert report.passed, told(report)
    assert not [item for item in report.findings if item.excuse]
    found = {(item.name.part, item.name.mode) for item in report.findings if item.name.isolated}
    assert found == {(name, mode) for name in report.layers for mode in ("training", "inference")}
    assert any("flattens channels first" in note for note in report.notes) == bool(options)


FAULTS = [
    ({"eps": 1e-3}, "bn1", "epsilon=0.001"),
    ({"momentum": 0.99}, "bn1", "momentum=0.99"),
    ({"counts": True}, "pool1", "count_include_pad"),
    ({"pads_end": False}, "conv1", "odd padded element at the start"),
    ({"activation": False}, "relu1", "gives its input back unchanged"),
    ({"softmax": True}, "logits", "their model ends in softmax, the spec gives logits"),
    ({"extra": True}, "logits", "before it; the spec does not"),
    ({"rate": 0.25}, "drop", "rate=0.25"),
]


@pytest.mark.parametrize(("options", "layer", "words"), FAULTS, ids=[str(item[0]) for item in FAULTS])
def test_planted_faults_are_placed_and_named(options, layer, words):
    report = against(small(), wrap(made(**options)))
    assert not report.passed
    assert [part for part, _ in told(report)] == [layer]
    assert words in told(report)[0][1]


def test_a_wrong_flatten_is_named():
    """Neither order of the axes that frameworks have: columns before rows."""
    report = against(small(), wrap(made(flattens="columns")))
    assert not report.passed
    assert told(report)[0][0] == "flat"


def test_rows_that_were_not_permuted_are_named():
    """The weights that were to be copied from a model that flattens channels first, copied row by row."""
    right = made()
    expected = {}
    spec = small()
    from unitrain.verify.against import verify_against

    expected = verify_against(spec, wrap(right)).weights
    wrong = made()
    kernel = wrong.get_layer("fc1").kernel
    rows = np.arange(72).reshape(3, 3, 8).transpose(2, 0, 1).reshape(-1)
    kernel.assign(kernel.numpy()[rows])
    assert against(spec, wrap(right), expected_weights=expected).passed
    report = against(spec, wrap(wrong), expected_weights=expected)
    assert [part for part, _ in told(report)] == ["fc1"]
    assert "channels first" in told(report)[0][1]


class Branches(keras.Model):
    """Two inputs by name, layers that are called from a function of its own."""

    def __init__(self, slope):
        super().__init__()
        self.left = kl.Dense(5, name="left")
        self.right = kl.Dense(5, name="right")
        self.slope = slope

    def call(self, inputs, training=False):
        both = self.left(inputs["a"]) + self.right(inputs["b"])
        return {"out": keras.ops.leaky_relu(both, negative_slope=self.slope)}


@pytest.mark.parametrize(("slope", "passes"), [(0.01, True), (0.2, False)])
def test_subclassed_models_with_named_inputs(slope, passes):
    layers = (
        {"type": "dense", "name": "left", "units": 5, "inputs": "a"},
        {"type": "dense", "name": "right", "units": 5, "inputs": "b"},
        {"type": "add", "name": "both", "inputs": ["left", "right"]},
        {"type": "leaky_relu", "name": "out"},
    )
    spec = subject({"a": {"shape": [3]}, "b": {"shape": [4]}}, *layers)
    keras.utils.set_random_seed(0)
    model = Branches(slope)
    model({"a": np.zeros((1, 3)), "b": np.zeros((1, 4))})
    report = against(spec, wrap(shaken(model)))
    assert report.passed == passes, told(report)
    if not passes:
        assert told(report)[0][0] == "out"
        assert "slope=0.2" in told(report)[0][1]


LAYERS = {
    "conv1d": ((9, 4), {"type": "conv1d", "filters": 6, "kernel_size": 3}, lambda: kl.Conv1D(6, 3)),
    "depthwise": (
        (7, 8, 3),
        {"type": "depthwise_conv2d", "kernel_size": 3, "multiplier": 2},
        lambda: kl.DepthwiseConv2D(3, depth_multiplier=2),
    ),
    "separable": (
        (7, 8, 3),
        {"type": "separable_conv2d", "filters": 5, "kernel_size": 3, "multiplier": 2},
        lambda: kl.SeparableConv2D(5, 3, depth_multiplier=2),
    ),
    "transposed": (
        (4, 5, 3),
        {"type": "conv_transpose2d", "filters": 6, "kernel_size": 3, "strides": 2},
        lambda: kl.Conv2DTranspose(6, 3, 2),
    ),
    "layer_norm": ((5, 6), {"type": "layer_norm"}, lambda: kl.LayerNormalization(epsilon=1e-5)),
    "group_norm": (
        (5, 4, 6),
        {"type": "group_norm", "groups": 3},
        lambda: kl.GroupNormalization(3, epsilon=1e-5),
    ),
    "prelu": ((5, 4, 6), {"type": "prelu"}, lambda: kl.PReLU(shared_axes=[1, 2])),
    "sequence": ((5, 4), {"type": "dense", "units": 3}, lambda: kl.Dense(3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_layouts_of_their_own(name):
    shape, layer, make = LAYERS[name]
    model = shaken(keras.Sequential([keras.Input(shape), make()]))
    report = against(subject(image(*shape), layer), wrap(model))
    assert report.passed, (told(report), report.notes)


def test_embeddings():
    model = keras.Sequential([keras.Input((4,), dtype="int32"), kl.Embedding(9, 3)])
    spec = subject({"words": {"shape": [4], "dtype": "integer"}}, {"type": "embedding", "vocabulary": 9, "width": 3})
    report = against(spec, wrap(model))
    assert report.passed, told(report)
    assert "gradient by table" in {item.name.tensor for item in report.findings}


def test_what_their_model_does_not_train_is_noted():
    model = shaken(
        keras.Sequential([keras.Input((5,)), kl.Dense(6, activation="relu", name="a"), kl.Dense(3, name="b")])
    )
    layers = (
        {"type": "dense", "name": "a", "units": 6, "activation": "relu"},
        {"type": "dense", "name": "b", "units": 3},
    )
    assert not any("frozen" in note for note in against(subject({"x": {"shape": [5]}}, *layers), wrap(model)).notes)
    model.layers[0].trainable = False
    report = against(subject({"x": {"shape": [5]}}, *layers), wrap(model))
    assert report.passed
    assert any(note.startswith("frozen in their model") and note.endswith("a/kernel, a/bias") for note in report.notes)
