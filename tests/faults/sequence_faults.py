"""Faults of attention, positions, tables and parts of axes: what ports of transformers get wrong."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from faults.planting import Fault, Fields, attribute, other_fields, torch_port
from torch.nn import functional

from unitrain.backends.tables import alibi_bias
from unitrain.backends.torch import attention as torch_attention

SEQUENCE = (5, 4)


def sequence_net(layer: Fields) -> list[Fields]:
    """Put a layer between a dense one and a head."""
    return [
        {"type": "dense", "name": "stem", "units": 4},
        layer,
        {"type": "flatten", "name": "flat"},
        {"type": "dense", "name": "head", "units": 3},
    ]


def token_net(*layers: Fields) -> list[Fields]:
    """Put layers between an embedding and a head."""
    embedding: Fields = {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4}
    return [embedding, *layers, {"type": "flatten", "name": "flat"}, {"type": "dense", "name": "head", "units": 3}]


def sequence_fault(name: str, row: str, backend: str, layer: Fields, words: str, plant: Any) -> Fault:
    """A fault in one layer of a model of sequences."""
    return Fault(name, row, backend, sequence_net(layer), SEQUENCE, layer["name"], words, plant)


def token_fault(name: str, row: str, layers: list[Fields], part: str, words: str, plant: Any) -> Fault:
    """A fault of torch in a model of tokens."""
    return Fault(name, row, "torch", layers, (5,), part, words, plant, dtype="integer")


def _attention(**fields: Any) -> Fields:
    return {"type": "attention", "name": "look", "heads": 2, **fields}


def _product(change: Any) -> Any:
    """torch's fused attention is called with other arguments."""
    right = functional.scaled_dot_product_attention

    def plant() -> AbstractContextManager[None]:
        wrong = lambda q, k, v, *more, **options: change(right, q, k, v, *more, **options)  # noqa: E731  # a one-liner
        return attribute(functional, "scaled_dot_product_attention", wrong)

    return plant


def _tiled(right: Any, q: Any, k: Any, v: Any, *more: Any, **options: Any) -> Any:
    count = q.shape[1] // k.shape[1]
    return right(q, k.repeat(1, count, 1, 1), v.repeat(1, count, 1, 1), *more, **{**options, "enable_gqa": False})


FAULTS = [
    sequence_fault(
        "attention sees what comes",
        "causal attention",
        "torch",
        _attention(causal=True),
        "causal=false",
        other_fields("torch", "attention", causal=False),
    ),
    sequence_fault(
        "attention without its scale",
        "attention scale",
        "torch",
        _attention(),
        "",
        _product(lambda right, *tensors, **options: right(*tensors, **options, scale=1.0)),
    ),
    sequence_fault(
        "heads of keys tiled",
        "grouped queries",
        "torch",
        _attention(heads=4, key_value_heads=2),
        "",
        _product(_tiled),
    ),
    token_fault(
        "attention mask turned over",
        "attention mask",
        token_net(
            _attention(mask="x", inputs="words"),
        ),
        "look",
        "",
        torch_port("attention", lambda layer, module, x, mask: module(x, (mask == 0).int())),
    ),
    sequence_fault(
        "rotary pairs side by side",
        "rotary layout",
        "torch",
        _attention(head_width=4, position="rotary"),
        "rotary_layout=interleaved",
        other_fields("torch", "attention", rotary_layout="interleaved"),
    ),
    sequence_fault(
        "rotary base of another model",
        "rotary base",
        "keras",
        _attention(head_width=4, position="rotary"),
        "",
        other_fields("keras", "attention", rotary_base=1000.0),
    ),
    sequence_fault(
        "ALiBi twice as steep",
        "ALiBi slopes",
        "torch",
        _attention(position="alibi"),
        "half precision",
        lambda: attribute(torch_attention, "alibi_bias", lambda heads, length: 2 * alibi_bias(heads, length)),
    ),
    sequence_fault(
        "sines first, in Keras",
        "sinusoidal positions",
        "keras",
        {"type": "sinusoidal_position", "name": "where"},
        "layout=half",
        other_fields("keras", "sinusoidal_position", layout="half"),
    ),
    sequence_fault(
        "positions from one on",
        "learned positions",
        "torch",
        {"type": "position_embedding", "name": "where"},
        "",
        torch_port("position_embedding", lambda layer, module, x: x + module.weight.roll(1, 0)[: x.shape[1]]),
    ),
    token_fault(
        "tied table without its gradient",
        "tied projection",
        [
            {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4},
            {"type": "dense", "name": "hidden", "units": 4},
            {"type": "tied_projection", "name": "logits", "embedding": "words", "units": 9},
        ],
        "logits",
        "zero throughout",
        torch_port("tied_projection", lambda layer, module, x: functional.linear(x, module.weight.detach())),
    ),
    token_fault(
        "one table for all columns",
        "table per position",
        [
            {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4, "table_per_position": True},
            {"type": "flatten", "name": "flat"},
            {"type": "dense", "name": "head", "units": 3},
        ],
        "words",
        "table_per_position=false",
        torch_port("embedding", lambda layer, module, x: functional.embedding(x, module.weight)),
    ),
    Fault(
        "tokens without their bias",
        "feature tokens",
        "torch",
        [
            {"type": "feature_tokens", "name": "tokens", "width": 3, "bias_initializer": "ones"},
            {"type": "flatten", "name": "flat"},
            {"type": "dense", "name": "head", "units": 3},
        ],
        (6,),
        "tokens",
        "use_bias=false",
        torch_port("feature_tokens", lambda layer, module, x: x[..., None] * module.weight + 0.0 * module.bias),
    ),
    sequence_fault(
        "last token for the first",
        "selected position",
        "torch",
        {"type": "select", "name": "first"},
        "index=-1",
        other_fields("torch", "select", index=-1),
    ),
    sequence_fault(
        "slice one further",
        "slice",
        "torch",
        {"type": "slice", "name": "part", "stop": 3},
        "",
        other_fields("torch", "slice", start=1, stop=4),
    ),
    sequence_fault(
        "the other half",
        "split",
        "keras",
        {"type": "split", "name": "half", "part": 0},
        "part=1",
        other_fields("keras", "split", part=1),
    ),
    sequence_fault(
        "equal largest share the gradient",
        "largest along an axis",
        "torch",
        {"type": "max", "name": "largest"},
        "",
        torch_port("max", lambda layer, module, x: x.amax(1)),
    ),
    token_fault(
        "mean of all positions",
        "masked mean",
        [
            {"type": "embedding", "name": "words", "vocabulary": 9, "width": 4},
            {"type": "mean", "name": "mean", "mask": "x"},
            {"type": "dense", "name": "head", "units": 3},
        ],
        "mean",
        "",
        torch_port("mean", lambda layer, module, x, mask: x.mean(1)),
    ),
    sequence_fault(
        "power of the size",
        "power",
        "torch",
        {"type": "power", "name": "cube", "exponent": 3.0},
        "",
        torch_port("power", lambda layer, module, x: torch.abs(x) ** 3),
    ),
]
