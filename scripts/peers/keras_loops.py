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
    elif name == "cnn":
        parts = [
            keras.Input((28, 28, 1)), layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
            layers.Dense(128, activation="relu"), layers.Dense(10),
        ]  # fmt: skip
    elif name == "lstm":
        parts = [keras.Input((32,)), layers.Embedding(1000, 64), layers.LSTM(128), layers.Dense(10)]
    else:
        given = keras.Input((32, 32, 3) if name == "resnet20" else (64,))
        return keras.Model(given, (resnet20 if name == "resnet20" else transformer)(given))
    return keras.Sequential(parts)


def resnet20(x: keras.KerasTensor) -> keras.KerasTensor:
    """The residual network for 32 x 32 images of He et al. 2015, section 4.2, with projection shortcuts."""
    layers = keras.layers

    def normed(x: keras.KerasTensor, width: int, kernel: int, stride: int = 1) -> keras.KerasTensor:
        # As in keras.applications: with strides "same" would pad one side alone.
        padding = "same" if stride == 1 else "valid"
        x = layers.ZeroPadding2D(1)(x) if stride > 1 and kernel > 1 else x
        return layers.BatchNormalization()(
            layers.Conv2D(width, kernel, stride, padding=padding, use_bias=False, kernel_initializer="he_normal")(x)
        )

    x = layers.ReLU()(normed(x, 16, 3))
    for width in (16, 32, 64):
        for block in range(3):
            stride = 2 if width > 16 and block == 0 else 1
            shortcut = x if stride == 1 else normed(x, width, 1, 2)
            x = normed(layers.ReLU()(normed(x, width, 3, stride)), width, 3)
            x = layers.ReLU()(layers.Add()([x, shortcut]))
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


class Position(keras.layers.Layer):
    """A learned row for each position."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the table."""
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Add it to ``[batch, length, width]``."""
        return x + self.table


def transformer(tokens: keras.KerasTensor) -> keras.KerasTensor:
    """A causal pre-norm transformer whose mean over the positions is classified."""
    layers = keras.layers
    x = Position()(layers.Embedding(1000, 128)(tokens))
    for _ in range(2):
        normed = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 32)(normed, normed, use_causal_mask=True)])
        wide = layers.Dense(512, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(128)(wide)])
    return layers.Dense(10)(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)))


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
