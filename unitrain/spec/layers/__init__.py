"""The layers a model may use: one file a family, one class a layer.

`LAYER_TYPES` is the registry's first column; every backend fills the others.
"""

from __future__ import annotations


from unitrain.spec.layers.activation import (
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Prelu,
    Relu,
    Relu6,
    Selu,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
)
from unitrain.spec.layers.base import LayerSpec, Parameter, Shape, ShapeError, show_shape
from unitrain.spec.layers.conv import (
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    DepthwiseConv1d,
    DepthwiseConv2d,
    SeparableConv1d,
    SeparableConv2d,
)
from unitrain.spec.layers.dense import Dense
from unitrain.spec.layers.dropout import Dropout
from unitrain.spec.layers.embedding import Embedding
from unitrain.spec.layers.merge import Add, Concatenate, Multiply
from unitrain.spec.layers.norm import BatchNorm, GroupNorm, LayerNorm, RmsNorm
from unitrain.spec.layers.pool import (
    AveragePool1d,
    AveragePool2d,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
)
from unitrain.spec.layers.shape import Flatten, Padding, Permute, Reshape, Upsample1d, Upsample2d

LAYERS: tuple[type[LayerSpec], ...] = (
    Dense,
    Conv1d,
    Conv2d,
    DepthwiseConv1d,
    DepthwiseConv2d,
    SeparableConv1d,
    SeparableConv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    MaxPool1d,
    MaxPool2d,
    AveragePool1d,
    AveragePool2d,
    GlobalAveragePool,
    GlobalMaxPool,
    BatchNorm,
    LayerNorm,
    GroupNorm,
    RmsNorm,
    Dropout,
    Embedding,
    Relu,
    Relu6,
    LeakyRelu,
    Prelu,
    Elu,
    Selu,
    Gelu,
    Silu,
    Sigmoid,
    HardSigmoid,
    HardSwish,
    Tanh,
    Softplus,
    Softmax,
    Flatten,
    Reshape,
    Permute,
    Padding,
    Upsample1d,
    Upsample2d,
    Add,
    Multiply,
    Concatenate,
)

LAYER_TYPES: dict[str, type[LayerSpec]] = {layer.model_fields["type"].default: layer for layer in LAYERS}

__all__ = [
    "LAYERS",
    "LAYER_TYPES",
    "LayerSpec",
    "Parameter",
    "Shape",
    "ShapeError",
    "show_shape",
    *(layer.__name__ for layer in LAYERS),
]
