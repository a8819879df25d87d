"""The table of layer implementations, and what each is given to build its part of a model.

An implementation is one function ``build(layer, context, *tensors) -> tensor`` over symbolic Keras tensors.
It applies one or more Keras layers through `Context.apply`, which names them and remembers where their
weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from unitrain.backends.contract import Settings
from unitrain.backends.precision import HALF
from unitrain.graph.node import Node
from unitrain.spec.layers.base import LayerSpec, Shape
from unitrain.spec.quantizers import kernel_levels

# Keras publishes no types: symbolic tensors, layers and variables are Any.
KerasTensor = Any
KerasLayer = Any
Variable = Any
Builder = Callable[..., KerasTensor]


@dataclass(frozen=True)
class Binding:
    """Ties a canonical parameter to the Keras variable that holds it.

    Parameters
    ----------
    variable
        The Keras variable.
    shape
        The canonical shape.
    swapped
        Whether Keras has the last two axes the other way round (kernels of transposed convolutions). All
        other differences are axes of size 1.
    """

    variable: Variable
    shape: Shape
    swapped: bool = False

    def to_keras(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring a canonical array into the variable's layout: a copy in its dtype."""
        turned = np.swapaxes(array, -1, -2) if self.swapped else array
        dtype = tf.as_dtype(self.variable.dtype).as_numpy_dtype  # NumPy alone has no bfloat16
        return np.array(turned, dtype=dtype, order="C").reshape(tuple(self.variable.shape))

    def to_canonical(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring an array in the variable's layout into the canonical one."""
        if self.swapped:
            array = np.swapaxes(array, -1, -2)
        return np.ascontiguousarray(array).reshape(self.shape)


@dataclass
class Parts:
    """What a model under construction is made of.

    Parameters
    ----------
    layers
        Keras layers by name.
    bindings
        Canonical parameter name to its binding.
    """

    layers: dict[str, KerasLayer] = field(default_factory=dict)
    bindings: dict[str, Binding] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a builder may know and do beside its layer and input tensors."""

    node: Node
    settings: Settings
    parts: Parts

    def apply(
        self,
        kind: Callable[..., KerasLayer],
        inputs: Any,
        *,
        part: str = "",
        weights: Mapping[str, str] | None = None,
        swapped: str | None = None,
        wide: bool = False,
        owner: str | None = None,
        call: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> KerasTensor:
        """Apply a Keras layer, in the working precision and under the node's name.

        Parameters
        ----------
        kind
            The layer's class.
        inputs
            What the layer is called on.
        part
            Tells helper layers of one node apart: the layer is called ``node.part``.
        weights
            Local parameter name to the layer's attribute, or the path to it. A layer with weights is named after the
            node that owns them, and made once: shared nodes call the same layer.
        swapped
            Local name of the parameter whose last two axes Keras has the other way round.
        wide
            In 16 bits take the kind's sibling in `WIDE`: where TensorFlow would add up many numbers in 16 bits, and
            where mixed precision is to compute in float32.
        owner
            Node after which a layer with weights is named, if not the one that owns this node's: of tied weights.
        call
            What the layer is called with beside the inputs, by name.
        options
            The layer's arguments.
        """
        if self.settings.precision in HALF and options.get("use_bias"):
            # TensorFlow would add up the gradient of the bias in 16 bits.
            bias = {local: attribute for local, attribute in (weights or {}).items() if attribute == "bias"}
            without = {local: attribute for local, attribute in (weights or {}).items() if attribute != "bias"}
            options["use_bias"] = False
            product = self.apply(kind, inputs, part=part, weights=without, swapped=swapped, wide=wide, **options)
            return self.apply(Bias, product, part=f"{part}.bias".lstrip("."), weights=bias)
        precision = self.settings.precision
        wide = wide and precision in HALF
        name = (owner or self.node.owner) if weights else self.node.name
        name = f"{name}.{part}" if part else name
        table = self.node.layer.parameters(*self.node.input_shapes)
        weights = dict(weights or {})
        quantizer = table["kernel"].quantizer if "kernel" in weights and "kernel" in table else None
        made = WIDE[kind] if wide else kind
        if quantizer is not None:
            made = quantizing(made)
            options["quantizer"] = {**quantizer.model_dump(), "channel_axes": table["kernel"].channel_axes}
            weights["kernel"] = "held_kernel"
        if name not in self.parts.layers:
            self.parts.layers[name] = made(name=name, dtype=precision, **options)
        layer = self.parts.layers[name]
        output = layer(inputs, **(call or {}))
        for local, attribute in weights.items():
            if local in table:
                binding = Binding(attrgetter(attribute)(layer), table[local].shape, local == swapped)
                self.parts.bindings[self.node.parameters[local]] = binding
        return self.apply(keras.layers.Identity, output, part=f"{part}.rounded".lstrip(".")) if wide else output


def widened(x: KerasTensor) -> KerasTensor:
    """Return numbers of 16 bits as float32, in which a formula of several operations then rounds only at its end."""
    return keras.ops.cast(x, "float32") if x.dtype in ("float16", "bfloat16") else x


def no_zeros(scale: Any) -> Any:
    """Return a scale with 1 where it is 0: of an empty range."""
    return tf.where(scale > 0, scale, tf.ones_like(scale))


_Saved = TypeVar("_Saved", bound=Callable[..., Any])


def saved(thing: _Saved) -> _Saved:
    """Register a layer or function of ours, so that models with it can be saved and loaded."""
    keras.saving.register_keras_serializable(package="unitrain")(thing)
    return thing


class _Wide:
    """Mixed in before a layer: arithmetic in float32, though its policy has variables or results of 16 bits."""

    @property
    def compute_dtype(self) -> str:
        """What variables are brought to."""
        return "float32"

    @property
    def input_dtype(self) -> str:
        """What inputs are brought to."""
        return "float32"


WIDE: dict[Callable[..., KerasLayer], Callable[..., KerasLayer]] = {}
"""Kinds of layers to their siblings for 16 bits, filled by `computes_wide`."""


def computes_wide(*kinds: type[Any]) -> None:
    """Make siblings of layers, for `Context.apply` with ``wide``."""
    for kind in kinds:
        WIDE[kind] = saved(type(f"Wide{kind.__name__}", (_Wide, kind), {"__doc__": kind.__doc__}))


class QuantizedKernel:
    """Mixed in before a layer with a ``kernel``: what it computes with is rounded, as `KernelQuantizer` says."""

    def __init__(self, quantizer: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.quantizer = quantizer

    @property
    def held_kernel(self) -> Variable:
        """The variable."""
        return self._kernel

    @property
    def kernel(self) -> Any:
        """The rounded kernel; the gradient by it goes to the variable as it is."""
        kernel = tf.convert_to_tensor(self._kernel)
        held = widened(tf.stop_gradient(kernel))
        most = kernel_levels(self.quantizer["bits"])[1]
        inner = len(held.shape) - self.quantizer["channel_axes"]
        axes = list(range(inner)) if self.quantizer["per_channel"] else None
        scale = no_zeros(tf.reduce_max(tf.abs(held), axes, keepdims=True) / most)
        return tf.cast(tf.round(held / scale) * scale, kernel.dtype) + (kernel - tf.stop_gradient(kernel))

    @kernel.setter
    def kernel(self, variable: Variable) -> None:
        self._kernel = variable

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]  # the layer's
        return {**config, "quantizer": self.quantizer}


@cache
def quantizing(kind: Callable[..., KerasLayer]) -> Callable[..., KerasLayer]:
    """Return the sibling of a kind of layer that computes with a rounded kernel."""
    name = getattr(kind, "__name__", "")
    return saved(type(f"Quantized{name}", (QuantizedKernel, kind), {"__doc__": kind.__doc__}))  # type: ignore[arg-type]  # a class


@saved
class Bias(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Adds a number to each channel, in float32: its gradient, a sum over all positions, is rounded only at its end."""

    def build(self, input_shape: Any) -> None:
        """Make the variable."""
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        """Add to ``[batch, ..., channel]``."""
        wide = tf.cast(x, tf.float32) + tf.cast(tf.convert_to_tensor(self.bias), tf.float32)
        return tf.cast(wide, x.dtype)


IMPLEMENTATIONS: dict[type[LayerSpec], Builder] = {}
"""Layer specification to its builder, filled by `implements`."""

_Builder = TypeVar("_Builder", bound=Builder)


def implements(*layers: type[LayerSpec]) -> Callable[[_Builder], _Builder]:
    """Register the decorated builder for one or more layer specifications."""

    def register(builder: _Builder) -> _Builder:
        for layer in layers:
            IMPLEMENTATIONS[layer] = builder
        return builder

    return register
