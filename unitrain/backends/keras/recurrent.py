"""Recurrent layers: Keras' own, which are unrolled where sequences are short."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from unitrain.backends.keras.registry import WIDE, Context, KerasTensor, implements, saved
from unitrain.spec.layers.recurrent import Gru, Lstm, RecurrentLayer, SimpleRnn

# TensorFlow runs the steps one after the other faster without its loop, and takes the longer to trace them.
UNROLLED_STEPS = 32


@saved
class WidePolicy(keras.DTypePolicy):  # type: ignore[misc]  # Keras has no types
    """The variables of another policy, and arithmetic in float32. A recurrent layer hands it on to its cell."""

    @property
    def compute_dtype(self) -> str:
        """What variables and inputs are brought to."""
        return "float32"


class GRUCellOfVectors(keras.layers.GRUCell):  # type: ignore[misc]  # Keras has no types
    """Keras' cell with two vectors in the place of its ``(2, 3 * units)`` biases.

    Those add up two numbers for each of the gates z and r, and both would learn. Here they are ``input_bias``
    ``(3 * units)``, and ``candidate_bias`` ``(units)`` within the product with the state.
    """

    use_bias: bool

    def build(self, input_shape: Any) -> None:
        """Make the variables."""
        learned = self.use_bias
        self.use_bias = False
        super().build(input_shape)
        self.use_bias = learned
        if learned:
            self.input_bias = self.add_weight(shape=(3 * self.units,), initializer="zeros", name="input_bias")
            self.candidate_bias = self.add_weight(shape=(self.units,), initializer="zeros", name="candidate_bias")

    def joined_bias(self) -> Any:
        """Return the biases as Keras has them, or None."""
        if not self.use_bias:
            return None
        first, second = tf.convert_to_tensor(self.input_bias), tf.convert_to_tensor(self.candidate_bias)
        return tf.stack([first, tf.pad(second, [[2 * self.units, 0]])])


@saved
class GRUOfVectors(keras.layers.GRU):  # type: ignore[misc]  # Keras has no types
    """Keras' GRU over `GRUCellOfVectors`."""

    cell: Any

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(units, **options)
        self.cell = GRUCellOfVectors.from_config({**self.cell.get_config(), "dtype": self.cell.dtype_policy})

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        """Take all steps, with biases as Keras has them."""
        self.cell.bias = self.cell.joined_bias()
        try:
            return super().inner_loop(sequences, initial_state, mask, training)
        finally:
            self.cell.bias = None


def _wide(kind: Any) -> Any:
    return lambda dtype, **options: kind(dtype=WidePolicy(dtype), **options)


WIDE.update({kind: _wide(kind) for kind in (keras.layers.LSTM, GRUOfVectors, keras.layers.SimpleRNN)})


@implements(Lstm, Gru, SimpleRnn)
def recurrent(layer: RecurrentLayer, context: Context, x: KerasTensor, *sides: KerasTensor) -> KerasTensor:
    """One layer of Keras for each direction.

    In 16 bits they compute in float32, as they add up the gradient of a bias. What Keras knows of masks ends here: it
    would hand them on to the layers behind.
    """
    ops, units, whole = keras.ops, layer.units, layer.returns == "sequence"
    named = layer.sides((x, *sides))
    mask = next((ops.not_equal(mask, 0) for mask in named.get("mask", ())), None)
    results = []
    for number, (prefix, reverse) in enumerate(layer.directions):
        part = slice(number * units, (number + 1) * units)
        call = {} if mask is None else {"mask": mask}
        if "initial_state" in named:
            call["initial_state"] = [start[:, part] for start in named["initial_state"]]
        found = _direction(layer, context, x, prefix, reverse, call)
        if not whole:
            results.append(list(found)[1 : 1 + layer.parts])
            continue
        found = ops.flip(found, axis=1) if reverse else found
        results.append([found if mask is None else ops.where(mask[..., None], found, ops.zeros_like(found))])
    parts = [result[part] for part in range(len(results[0])) for result in results]
    return ops.concatenate(parts, axis=-1) if len(parts) > 1 else ops.add(parts[0], 0)


def _direction(
    layer: RecurrentLayer, context: Context, x: KerasTensor, prefix: str, reverse: bool, call: dict[str, Any]
) -> Any:
    """Return the sequence in the order of reading, or the last result and the arrays of the state."""
    weights = {f"{prefix}kernel": "cell.kernel", f"{prefix}recurrent": "cell.recurrent_kernel"}
    kind: Any = keras.layers.LSTM
    # The weights are replaced: Keras need not draw any, and could not in bfloat16.
    options: dict[str, Any] = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}
    if not layer.use_bias:
        options["use_bias"] = False
    if isinstance(layer, Gru):
        kind = GRUOfVectors
    elif isinstance(layer, SimpleRnn):
        kind, options["activation"] = keras.layers.SimpleRNN, layer.nonlinearity
    if layer.use_bias and isinstance(layer, Gru):
        weights |= {f"{prefix}bias": "cell.input_bias", f"{prefix}recurrent_bias": "cell.candidate_bias"}
    elif layer.use_bias:
        weights[f"{prefix}bias"] = "cell.bias"
    return context.apply(
        kind,
        x,
        part=prefix.rstrip("_"),
        weights=weights,
        wide=True,
        call=call,
        units=layer.units,
        return_sequences=layer.returns == "sequence",
        return_state=layer.returns != "sequence",
        go_backwards=reverse,
        unroll=context.settings.device == "cpu" and x.shape[1] <= UNROLLED_STEPS,
        **options,
    )
