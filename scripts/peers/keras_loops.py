"""What a Keras user writes: ``fit`` as it comes, and a ``tf.function`` over a whole epoch by hand."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

LR = 1e-3


def make_model(name: str) -> keras.Model:
    """Return one of the models, as the books have it."""
    layers = keras.layers
    if name == "mlp":
        parts = [keras.Input((784,)), layers.Dense(256, activation="relu"), layers.Dense(10)]
    elif name == "lenet":
        parts = [
            keras.Input((28, 28, 1)), layers.Conv2D(6, 5, padding="same", activation="relu"), layers.MaxPooling2D(),
            layers.Conv2D(16, 5, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
            layers.Dense(120, activation="relu"), layers.Dense(84, activation="relu"), layers.Dense(10),
        ]  # fmt: skip
    else:
        parts = [
            keras.Input((28, 28, 1)), layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
            layers.Dense(128, activation="relu"), layers.Dense(10),
        ]  # fmt: skip
    return keras.Sequential(parts)


def make_fit(name: str, images: np.ndarray, classes: np.ndarray, batch: int) -> Callable[[], None]:
    """Return an epoch of ``fit`` with Adam and accuracy, everything else as it comes; the bar goes to nobody."""
    model = make_model(name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(LR), loss=loss, metrics=["accuracy"])
    return lambda: model.fit(images, classes, batch_size=batch, epochs=1, verbose=0)


def make_epoch(name: str, images: np.ndarray, classes: np.ndarray, batch: int) -> Callable[[], None]:
    """Return an epoch in one ``tf.function``: batches gathered in the graph, loss and hits summed there."""
    model = make_model(name)
    optimizer = keras.optimizers.Adam(LR)
    optimizer.build(model.trainable_variables)
    x, y = tf.constant(images), tf.constant(classes)

    @tf.function
    def run(order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        total, right = tf.constant(0.0), tf.constant(0)
        for step in tf.range(len(images) // batch):
            rows = order[step * batch : (step + 1) * batch]
            target = tf.gather(y, rows)
            with tf.GradientTape() as tape:
                logits = model(tf.gather(x, rows), training=True)
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            total += loss
            right += tf.reduce_sum(tf.cast(tf.argmax(logits, -1, tf.int32) == target, tf.int32))
        return total, right

    def epoch() -> None:
        total, _ = run(tf.random.shuffle(tf.range(len(images))))
        assert np.isfinite(float(total))

    return epoch
