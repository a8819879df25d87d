"""The port of lenet_torch.py to Keras, by hand. It has one mistake; make_mended has none."""

from __future__ import annotations

import keras
import lenet_torch
import numpy as np
from keras import layers


def build(epsilon: float, momentum: float) -> keras.Model:
    """Grey images [batch, 28, 28, 1] to logits [batch, 10]."""
    norm = {"epsilon": epsilon, "momentum": momentum}
    image = keras.Input((28, 28, 1))
    x = layers.Conv2D(6, 5, padding="same", name="conv1")(image)
    x = layers.BatchNormalization(name="norm1", **norm)(x)
    x = layers.ReLU()(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2D(16, 5, name="conv2")(x)
    x = layers.BatchNormalization(name="norm2", **norm)(x)
    x = layers.ReLU()(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(120, activation="relu", name="fc1")(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Dense(84, activation="relu", name="fc2")(x)
    x = layers.Dense(10, name="logits")(x)
    return keras.Model(image, x)


def copy_weights(model: keras.Model) -> keras.Model:
    """Copy the weights of the torch model, each into Keras' layout."""
    weights = {name: tensor.numpy() for name, tensor in lenet_torch.make_model().state_dict().items()}
    for name, source in (("conv1", "features.0"), ("conv2", "features.4")):
        kernel = weights[f"{source}.weight"].transpose(2, 3, 1, 0)
        model.get_layer(name).set_weights([kernel, weights[f"{source}.bias"]])
    for name, source in (("norm1", "features.1"), ("norm2", "features.5")):
        parts = ("weight", "bias", "running_mean", "running_var")
        model.get_layer(name).set_weights([weights[f"{source}.{part}"] for part in parts])
    # torch flattens channels first: the rows of the first dense layer stand in another order.
    first = weights["classifier.0.weight"].T.reshape(16, 5, 5, 120).transpose(1, 2, 0, 3).reshape(400, 120)
    model.get_layer("fc1").set_weights([first, weights["classifier.0.bias"]])
    for name, source in (("fc2", "classifier.3"), ("logits", "classifier.5")):
        model.get_layer(name).set_weights(
            [np.ascontiguousarray(weights[f"{source}.weight"].T), weights[f"{source}.bias"]]
        )
    return model


def make_model() -> keras.Model:
    """Return the port as it was first written: batch norm has Keras' own epsilon, 1e-3."""
    return copy_weights(build(epsilon=1e-3, momentum=0.9))


def make_mended() -> keras.Model:
    """Return the port with the epsilon that the original has."""
    return copy_weights(build(epsilon=1e-5, momentum=0.9))
