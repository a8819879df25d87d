"""A built model of Keras' own parts, so that its file loads where none of our code is.

Layers of ours become Keras' own where there is one of the same meaning in inference, else operations of ``keras.ops``,
which a ``.keras`` file holds as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import keras
import numpy as np

from unitrain.backends.keras.activation import (
    LeakyReLU,
    PReLU,
    gelu_exact,
    gelu_tanh,
    hard_sigmoid,
    hard_swish,
    selu,
)
from unitrain.backends.keras.attention import (
    AttentionMix,
    AttentionWeights,
    WithoutGradient,
    attention_mix,
    attention_weights,
)
from unitrain.backends.keras.conv import SPARSE, GroupedConv1D, GroupedConv2D, GroupedConv3D
from unitrain.backends.keras.dropout import CounterDropout
from unitrain.backends.keras.embedding import TableStarts
from unitrain.backends.keras.norm import UnscaledRMSNormalization
from unitrain.backends.keras.pool import WindowPooling
from unitrain.backends.keras.position import FixedPosition
from unitrain.backends.keras.quantize import Rounding
from unitrain.backends.keras.recurrent import GRUOfVectors
from unitrain.backends.keras.registry import KerasLayer, KerasTensor, QuantizedKernel
from unitrain.backends.keras.resize import Resizing2D
from unitrain.backends.keras.shape import BilinearUpSampling2D, Pad, Subsample
from unitrain.backends.keras.shared import After
from unitrain.backends.keras.tabular import NumberTokens
from unitrain.backends.keras.vision import ChannelScale
from unitrain.backends.tables import sinusoidal_waves
from unitrain.spec.layers.resize import linear_sources, nearest_sources
from unitrain.weights.quantize import settled_grid


def standalone(model: Any, replaced: Callable[[KerasLayer], KerasLayer] | None = None) -> Any:
    """Return the same model, over the same weights, with Keras' own parts in the place of ours.

    ``replaced`` says which layer takes a layer's place; by default see `own_layer`.
    """
    for _ in range(8):
        try:
            return keras.models.clone_model(model, clone_function=replaced or own_layer, call_function=_call)
        except ValueError as error:
            # Keras numbers its operations, and a layer may have such a name. The next numbers are others.
            if "unique" not in str(error):
                raise
            failure = error
    raise failure


def own_layer(layer: KerasLayer) -> KerasLayer:
    """Return the layer itself, or Keras' own of the same meaning in inference, with its weights."""
    if isinstance(layer, QuantizedKernel):
        return own_layer(_rounded(layer))
    if type(layer) not in LAYERS:
        return layer
    own = LAYERS[type(layer)](layer)
    if own.built:
        return own
    own.build(layer.get_build_config()["input_shape"])
    if own.weights:
        own.set_weights(layer.get_weights())
    return own


def _rounded(layer: Any) -> KerasLayer:
    """Return the layer that computes with a plain kernel, whose kernel is rounded already."""
    kind: Any = type(layer).__bases__[1]
    config = layer.get_config()
    config.pop("quantizer")
    own = kind.from_config(config)
    own.build(layer.get_build_config()["input_shape"])
    own.set_weights([layer.kernel if weight is layer.held_kernel else weight for weight in layer.weights])
    return own


def _dropout(layer: KerasLayer) -> KerasLayer:
    rank = len(layer.get_build_config()["input_shape"])
    shape = (None, *(1,) * (rank - 1)) if layer.whole else None
    return keras.layers.Dropout(layer.rate, noise_shape=shape, name=layer.name, dtype=layer.dtype_policy)


def _channel_scale(layer: KerasLayer) -> KerasLayer:
    shape = layer.get_build_config()["input_shape"]
    axes = "abcdefgh"[: len(shape)]
    options = {"output_shape": shape[1:], "name": layer.name, "dtype": layer.dtype_policy}
    return keras.layers.EinsumDense(f"{axes},{axes[-1]}->{axes}", **options)


def _number_tokens(layer: KerasLayer) -> KerasLayer:
    features = layer.get_build_config()["input_shape"][-1]
    options = {"bias_axes": "fw" if layer.shifts else None, "name": layer.name, "dtype": layer.dtype_policy}
    return keras.layers.EinsumDense("bf,fw->bfw", output_shape=(features, layer.width), **options)


def _gru(layer: KerasLayer) -> KerasLayer:
    own = keras.layers.GRU.from_config(layer.get_config())
    kernel, recurrent = layer.cell.kernel, layer.cell.recurrent_kernel
    own.build((None, None, kernel.shape[0]))
    biases = [layer.cell.joined_bias()] if layer.cell.use_bias else []
    own.set_weights([np.asarray(weight) for weight in (kernel, recurrent, *biases)])
    return own


def _table_starts(layer: KerasLayer, index: KerasTensor) -> KerasTensor:
    return index + layer.rows * np.arange(index.shape[-1], dtype=np.int32)


def _fixed_position(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return x + sinusoidal_waves(x.shape[1:], layer.base, layer.layout).astype(layer.compute_dtype)


def _as(kind: Any) -> Callable[[KerasLayer], KerasLayer]:
    """Make Keras' own layer of the same arguments."""
    return lambda layer: kind.from_config(layer.get_config())


def _call(layer: KerasLayer, *inputs: Any, **options: Any) -> KerasTensor:
    """Apply a layer, or the operations that say what it says."""
    key: Any = layer.activation if type(layer) is keras.layers.Activation else type(layer)
    if key in OPERATIONS:
        return OPERATIONS[key](layer, *inputs)
    return layer(*inputs, **options)


def _gelu_exact(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return 0.5 * x * (1.0 + keras.ops.erf(x * float(np.sqrt(0.5))))


def _gelu_tanh(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return 0.5 * x * (1.0 + keras.ops.tanh(float(np.sqrt(2.0 / np.pi)) * (x + 0.044715 * x * x * x)))


def _leaky_relu(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return keras.ops.where(x > 0.0, x, float(layer.negative_slope) * x)


def _rounding(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    held = {name: np.asarray(getattr(layer, name)) for name in layer.spec.parameters(x.shape[1:])}
    scale, zero = settled_grid(layer.spec, held, layer.compute_dtype)
    least, most = layer.spec.levels
    return (keras.ops.clip(keras.ops.round(x / scale) + zero, least, most) - zero) * scale


def _unscaled_rms_norm(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    mean = keras.ops.mean(keras.ops.square(x), axis=-1, keepdims=True)
    return x * keras.ops.rsqrt(mean + layer.epsilon)


def _pad(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    amounts = [tuple(pair) for pair in layer.amounts]
    if layer.mode == "constant" and layer.value == 0.0:
        return _with_zeros(x, amounts)
    if layer.mode == "constant":
        return keras.ops.pad(x, ((0, 0), *amounts), mode="constant", constant_values=float(layer.value))
    for axis, pads in enumerate(amounts, start=1):
        if any(pads):
            source = np.pad(np.arange(x.shape[axis]), pads, layer.mode)
            x = keras.ops.take(x, source.astype(np.int32), axis=axis)
    return x


def _with_zeros(x: KerasTensor, amounts: Sequence[tuple[int, ...]]) -> KerasTensor:
    """Put zeros around in a way that TensorFlow does not join with a convolution, see `shape.zero_padding`."""
    for axis, (before, after) in enumerate(amounts, start=1):
        zeros = keras.ops.zeros_like(x[(slice(None),) * axis + (slice(0, 1),)])
        head, tail = ([keras.ops.repeat(zeros, count, axis)] if count else [] for count in (before, after))
        x = keras.ops.concatenate([*head, x, *tail], axis) if head or tail else x
    return x


def _subsample(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    return x[(slice(None), *(slice(None, None, stride) for stride in layer.strides))]


def _bilinear(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    """Interpolate one axis after the other: each new line is a mean of two old ones, edges clamped."""
    for axis, factor in enumerate(layer.factor, start=1):
        size = x.shape[axis]
        place = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.floor(place).astype(np.int32)
        high = np.minimum(low + 1, size - 1).astype(np.int32)
        share = (place - low).astype(layer.compute_dtype).reshape(-1, *([1] * (3 - axis)))
        x = keras.ops.take(x, low, axis=axis) * (1 - share) + keras.ops.take(x, high, axis=axis) * share
    return x


def _resizing(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    for axis, outputs in enumerate(layer.size, start=1):
        if layer.interpolation == "nearest":
            x = keras.ops.take(x, np.array(nearest_sources(x.shape[axis], outputs), np.int32), axis=axis)
            continue
        below, above, shares = (np.array(part) for part in linear_sources(x.shape[axis], outputs))
        share = shares.astype(layer.compute_dtype).reshape(-1, *([1] * (3 - axis)))
        low, high = (keras.ops.take(x, part.astype(np.int32), axis=axis) for part in (below, above))
        x = low * (1 - share) + high * share
    return x


def _window_pooling(layer: KerasLayer, x: KerasTensor) -> KerasTensor:
    """Pool by joining, for each place in the window, the elements that stand there."""
    sizes = x.shape[1:-1]
    fill = 0.0 if layer.average else -np.inf
    pads = ((0, 0), *(tuple(pair) for pair in layer.padding), (0, 0))
    padded = keras.ops.pad(x, pads, mode="constant", constant_values=fill)
    counts = []
    for size, (before, after), window, spread, stride in zip(
        sizes, layer.padding, layer.pool_size, layer.dilation, layer.strides, strict=True
    ):
        counts.append((size + before + after - (window - 1) * spread - 1) // stride + 1)
    joined: Any = None
    for place in product(*(range(window) for window in layer.pool_size)):
        taken = padded[
            (
                slice(None),
                *(
                    slice(at * spread, at * spread + (count - 1) * stride + 1, stride)
                    for at, spread, count, stride in zip(place, layer.dilation, counts, layer.strides, strict=True)
                ),
            )
        ]
        if joined is not None:
            taken = joined + taken if layer.average else keras.ops.maximum(joined, taken)
        joined = taken
    if not layer.average:
        return joined
    share = layer._share(sizes) / float(np.prod(layer.pool_size))
    return joined * np.asarray(share, dtype=layer.compute_dtype)


LAYERS: dict[type, Callable[[KerasLayer], KerasLayer]] = {
    ChannelScale: _channel_scale,
    CounterDropout: _dropout,
    GRUOfVectors: _gru,
    GroupedConv1D: _as(keras.layers.Conv1D),
    GroupedConv2D: _as(keras.layers.Conv2D),
    NumberTokens: _number_tokens,
    GroupedConv3D: _as(keras.layers.Conv3D),
    PReLU: _as(keras.layers.PReLU),
    **{ours: _as(own) for own, ours in SPARSE.items()},
}
"""Layers of ours to what makes Keras' own of the same weights. In training these differ: see the layers."""

OPERATIONS: dict[Any, Callable[..., KerasTensor]] = {
    selu: lambda layer, x: keras.ops.selu(x),
    gelu_exact: _gelu_exact,
    gelu_tanh: _gelu_tanh,
    hard_sigmoid: lambda layer, x: keras.ops.relu6(x + 3.0) * (1.0 / 6.0),
    hard_swish: lambda layer, x: x * (keras.ops.relu6(x + 3.0) * (1.0 / 6.0)),
    LeakyReLU: _leaky_relu,
    UnscaledRMSNormalization: _unscaled_rms_norm,
    Pad: _pad,
    Subsample: _subsample,
    BilinearUpSampling2D: _bilinear,
    TableStarts: _table_starts,
    AttentionWeights: attention_weights,
    AttentionMix: attention_mix,
    WithoutGradient: lambda layer, x: x,
    After: lambda layer, inputs: inputs[0],
    FixedPosition: _fixed_position,
    Resizing2D: _resizing,
    Rounding: _rounding,
    WindowPooling: _window_pooling,
}
"""Layers without weights, and functions of ``Activation`` layers, to the operations that say the same."""
