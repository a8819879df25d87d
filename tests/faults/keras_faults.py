"""Faults of the Keras backend: its own layers, optimizers and losses with what they do by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from faults.layer_faults import GROUP, LARGEST, NORM, ROW, image_fault, row_fault, row_net
from faults.planting import Fault, Fields, Plant, attribute, keras_port, other_fields, other_loss
from faults.training_faults import (
    HIDDEN,
    _adagrad_inside,
    _ClipEach,
    _inside,
    _keras_adam,
    _PlainDecay,
    _rate_inside,
    _right,
    formula_fault,
    optimizer_fault,
)

from unitrain.backends.keras.training import Training
from unitrain.spec.optimizers import Adagrad, Adam, AdamW, RmsProp, Sgd

POOL: Fields = {"type": "global_max_pool", "name": "pool", "keep_axes": True}


def images(name: str, row: str, layer: Fields, words: str, plant: Plant, part: str = "") -> Fault:
    """A fault in a model of images."""
    return image_fault(name, row, "keras", layer, words, plant, part)


def rows(name: str, row: str, layer: Fields, words: str, plant: Plant, part: str = "") -> Fault:
    """A fault in a model of rows."""
    return row_fault(name, row, "keras", layer, words, plant, part)


def own(kind: str, make: Callable[[Any], Any]) -> Plant:
    """A layer of Keras' own, as it comes."""
    return keras_port(kind, lambda build, layer, context, x: make(layer)(x))


def function(kind: str, call: Callable[[Any], Any]) -> Plant:
    """A function of Keras' own."""
    return keras_port(kind, lambda build, layer, context, x: keras.layers.Activation(call, dtype=x.dtype)(x))


def _transposed_dense(build: Any, layer: Any, context: Any, x: Any) -> Any:
    if layer.name != "square":
        return build(layer, context, x)
    names = {"kernel": "kernel", "bias": "bias"}
    return context.apply(keras.layers.Dense, x, weights=names, swapped="kernel", units=layer.units)


def _without_bias(build: Any, layer: Any, context: Any, x: Any) -> Any:
    y = build(layer, context, x)
    if layer.name != "square":
        return y
    bias = context.parts.layers["square"].bias
    return keras.layers.Lambda(lambda z: z - tf.stop_gradient(tf.convert_to_tensor(bias)))(y)


LAYERS = [
    images(
        "BatchNormalization()",
        "batch norm eps",
        NORM,
        "epsilon=0.001 and momentum=0.99",
        other_fields("keras", "batch_norm", epsilon=1e-3, momentum=0.99),
    ),
    images(
        "GlobalMaxPooling2D()",
        "max ties to the first",
        POOL,
        "shares",
        own("global_max_pool", lambda layer: keras.layers.GlobalMaxPooling2D(keepdims=True)),
    ),
    images(
        "zeros around a maximum, in Keras",
        "max pool padding",
        LARGEST,
        "zeros",
        keras_port(
            "max_pool2d",
            lambda build, layer, context, x: keras.layers.MaxPooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(x)),
        ),
    ),
    images(
        "mean for maximum, in Keras",
        "max pool",
        {**LARGEST, "padding": "valid"},
        "mean",
        own("max_pool2d", lambda layer: keras.layers.AveragePooling2D(3, 2)),
    ),
    images(
        "softmax over the height, in Keras",
        "softmax",
        {"type": "softmax", "name": "act"},
        "axis=",
        own("softmax", lambda layer: keras.layers.Softmax(axis=1)),
    ),
    images(
        "group norm by instance, in Keras",
        "layer, group norm eps",
        GROUP,
        "groups=4",
        other_fields("keras", "group_norm", groups=4),
    ),
    images(
        "same padding as causal",
        "same padding",
        {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 3, "padding": "same"},
        "padding",
        other_fields("keras", "conv2d", "conv", padding=[[2, 0], [2, 0]]),
    ),
    images(
        "dilation left out, in Keras",
        "conv options",
        {"type": "conv2d", "name": "conv", "filters": 3, "kernel_size": 2, "dilation": 2, "padding": "same"},
        "dilation=[1, 1]",
        other_fields("keras", "conv2d", "conv", dilation=1, padding=[[0, 1], [0, 1]]),
    ),
    images(
        "sum of a global mean, in Keras",
        "global average pool",
        {"type": "global_average_pool", "name": "pool", "keep_axes": True},
        "sums",
        keras_port(
            "global_average_pool",
            lambda build, layer, context, x: keras.layers.Lambda(lambda z: tf.reduce_sum(z, (1, 2), keepdims=True))(x),
        ),
    ),
    images(
        "height and width exchanged, in Keras",
        "image layout",
        {"type": "permute", "name": "turn", "axes": [1, 0, 2]},
        "",
        keras_port("permute", lambda build, layer, context, x: keras.layers.Reshape(context.node.output_shape)(x)),
    ),
    images(
        "padding of the other side, in Keras",
        "padding mode",
        {"type": "padding", "name": "pad", "amounts": [[2, 1], [0, 1]]},
        "amounts",
        other_fields("keras", "padding", amounts=[[1, 2], [1, 0]]),
    ),
    rows(
        "keras.activations.selu",
        "subgradients at kinks",
        {"type": "selu", "name": "act"},
        "derivative at 0",
        function("selu", keras.activations.selu),
    ),
    rows(
        "Keras 2's hard_sigmoid, 0.2 x + 0.5",
        "activations",
        {"type": "hard_sigmoid", "name": "act"},
        "0.2 x + 0.5",
        function("hard_sigmoid", lambda x: keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)),
    ),
    rows(
        "keras.activations.gelu, approximate",
        "GELU",
        {"type": "gelu", "name": "act"},
        "approximate=tanh",
        function("gelu", keras.ops.gelu),
    ),
    rows(
        "keras.ops.leaky_relu",
        "leaky ReLU slope",
        {"type": "leaky_relu", "name": "act"},
        "slope=0.2",
        function("leaky_relu", keras.ops.leaky_relu),
    ),
    rows(
        "keras.layers.ELU()",
        "activations",
        {"type": "elu", "name": "act", "alpha": 0.5},
        "alpha=1",
        own("elu", lambda layer: keras.layers.ELU()),
    ),
    rows(
        "keras.layers.Dropout",
        "dropout",
        {"type": "dropout", "name": "drop", "rate": 0.3},
        "",
        own("dropout", lambda layer: keras.layers.Dropout(layer.rate, seed=1)),
    ),
    rows(
        "kernel transposed, in Keras",
        "dense / conv weight",
        {"type": "dense", "name": "square", "units": 6},
        "transposed",
        keras_port("dense", _transposed_dense),
    ),
    rows(
        "bias taken away again, in Keras",
        "dense / conv weight",
        {"type": "dense", "name": "square", "units": 6},
        "",
        keras_port("dense", _without_bias),
    ),
    Fault(
        "reversed inputs, in Keras",
        "concatenate",
        "keras",
        [
            {"type": "dense", "name": "left", "units": 5, "inputs": ["x"]},
            {"type": "dense", "name": "right", "units": 5, "inputs": ["x"]},
            {"type": "concatenate", "name": "join", "inputs": ["left", "right"]},
            {"type": "dense", "name": "head", "units": 3},
        ],
        ROW,
        "join",
        "reverse",
        keras_port("concatenate", lambda build, layer, context, a, b: build(layer, context, b, a)),
    ),
    Fault(
        "index of the row before, in Keras",
        "embedding index",
        "keras",
        [
            {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4},
            {"type": "flatten", "name": "flat"},
            {"type": "dense", "name": "head", "units": 3},
        ],
        (5,),
        "words",
        "row before",
        keras_port(
            "embedding",
            lambda build, layer, context, x: build(
                layer, context, keras.layers.Lambda(lambda z: tf.math.floormod(z - 1, 9))(x)
            ),
        ),
        dtype="integer",
    ),
]


def _begun_at(value: float) -> Plant:
    """Sums of squares begin above 0."""

    def plant() -> Any:
        right = Training.__init__

        def wrong(self: Any, *arguments: Any, **options: Any) -> None:
            right(self, *arguments, **options)
            for variable in self.slots.get("sum_of_squares", {}).values():
                variable.assign(tf.fill(variable.shape, tf.cast(value, variable.dtype)))

        return attribute(Training, "__init__", wrong)

    return plant


OPTIMIZERS = [
    formula_fault("keras.optimizers.Adam", "Adam", Adam(), "uncorrected", _keras_adam, backend="keras"),
    formula_fault(
        "keras.optimizers.SGD", "SGD momentum", Sgd(momentum=0.9), "inside the velocity", _rate_inside, backend="keras"
    ),
    formula_fault("keras.optimizers.RMSprop", "RMSprop", RmsProp(), "under the root", _inside, backend="keras"),
    formula_fault(
        "keras.optimizers.Adagrad's epsilon",
        "Adagrad",
        Adagrad(epsilon=1e-7),
        "under the root",
        _adagrad_inside,
        backend="keras",
    ),
    Fault(
        "keras.optimizers.Adagrad's start",
        "Adagrad",
        "keras",
        row_net(HIDDEN),
        ROW,
        "optimizer",
        "at 0.1",
        _begun_at(0.1),
        optimizer=Adagrad(),
    ),
    optimizer_fault(
        "clipnorm",
        "clip by global norm",
        Adam(clip_norm=0.5),
        "each parameter by itself",
        _right(_ClipEach),
        backend="keras",
    ),
    optimizer_fault(
        "decay coupled, in Keras",
        "weight decay",
        AdamW(weight_decay=0.1),
        "couples",
        _right(_PlainDecay),
        backend="keras",
    ),
]


class _KerasLoss:
    """A loss of Keras' own in place of the right one: ``function(prediction, target, weight)`` is its mean."""

    def __init__(self, function: Callable[[Any, Any, Any], Any]) -> None:
        self.function = function

    def terms(self, xp: Any, prediction: Any, target: Any, weight: Any) -> Any:
        value = self.function(prediction, target, weight)
        return value, tf.ones_like(value)

    def gradient(self, xp: Any, prediction: Any, target: Any, weight: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(prediction)
            value = self.function(prediction, target, weight)
        return tape.gradient(value, prediction)


def keras_loss(
    name: str, row: str, loss: Fields, words: str, call: Callable[[Any, Any, Any], Any], **more: Any
) -> Fault:
    """A fault in Keras' loss."""
    plant = other_loss("keras", lambda right: _KerasLoss(call))
    return Fault(name, row, "keras", row_net(HIDDEN), ROW, "loss of head", words, plant, loss=loss, **more)


_CE: Fields = {"type": "cross_entropy"}

LOSSES = [
    keras_loss(
        "SparseCategoricalCrossentropy, weighted",
        "cross-entropy with sample weights",
        _CE,
        "number of samples",
        lambda x, t, w: keras.losses.SparseCategoricalCrossentropy(from_logits=True)(t, x, sample_weight=w),
        weighted=True,
    ),
    keras_loss(
        "SparseCategoricalCrossentropy of probabilities",
        "cross-entropy input",
        _CE,
        "clipped at 1e-7",
        lambda x, t, w: tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(t, tf.nn.softmax(x) + 0.0)),
    ),
    keras_loss(
        "from_logits left out",
        "cross-entropy input",
        _CE,
        "",
        lambda x, t, w: keras.losses.SparseCategoricalCrossentropy()(t, x),
    ),
    keras_loss(
        "BinaryCrossentropy of probabilities",
        "cross-entropy input",
        {"type": "binary_cross_entropy"},
        "clipped at 1e-7",
        lambda x, t, w: keras.losses.BinaryCrossentropy()(t, tf.sigmoid(x) + 0.0),
    ),
    keras_loss(
        "Huber()", "Huber", {"type": "huber", "delta": 2.0}, "delta=1", lambda x, t, w: keras.losses.Huber()(t, x)
    ),
    keras_loss(
        "KLDivergence of logits", "KL", {"type": "kl_divergence"}, "", lambda x, t, w: keras.losses.KLDivergence()(t, x)
    ),
    keras_loss(
        "label smoothing left out, in Keras",
        "label smoothing",
        {"type": "binary_cross_entropy", "label_smoothing": 0.1},
        "label_smoothing=0",
        lambda x, t, w: keras.losses.BinaryCrossentropy(from_logits=True)(t, x),
    ),
]

FAULTS = [*LAYERS, *OPTIMIZERS, *LOSSES]
