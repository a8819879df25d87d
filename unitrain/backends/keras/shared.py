"""Layers that are used more than once."""

from __future__ import annotations

from typing import Any

import keras

from unitrain.backends.keras.registry import saved


@saved
class After(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The first of two inputs, once the second is there.

    Keras runs what does not hang on one another in an order of its own. A layer that is used again, and whose running
    statistics each use moves, must be used in the order of the graph.
    """

    def call(self, inputs: Any) -> Any:
        """Return the first input."""
        return inputs[0]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the first input."""
        return input_shape[0]
