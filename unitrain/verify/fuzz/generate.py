"""Draws random models that resolve: branches, merges, shared layers and blocks, of every layer there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from unitrain.spec.base import Spec
from unitrain.spec.errors import InputError
from unitrain.spec.layers import LAYER_TYPES, LayerSpec
from unitrain.spec.layers.base import Shape, ShapeError
from unitrain.spec.losses import Loss
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Optimizer
from unitrain.verify.fuzz.case import VerifyCase
from unitrain.verify.fuzz.fields import draw_fields
from unitrain.weights.random import stream

# A value of the model has at most this many numbers, and the model at most this many layers.
NUMBERS, LAYERS = 400, 8
# Layers of these kinds read several values.
MERGES = tuple(name for name, layer in LAYER_TYPES.items() if layer.arity[1] is None)
SINGLES = tuple(name for name in LAYER_TYPES if name not in MERGES)


def draw_case(seed: int, number: int) -> VerifyCase:
    """Draw a model and its training; the same for the same ``seed`` and ``number``, whatever was drawn before."""
    for attempt in range(1000):
        generator = stream(seed, "fuzz", number, attempt)
        try:
            case = _draw(generator, number)
            case.graph()
        except (InputError, ShapeError, ValidationError):
            continue
        return case
    raise AssertionError("a model is drawn in far fewer attempts")


@dataclass
class _Value:
    name: str
    shape: Shape
    integer: bool
    read: bool = False


@dataclass
class _Sketch:
    """A model that grows layer by layer."""

    generator: np.random.Generator
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: list[_Value] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared: list[tuple[dict[str, Any], Shape]] = field(default_factory=list)

    def chance(self, share: float) -> bool:
        """Throw a coin."""
        return bool(self.generator.random() < share)

    def add_input(self) -> None:
        """Add a vector, a sequence, an image, or integers for an embedding."""
        g = self.generator
        name = f"input_{len(self.inputs) + 1}"
        kind = g.choice(["vector", "sequence", "image", "image", "integers", "number"])
        sizes = {"vector": 1, "sequence": 2, "image": 3, "integers": int(g.integers(0, 2)), "number": 0}
        shape = [int(g.integers(2, 8)) for _ in range(sizes[kind])]
        given: dict[str, Any] = {"shape": shape}
        if kind == "integers":
            given["dtype"] = "integer"
        elif self.chance(0.3):
            given |= {"low": 0.0, "high": 1.0}
        self.inputs[name] = given
        self.values.append(_Value(name, tuple(shape), kind == "integers"))

    def add_layer(self, first_type: str | None = None) -> bool:
        """Try to add one layer; return whether it fits."""
        g = self.generator
        if self.shared and self.chance(0.1) and self._add_shared():
            return True
        if first_type is None and len(self.values) > 1 and self.chance(0.3):
            return self._add_merge(str(g.choice(MERGES)))
        kind = first_type or str(g.choice(SINGLES))
        if kind in MERGES:
            return self._add_merge(kind)
        source = self._source(LAYER_TYPES[kind].accepts)
        if source is None:
            return False
        fields = self._fields(kind, source.shape)
        layer = self._checked(fields, source.shape)
        if layer is None:
            return False
        shape = layer.output_shape(source.shape)
        integer = source.integer and layer.accepts == "any"
        if shape == source.shape and not source.integer and self.chance(0.15):
            return self._add_block(fields, source)
        self._append({**fields, "inputs": [source.name]}, [source], shape, integer)
        if layer.parameters(source.shape) and not source.integer:
            self.shared.append((self.layers[-1], source.shape))
        return True

    def _source(self, accepts: str) -> _Value | None:
        """Choose what a layer reads: mostly the newest value that fits."""
        fitting = [v for v in self.values if accepts == "any" or v.integer == (accepts == "integer")]
        if not fitting:
            return None
        return fitting[-1] if self.chance(0.7) else fitting[int(self.generator.integers(len(fitting)))]

    def _fields(self, kind: str, shape: Shape) -> dict[str, Any]:
        g = self.generator
        fields = draw_fields(LAYER_TYPES[kind], g)
        if kind == "reshape":
            fields["shape"] = _another_shape(prod(shape), g)
        if kind == "permute":
            fields["axes"] = [int(axis) for axis in g.permutation(len(shape))]
        if kind == "embedding":
            fields["vocabulary"] = int(g.integers(8, 12))
        if kind == "padding":
            amounts = (
                [[int(n) for n in g.integers(0, 3, 2)] for _ in range(int(g.integers(1, len(shape) + 1)))]
                if shape
                else []
            )
            fields["amounts"] = amounts
        return fields

    def _checked(self, fields: dict[str, Any], *shapes: Shape) -> LayerSpec | None:
        """Return the layer when it is valid for the shapes and not too large."""
        try:
            layer = LAYER_TYPES[fields["type"]].model_validate(fields)
            shape = layer.output_shape(*shapes)
            layer.parameters(*shapes)
        except (ValidationError, ShapeError, ValueError, IndexError):
            return None
        return layer if 0 < prod(shape) <= NUMBERS else None

    def _add_merge(self, kind: str) -> bool:
        g = self.generator
        floats = [value for value in self.values if not value.integer]
        if len(floats) < 1:
            return False
        chosen = [floats[-1], *(floats[int(i)] for i in g.integers(0, len(floats), int(g.integers(1, 3))))]
        fields = draw_fields(LAYER_TYPES[kind], g)
        layer = self._checked(fields, *(value.shape for value in chosen))
        if layer is None:
            return False
        names = [value.name for value in chosen]
        self._append({**fields, "inputs": names}, chosen, layer.output_shape(*(v.shape for v in chosen)), False)
        return True

    def _add_shared(self) -> bool:
        """Apply an earlier layer again to a value of the same shape."""
        layer, shape = self.shared[int(self.generator.integers(len(self.shared)))]
        fitting = [value for value in self.values if value.shape == shape and not value.integer]
        if not fitting:
            return False
        source = fitting[-1]
        result = LAYER_TYPES[layer["type"]].model_validate(
            {k: v for k, v in layer.items() if k not in ("name", "inputs")}
        )
        fields = {"type": "shared", "layer": layer["name"], "inputs": [source.name]}
        self._append(fields, [source], result.output_shape(shape), False)
        return True

    def _add_block(self, fields: dict[str, Any], source: _Value) -> bool:
        """Put a layer that keeps the shape into a block of one or two layers, and repeat it."""
        name = f"block_{len(self.blocks) + 1}"
        layers = [fields]
        if self.chance(0.5):
            layers.append({"type": str(self.generator.choice(["relu", "tanh", "silu", "gelu"]))})
        if self.chance(0.5):
            layers.append({"type": "add", "inputs": ["input", "last"]})
            layers[-2] = {**layers[-2], "name": "last"}
        self.blocks[name] = {"layers": layers}
        call = {"type": "block", "block": name, "repeat": int(self.generator.integers(1, 3)), "inputs": [source.name]}
        self._append(call, [source], source.shape, False)
        return True

    def _append(self, fields: dict[str, Any], sources: list[_Value], shape: Shape, integer: bool) -> None:
        name = f"{fields['type']}_{len(self.layers) + 1}"
        self.layers.append({**fields, "name": name})
        for source in sources:
            source.read = True
        self.values.append(_Value(name, shape, integer))


def _another_shape(size: int, generator: np.random.Generator) -> list[int]:
    """Draw a shape of ``size`` elements, at times with one extent left open."""
    shape, rest = [], size
    for _ in range(int(generator.integers(0, 3))):
        divisors = [n for n in range(1, rest + 1) if rest % n == 0]
        shape.append(int(generator.choice(divisors)))
        rest //= shape[-1]
    shape.append(-1 if generator.random() < 0.4 else rest)
    return shape


def _draw(generator: np.random.Generator, number: int) -> VerifyCase:
    sketch = _Sketch(generator)
    for _ in range(1 + int(generator.integers(0, 2))):
        sketch.add_input()
    # Every kind of layer has its turn.
    wanted: str | None = tuple(LAYER_TYPES)[number % len(LAYER_TYPES)]
    if wanted == "embedding" and not any(value.integer for value in sketch.values):
        raise ShapeError("needs integers")
    count = int(generator.integers(1, LAYERS + 1))
    for _ in range(8 * count):
        if len(sketch.layers) >= count and wanted is None:
            break
        if sketch.add_layer(wanted if sketch.chance(0.4) else None) and sketch.layers[-1]["type"] == wanted:
            wanted = None
    if wanted is not None:
        raise ShapeError(f"{wanted} did not fit")
    made = [value for value in sketch.values if value.name not in sketch.inputs]
    outputs = [value for value in made if not value.integer and not value.read]
    if not outputs:
        raise ShapeError("no output")
    unused = [value.name for value in sketch.values if value.name in sketch.inputs and not value.read]
    inputs = {name: given for name, given in sketch.inputs.items() if name not in unused}
    model = ModelSpec.model_validate(
        {
            "inputs": inputs,
            "blocks": sketch.blocks,
            "layers": sketch.layers,
            "outputs": [value.name for value in outputs],
        }
    )
    return _with_training(model, {value.name: value.shape for value in outputs}, generator)


def _with_training(model: ModelSpec, outputs: dict[str, Shape], generator: np.random.Generator) -> VerifyCase:
    losses = {}
    for name, shape in outputs.items():
        kinds = ["mse", "huber", "mae", "binary_cross_entropy"]
        if shape and shape[-1] > 1:
            kinds += ["cross_entropy", "cross_entropy", "kl_divergence"]
        kind = str(generator.choice(kinds))
        losses[name] = {"loss": draw_fields(_member(Loss, kind), generator)}
        if generator.random() < 0.2:
            losses[name]["factor"] = 0.5  # type: ignore[assignment]  # beside the mapping of the loss
    rule = str(generator.choice(["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "lion"]))
    optimizer = draw_fields(_member(Optimizer, rule), generator, often=0.4)
    if optimizer.get("nesterov") and not optimizer.get("momentum"):
        optimizer["momentum"] = 0.9
    return VerifyCase.model_validate(
        {
            "model": model,
            "losses": losses,
            "optimizer": optimizer,
            "accumulate": int(generator.choice([1, 1, 1, 2, 3])),
        }
    )


def _member(union: Any, kind: str) -> type[Spec]:
    """Return the class of a union whose ``type`` is ``kind``."""
    least: dict[str, Any] = {"type": kind}
    found = TypeAdapter(union).validate_python(least)
    return type(found)
