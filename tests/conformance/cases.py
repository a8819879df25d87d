"""The cases that hold all backends to one meaning: every layer with every value of its options.

A case is one layer with its input shapes; `CASES` lists them. Inputs, weights and output gradients are drawn
by the label of the case and are float32 numbers, so that runs in both precisions start from the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.layers import LAYER_TYPES, Attention, Embedding, Gather, LayerSpec, RecurrentLayer
from unitrain.spec.layers.base import ValueType
from unitrain.spec.model import InputSpec, ModelSpec
from unitrain.weights.random import stream

Array = np.ndarray[Any, Any]
Fields = dict[str, Any]
Shape = tuple[int, ...]

BATCH = 3

ROW: Shape = (4,)
SEQ: Shape = (5, 4)
LONG: Shape = (7, 4)
IMG: Shape = (5, 4, 2)
WIDE: Shape = (7, 6, 4)
TINY: Shape = (2, 3, 2)
CUBE: Shape = (2, 3, 2, 4)
VOLUME: Shape = (4, 3, 5, 2)


@dataclass(frozen=True)
class Case:
    """One layer, and the shapes of its inputs without the batch, side inputs last."""

    label: str
    layer: LayerSpec
    input_shapes: tuple[Shape, ...]

    @property
    def kinds(self) -> tuple[ValueType, ...]:
        """Kinds of the inputs."""
        sides = [self.layer.side_inputs[field] for field, names in self.layer.side_names().items() for _ in names]
        main: ValueType = "integer" if self.layer.accepts == "integer" else "float"
        return (*[main] * (len(self.input_shapes) - len(sides)), *sides)


WINDOWS_1D: list[Fields] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 2, "padding": "same", "strides": 2},
    {"kernel_size": 3, "padding": "same", "strides": 2},
    {"kernel_size": 2, "padding": "same", "strides": 1, "dilation": 3},
    {"kernel_size": 2, "padding": [1, 0], "strides": 1, "dilation": 2},
    {"kernel_size": 2, "padding": [0, 1], "strides": 2, "dilation": 2},
    {"kernel_size": 2, "padding": "same", "strides": 2, "dilation": 2},
    {"kernel_size": 3, "padding": 1, "strides": 1},
    {"kernel_size": 1, "strides": 3},
    {"kernel_size": 4, "padding": "same", "strides": 3},
    {"kernel_size": 1, "padding": "same", "strides": 2},
]
CAUSAL: list[Fields] = [
    {"kernel_size": 2, "padding": "causal"},
    {"kernel_size": 3, "padding": "causal", "dilation": 2},
    {"kernel_size": 3, "padding": "causal", "strides": 2},
    {"kernel_size": 2, "padding": "causal", "strides": 2, "dilation": 3},
]
WINDOWS_2D: list[Fields] = [
    {"kernel_size": 2},
    {"kernel_size": [3, 2], "padding": "same"},
    {"kernel_size": 2, "padding": "same", "strides": 2},
    {"kernel_size": 3, "padding": "same", "strides": 2},
    {"kernel_size": [1, 2], "strides": [2, 1]},
    {"kernel_size": 2, "padding": [[1, 0], [0, 1]], "dilation": [2, 1], "strides": 1},
    {"kernel_size": 2, "padding": 1, "strides": [3, 2]},
    {"kernel_size": [2, 3], "padding": [[0, 1], [1, 1]], "strides": [1, 2]},
    {"kernel_size": 2, "padding": "same", "strides": 1, "dilation": 2},
    {"kernel_size": 2, "strides": 2, "dilation": 2},
    {"kernel_size": [3, 2], "padding": "same", "strides": [2, 1], "dilation": [1, 2]},
    {"kernel_size": 1, "padding": "same", "strides": [2, 3]},
    {"kernel_size": [1, 2], "strides": [3, 1], "dilation": [1, 2]},
]
WINDOWS_3D: list[Fields] = [
    {"kernel_size": 2},
    {"kernel_size": [3, 1, 2], "padding": "same"},
    {"kernel_size": 2, "padding": "same", "strides": 2},
    {"kernel_size": [1, 2, 3], "strides": [2, 1, 3], "padding": "same"},
    {"kernel_size": [2, 1, 2], "strides": [1, 2, 1], "padding": [[1, 0], [0, 0], [0, 1]]},
    {"kernel_size": 2, "padding": 1, "strides": [2, 1, 3], "dilation": [1, 2, 1]},
    {"kernel_size": 2, "strides": 2, "dilation": 2, "padding": "same"},
    {"kernel_size": 1, "strides": [3, 1, 2]},
]
Option = tuple[Fields, list[Shape]]
RECURRENT: list[Option] = [
    *(
        ({"units": 3, "returns": returns, "direction": direction, **mask}, [SEQ, *shapes])
        for returns in ("sequence", "last", "state")
        for direction in ("forward", "backward", "both")
        for mask, shapes in (({}, []), ({"mask": "given"}, [(5,)]))
    ),
    ({"units": 2, "use_bias": False}, [LONG]),
    ({"units": 1, "use_bias": False, "direction": "both"}, [(1, 2)]),
]


def _stated(states: int) -> list[Option]:
    """Cases with an initial state of so many arrays."""
    names = ["given"] * states
    return [
        ({"units": 3, "initial_state": names}, [SEQ, *[(3,)] * states]),
        ({"units": 2, "initial_state": names, "direction": "both", "returns": "state"}, [SEQ, *[(4,)] * states]),
        (
            {"units": 2, "initial_state": names, "direction": "backward", "returns": "last", "mask": "given"},
            [SEQ, (5,), *[(2,)] * states],
        ),
        ({"units": 2, "initial_state": names, "direction": "both", "mask": "given"}, [SEQ, (5,), *[(4,)] * states]),
    ]


RANKS: list[Option] = [({}, [(), ()]), ({}, [ROW, ROW, ROW]), ({}, [CUBE, (1, 3, 1, 4)])]
OPTIONS: dict[str, list[Option]] = {
    "dense": [
        ({"units": 3}, [ROW]),
        ({"units": 2, "use_bias": False}, [SEQ]),
        ({"units": 5}, [TINY]),
        ({"units": 2}, [CUBE]),
        ({"units": 3, "kernel_quantizer": {}}, [SEQ]),
        ({"units": 3, "kernel_quantizer": {"bits": 4, "per_channel": False}}, [ROW]),
    ],
    "conv1d": [
        *(({"filters": 2, **window}, [SEQ]) for window in WINDOWS_1D + CAUSAL),
        ({"filters": 4, "kernel_size": 2, "groups": 2, "use_bias": False}, [SEQ]),
        ({"filters": 4, "kernel_size": 2, "groups": 2, "padding": "causal"}, [SEQ]),
        ({"filters": 4, "kernel_size": 3, "groups": 4, "strides": 2, "padding": "same"}, [LONG]),
        ({"filters": 2, "kernel_size": 3, "kernel_quantizer": {}}, [SEQ]),
        ({"filters": 2, "kernel_size": 3, "kernel_quantizer": {"bits": 6, "per_channel": False}}, [SEQ]),
    ],
    "conv2d": [
        *(({"filters": 3, **window}, [IMG]) for window in WINDOWS_2D),
        ({"filters": 2, "kernel_size": 1}, [IMG]),
        ({"filters": 4, "kernel_size": 2, "groups": 2, "strides": 2, "padding": 1}, [IMG]),
        ({"filters": 4, "kernel_size": 2, "groups": 2, "kernel_quantizer": {"bits": 5}}, [IMG]),
        ({"filters": 3, "kernel_size": 2, "kernel_quantizer": {"per_channel": False}}, [IMG]),
        ({"filters": 4, "kernel_size": 2, "groups": 4, "use_bias": False}, [(3, 3, 4)]),
        ({"filters": 8, "kernel_size": 3, "groups": 2, "dilation": 2, "padding": "same"}, [WIDE]),
    ],
    "conv3d": [
        *(({"filters": 3, **window}, [VOLUME]) for window in WINDOWS_3D),
        ({"filters": 4, "kernel_size": [2, 1, 2], "groups": 2, "use_bias": False}, [VOLUME]),
        ({"filters": 4, "kernel_size": 2, "groups": 4, "padding": "same", "dilation": 2}, [CUBE]),
        ({"filters": 2, "kernel_size": 2, "kernel_quantizer": {}}, [VOLUME]),
        ({"filters": 2, "kernel_size": 2, "kernel_quantizer": {"bits": 6, "per_channel": False}}, [VOLUME]),
    ],
    "depthwise_conv1d": [
        *(({**window, "multiplier": 2}, [SEQ]) for window in WINDOWS_1D + CAUSAL),
        ({"kernel_size": 3, "use_bias": False}, [LONG]),
        ({"kernel_size": 2, "multiplier": 2, "kernel_quantizer": {}}, [SEQ]),
        ({"kernel_size": 2, "multiplier": 2, "kernel_quantizer": {"bits": 6, "per_channel": False}}, [SEQ]),
    ],
    "depthwise_conv2d": [
        *((window, [IMG]) for window in WINDOWS_2D),
        ({"kernel_size": 2, "multiplier": 2, "use_bias": False}, [IMG]),
        ({"kernel_size": 2, "multiplier": 2, "kernel_quantizer": {}}, [IMG]),
        ({"kernel_size": 2, "multiplier": 2, "kernel_quantizer": {"per_channel": False}}, [IMG]),
        ({"kernel_size": [3, 2], "multiplier": 3, "padding": "same", "strides": [1, 2]}, [IMG]),
    ],
    "separable_conv1d": [
        *(({"filters": 2, **window}, [SEQ]) for window in WINDOWS_1D + CAUSAL),
        ({"filters": 3, "kernel_size": 2, "multiplier": 2, "use_bias": False}, [SEQ]),
    ],
    "separable_conv2d": [
        *(({"filters": 3, **window}, [IMG]) for window in WINDOWS_2D),
        ({"filters": 2, "kernel_size": 2, "multiplier": 2, "use_bias": False}, [IMG]),
    ],
    "conv_transpose1d": [
        *(
            ({"filters": 2, "kernel_size": kernel, "strides": stride, "padding": padding}, [(3, 3)])
            for kernel, stride in ((3, 1), (2, 2), (2, 3), (4, 2), (3, 2))
            for padding in ("valid", "same")
        ),
        ({"filters": 3, "kernel_size": 2, "use_bias": False}, [SEQ]),
    ],
    "conv_transpose2d": [
        *(
            ({"filters": 3, "kernel_size": kernel, "strides": stride, "padding": padding}, [TINY])
            for kernel, stride in ((3, 2), (2, 1), ([1, 3], [2, 1]), ([4, 2], [2, 3]))
            for padding in ("valid", "same")
        ),
        ({"filters": 2, "kernel_size": 2, "use_bias": False}, [TINY]),
    ],
    "max_pool1d": [(window, [SEQ]) for window in WINDOWS_1D],
    "max_pool2d": [(window, [IMG]) for window in WINDOWS_2D],
    "max_pool3d": [(window, [VOLUME]) for window in WINDOWS_3D],
    "average_pool3d": [(window, [VOLUME]) for window in WINDOWS_3D],
    "average_pool1d": [(window, [SEQ]) for window in WINDOWS_1D],
    "average_pool2d": [(window, [IMG]) for window in WINDOWS_2D],
    "global_average_pool": [({}, [SEQ]), ({"keep_axes": True}, [IMG]), ({}, [CUBE])],
    "global_max_pool": [({}, [SEQ]), ({"keep_axes": True}, [IMG]), ({}, [CUBE])],
    "batch_norm": [
        ({}, [ROW]),
        ({"epsilon": 0.1, "momentum": 0.5}, [IMG]),
        ({"use_scale": False}, [SEQ]),
        ({"use_bias": False}, [SEQ]),
        ({"use_bias": False, "use_scale": False, "momentum": 0.0}, [CUBE]),
    ],
    "fake_quantize": [
        ({}, [ROW]),
        ({"symmetric": True, "momentum": 0.5}, [IMG]),
        ({"per_channel": True, "bits": 5, "momentum": 0.0}, [IMG]),
        ({"per_channel": True, "symmetric": True, "bits": 4}, [SEQ]),
        ({"range": [-1.5, 2.0]}, [IMG]),
        ({"range": [-1.0, 2.5], "symmetric": True, "bits": 6}, [SEQ]),
        ({"range": [0.5, 3.0]}, [ROW]),
        ({"range": "learned"}, [SEQ]),
        ({"range": "learned", "symmetric": True, "bits": 4}, [IMG]),
        ({"range": "learned", "symmetric": True, "per_channel": True, "bits": 4}, [CUBE]),
    ],
    "layer_norm": [
        ({}, [ROW]),
        ({"axes": 2, "epsilon": 0.1}, [IMG]),
        ({"use_scale": False}, [SEQ]),
        ({"use_bias": False, "axes": 3}, [IMG]),
        ({"use_scale": False, "use_bias": False, "axes": 2}, [SEQ]),
    ],
    "group_norm": [
        ({"groups": 2}, [ROW]),
        ({"groups": 1, "epsilon": 0.1}, [IMG]),
        ({"groups": 2, "use_scale": False, "use_bias": False}, [SEQ]),
        ({"groups": 2}, [WIDE]),
    ],
    "instance_norm": [
        ({}, [IMG]),
        ({"epsilon": 0.1, "use_scale": False}, [SEQ]),
        ({"use_bias": False}, [CUBE]),
    ],
    "rms_norm": [({}, [ROW]), ({"epsilon": 0.1, "use_scale": False}, [IMG]), ({}, [SEQ])],
    "dropout": [({"rate": 0.4}, [IMG]), ({"rate": 0.0}, [ROW]), ({}, [(5,)])],
    "embedding": [
        ({"vocabulary": 5, "width": 2}, [(4,)]),
        ({"vocabulary": 3, "width": 4}, [()]),
        ({"vocabulary": 3, "width": 2, "table_per_position": True}, [(4,)]),
        ({"vocabulary": 4, "width": 3, "table_per_position": True}, [(2, 3)]),
    ],
    "attention": [
        ({"heads": 2}, [SEQ]),
        ({"heads": 2, "causal": True, "use_bias": False}, [SEQ]),
        ({"heads": 4, "key_value_heads": 2, "head_width": 3, "width": 5}, [SEQ]),
        ({"heads": 6, "key_value_heads": 1, "head_width": 2, "position": "alibi"}, [SEQ]),
        ({"heads": 2, "head_width": 4, "position": "rotary", "causal": True}, [SEQ]),
        ({"heads": 2, "head_width": 6, "position": "rotary", "rotary_layout": "interleaved"}, [SEQ]),
        ({"heads": 2, "key_value_heads": 2, "position": "rotary", "rotary_base": 100.0}, [LONG]),
        ({"heads": 2, "mask": "given"}, [SEQ, (5,)]),
        ({"heads": 1, "causal": True, "mask": "given"}, [LONG, (7,)]),
        ({"heads": 3, "head_width": 2, "position": "alibi", "causal": True, "mask": "given"}, [SEQ, (5,)]),
        ({"heads": 2, "key_value": "given"}, [SEQ, (3, 6)]),
        ({"heads": 2, "key_value": "given", "mask": "given", "use_bias": False}, [SEQ, (2, 4), (2,)]),
        ({"heads": 2, "key_value": "given", "causal": True}, [SEQ, (7, 4)]),
        ({"heads": 2, "dropout": 0.4}, [SEQ]),
        ({"heads": 4, "key_value_heads": 2, "head_width": 2, "dropout": 0.2, "causal": True}, [SEQ]),
        ({"heads": 2, "dropout": 0.5, "mask": "given", "position": "alibi"}, [SEQ, (5,)]),
    ],
    "position_embedding": [({}, [SEQ]), ({"max_length": 9}, [SEQ])],
    "sinusoidal_position": [({}, [SEQ]), ({"layout": "half", "base": 100.0}, [(7, 6)])],
    "slice": [
        ({}, [ROW]),
        ({"axis": 1, "start": 1, "stop": 3}, [IMG]),
        ({"axis": -1, "start": -3, "step": 2}, [WIDE]),
        ({"axis": -2, "stop": -1}, [SEQ]),
    ],
    "split": [
        ({"part": 1}, [ROW]),
        ({"axis": 1, "parts": 3, "part": 2}, [WIDE]),
        ({"part": 0, "axis": 0}, [TINY]),
        ({"part": 1, "axis": 0, "sizes": [2, 4, 1]}, [LONG]),
    ],
    "select": [({}, [SEQ]), ({"axis": 1, "index": -1}, [IMG]), ({"axis": -1, "index": 2}, [ROW])],
    "gather": [
        ({"indices": "given"}, [SEQ, (3,)]),
        ({"indices": "given"}, [ROW, (9,)]),
        ({"indices": "given"}, [WIDE, (1,)]),
    ],
    "stack": [({}, [SEQ, SEQ]), ({"axis": -1}, [ROW, ROW, ROW]), ({"axis": 1}, [IMG, IMG]), ({}, [(), ()])],
    "sum": [({}, [SEQ]), ({"axis": -1, "keep_axis": True}, [IMG]), ({}, [ROW])],
    "mean": [
        ({}, [SEQ]),
        ({"axis": 1, "keep_axis": True}, [IMG]),
        ({"mask": "given"}, [SEQ, (5,)]),
        ({"axis": -2, "keep_axis": True, "mask": "given"}, [IMG, (4,)]),
    ],
    "max": [
        ({}, [SEQ]),
        ({"axis": -1, "keep_axis": True}, [IMG]),
        ({"mask": "given"}, [SEQ, (5,)]),
        ({"axis": 2, "keep_axis": True, "mask": "given"}, [IMG, (2,)]),
    ],
    "scale": [({"factor": -1.5}, [IMG]), ({"factor": 0.1}, [SEQ]), ({"factor": 0.0}, [ROW])],
    "shift": [({"amount": 0.3}, [IMG]), ({"amount": -2.0}, [()])],
    "power": [({"exponent": 2.0}, [IMG]), ({"exponent": 3.0}, [ROW]), ({"exponent": -1.0}, [SEQ])],
    "matmul": [
        ({}, [SEQ, (4, 3)]),
        ({"transpose_second": True}, [SEQ, (7, 4)]),
        ({}, [(2, 3, 4), (2, 4, 5)]),
        ({"transpose_second": True}, [CUBE, (2, 3, 5, 4)]),
    ],
    "lstm": [*RECURRENT, ({"units": 3, "forget_bias": 0.0}, [SEQ]), *_stated(2)],
    "gru": [*RECURRENT, *_stated(1)],
    "simple_rnn": [
        *RECURRENT,
        *_stated(1),
        ({"units": 3, "nonlinearity": "relu"}, [SEQ]),
        ({"units": 2, "nonlinearity": "relu", "direction": "both", "mask": "given"}, [SEQ, (5,)]),
    ],
    "padding_mask": [({}, [(6,)]), ({"padding": 1}, [(2, 3)]), ({"padding": -1}, [()])],
    "length_mask": [({"length": 5}, [()]), ({"length": 2}, [(1,)])],
    "dot": [
        ({}, [SEQ, SEQ]),
        ({"keep_axis": True}, [ROW, ROW]),
        ({}, [(1, 4), SEQ]),
        ({"keep_axis": True}, [IMG, (5, 1, 2)]),
    ],
    "cosine": [
        ({}, [SEQ, SEQ]),
        ({"keep_axis": True}, [ROW, ROW]),
        ({"epsilon": 5.0}, [SEQ, (1, 4)]),
        ({"keep_axis": True, "epsilon": 2.5}, [(1, 1, 2), IMG]),
    ],
    "glu": [
        ({}, [ROW]),
        ({"gate": "silu"}, [SEQ]),
        ({"gate": "gelu"}, [IMG]),
        ({"gate": "relu"}, [WIDE]),
        ({"gate": "identity"}, [CUBE]),
    ],
    "tied_projection": [({"units": 3}, [ROW]), ({"units": 5, "use_bias": True}, [SEQ]), ({"units": 2}, [CUBE])],
    "feature_tokens": [({"width": 3}, [ROW]), ({"width": 2, "use_bias": False}, [(6,)])],
    "stochastic_depth": [({"rate": 0.4}, [IMG]), ({"rate": 0.0}, [ROW]), ({}, [SEQ]), ({"rate": 0.7}, [()])],
    "layer_scale": [({}, [ROW]), ({"value": 0.5}, [SEQ]), ({}, [IMG]), ({}, [CUBE])],
    "patch_embedding": [
        ({"patch": 2, "width": 3}, [(4, 6, 2)]),
        ({"patch": [1, 3], "width": 5, "use_bias": False}, [WIDE]),
        ({"patch": [3, 2], "width": 2}, [(3, 2, 1)]),
    ],
    "squeeze_excite": [
        ({"reduced": 2}, [IMG]),
        ({"reduced": 3, "inner": "silu"}, [SEQ]),
        ({"reduced": 1, "gate": "hard_sigmoid"}, [WIDE]),
        ({"reduced": 5, "inner": "silu", "gate": "hard_sigmoid"}, [CUBE]),
    ],
    "class_token": [({}, [SEQ]), ({}, [(1, 3)])],
    "leaky_relu": [({}, [SEQ]), ({"slope": 0.5}, [SEQ]), ({"slope": 0.0}, [ROW])],
    "prelu": [({}, [ROW]), ({}, [SEQ]), ({}, [IMG]), ({}, [CUBE])],
    "elu": [({}, [SEQ]), ({"alpha": 0.5}, [SEQ])],
    "gelu": [({}, [SEQ]), ({"approximate": "tanh"}, [SEQ])],
    "softmax": [({}, [ROW]), ({"axis": 0}, [IMG]), ({"axis": -2}, [IMG]), ({"axis": 2}, [IMG]), ({}, [CUBE])],
    "reshape": [({"shape": [2, -1]}, [IMG]), ({"shape": [5, 8]}, [IMG]), ({"shape": [2, 2, 1]}, [ROW])],
    "permute": [({"axes": [2, 0, 1]}, [IMG]), ({"axes": [1, 0]}, [SEQ]), ({"axes": [3, 1, 0, 2]}, [CUBE])],
    "padding": [
        *(
            ({"amounts": amounts, "mode": mode, "value": 2.0}, [IMG])
            for amounts in ([[1, 2], [0, 3]], [2], [[0, 0], 1, [1, 0]])
            for mode in ("constant", "reflect", "edge")
        ),
        ({"amounts": [1, 1]}, [IMG]),
        ({"amounts": [[2, 1]], "value": -1.5}, [SEQ]),
        ({"amounts": [[4, 2]], "mode": "reflect"}, [SEQ]),
        ({"amounts": [[9, 8]], "mode": "edge"}, [ROW]),
        ({"amounts": [[0, 1], [1, 0], [1, 1], [0, 3]], "mode": "edge"}, [CUBE]),
    ],
    "upsample1d": [({}, [SEQ]), ({"factor": 3}, [SEQ]), ({"factor": 1}, [(4, 3)])],
    "upsample2d": [
        *(
            ({"factor": factor, "interpolation": interpolation}, [IMG])
            for factor in (1, 2, 3, [3, 1], [1, 4], [2, 3])
            for interpolation in ("nearest", "bilinear")
        ),
        ({"factor": [3, 5], "interpolation": "bilinear"}, [(11, 6, 3)]),
    ],
    "resize": [
        *(
            ({"size": size, "interpolation": interpolation}, [IMG])
            for size in (1, 3, [10, 4], [7, 6], [4, 9])
            for interpolation in ("nearest", "bilinear")
        ),
        ({"factor": 0.5}, [WIDE]),
        ({"factor": [1.5, 2], "interpolation": "bilinear"}, [WIDE]),
        ({"size": [15, 14]}, [(10, 6, 1)]),
    ],
    "pixel_shuffle": [({}, [(2, 3, 8)]), ({"factor": 3}, [(2, 1, 9)]), ({"factor": 1}, [IMG])],
    "pixel_unshuffle": [({}, [(4, 6, 3)]), ({"factor": 3}, [(3, 6, 1)]), ({"factor": 1}, [IMG])],
    "add": [({}, [SEQ, SEQ]), ({}, [IMG, (1, 1, 2), (5, 1, 1)]), ({}, [(1, 4), (5, 1)]), *RANKS],
    "multiply": [({}, [SEQ, SEQ]), ({}, [IMG, (1, 4, 1), (1, 1, 2)]), ({}, [(1, 4), (5, 1)]), *RANKS],
    "subtract": [({}, [SEQ, SEQ]), ({}, [IMG, (1, 4, 1)]), ({}, [(1, 4), (5, 1)]), ({}, [(), ()])],
    "divide": [({}, [SEQ, SEQ]), ({}, [IMG, (5, 1, 1)]), ({}, [(1, 4), (5, 1)]), ({}, [(), ()])],
    "concatenate": [
        ({}, [SEQ, (5, 2)]),
        ({"axis": 0}, [SEQ, (2, 4), SEQ]),
        ({"axis": -2}, [IMG, (5, 1, 2)]),
        ({"axis": 2}, [IMG, (5, 4, 3), IMG]),
        ({}, [ROW, (3,)]),
        ({"axis": 3}, [CUBE, (2, 3, 2, 1)]),
        ({"axis": -3}, [IMG, (1, 4, 2)]),
    ],
}
for kind in ("relu", "relu6", "selu", "silu", "sigmoid", "hard_sigmoid", "hard_swish", "tanh", "softplus", "flatten"):
    OPTIONS[kind] = [({}, [shape]) for shape in ((), ROW, SEQ, IMG, CUBE)]


def _case(kind: str, fields: Fields, shapes: Sequence[Shape]) -> Case:
    sizes = "+".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
    given = "".join(f" {name}={value}".replace(", ", ",") for name, value in fields.items())
    return Case(f"{kind}{given} on {sizes}", LAYER_TYPES[kind].model_validate(fields), tuple(shapes))


ALL_CASES = [_case(kind, fields, shapes) for kind, options in OPTIONS.items() for fields, shapes in options]
CASES = [case for case in ALL_CASES if case.layer.gives != "integer"]
# Integers have no gradients and no rounding: see test_integers.py.
INTEGER_CASES = [case for case in ALL_CASES if case.layer.gives == "integer"]


def case_inputs(case: Case, name: str = "y") -> dict[str, Array]:
    """Draw a batch for each input of the layer ``name``: float32 over the range where activations bend, or integers."""
    inputs: dict[str, Array] = {}
    for position, (shape, kind) in enumerate(zip(case.input_shapes, case.kinds, strict=True)):
        generator = stream(0, "conformance", case.label, "input", position)
        size = (BATCH, *shape)
        # Integers are indices into a table, or a mask of 0 and 1.
        below = 2
        if isinstance(case.layer, Embedding):
            below = case.layer.vocabulary
        elif isinstance(case.layer, Gather):
            below = case.input_shapes[0][0]
        inputs[input_name(name, position)] = (
            generator.integers(0, below, size, np.int32)
            if kind == "integer"
            else (2.0 * generator.normal(size=size)).astype(np.float32)
        )
    return inputs


def case_weights(case: Case, name: str = "y") -> dict[str, Array]:
    """Draw the parameters of the layer ``name``: positive (variances too), none of them 0 or 1, float32.

    Those of attention and of recurrent layers have both signs: with products of queries and keys beyond a few, its
    weights would all be 0 or 1, and so would gates.
    """
    low = -0.5 if isinstance(case.layer, (Attention, RecurrentLayer)) else 0.5
    return {
        f"{name}.{local}": stream(0, "conformance", case.label, "weight", local)
        .uniform(low, low + 1.0, parameter.shape)
        .astype(np.float32)
        for local, parameter in case.layer.parameters(*case.input_shapes).items()
    }


def case_output_gradient(case: Case) -> Array:
    """Draw a gradient by the output, float32."""
    shape = case.layer.output_shape(*case.input_shapes)
    return stream(0, "conformance", case.label, "gradient").normal(size=(BATCH, *shape)).astype(np.float32)


def case_graph(case: Case) -> Graph:
    """Resolve a model of this layer alone, called ``y``."""
    return suite_graph({"y": case})


def suite_graph(cases: Mapping[str, Case]) -> Graph:
    """Resolve one model with a branch for each case, whose layer has the case's key for its name.

    Many small branches in one model are traced once, where many small models would be traced one by one.
    """
    inputs: dict[str, Any] = {}
    layers = []
    for name, case in cases.items():
        names = tuple(input_name(name, position) for position in range(len(case.input_shapes)))
        inputs |= {
            key: InputSpec(shape=shape, dtype=kind)
            for key, shape, kind in zip(names, case.input_shapes, case.kinds, strict=True)
        }
        sides = case.layer.sides(names)
        main = names[: len(names) - sum(map(len, sides.values()))]
        layers.append(case.layer.model_copy(update={"name": name, "inputs": main, **sides}))
    return resolve(ModelSpec(inputs=inputs, layers=tuple(layers), outputs=tuple(cases)))


def input_name(layer: str, position: int) -> str:
    """Return the name of an input of a case's layer."""
    return f"{layer}_x{position}"
