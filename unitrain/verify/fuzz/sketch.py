"""A model, or a block of one, that grows layer by layer while it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from unitrain.spec.layers import Divide, Embedding
from unitrain.spec.layers.base import LayerSpec, Shape
from unitrain.verify.fuzz.catalogue import Drawn, Row, draw_layer, draw_shape, drawable, profile
from unitrain.verify.fuzz.hints import pick

# How often what is added applies an earlier layer or block again, is a block, is a layer of several inputs: there are
# few kinds of these, and they make the graph.
AGAIN, BLOCKS, SEVERAL = 0.2, 0.35, 0.25
# An LSTM reads as many: a sequence, its mask, and two arrays of an initial state.
MOST_INPUTS = 4
TRIES = 60


@dataclass
class Value:
    """Something that a layer can read: its name, shape and kind, and whether anything reads it.

    A ``mask`` is of integers 0 and 1.
    """

    name: str
    shape: Shape
    integer: bool = False
    mask: bool = False
    read: bool = False

    @property
    def kind(self) -> tuple[Shape, bool, bool]:
        """What a layer that reads it asks for."""
        return self.shape, self.integer, self.mask


@dataclass(frozen=True)
class _Call:
    """Something that can be applied again: a block, or a layer whose weights are shared."""

    fields: dict[str, Any]
    sources: tuple[tuple[Shape, bool, bool], ...]
    results: tuple[tuple[str, Shape], ...]


@dataclass
class Sketch:
    """A model or block under way.

    Parameters
    ----------
    generator
        Where randomness comes from.
    blocks
        The model's blocks, which a block's sketch shares with its model's.
    open
        Whether inputs may be added: those of a block are given.
    values
        What there is to read: inputs, then results in the order of computation.
    layers
        As YAML has them.
    inputs
        Of the model, as YAML has them.
    """

    generator: np.random.Generator
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: bool = True
    values: list[Value] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[_Call] = field(default_factory=list)

    def chance(self, share: float) -> bool:
        """Throw a coin."""
        return bool(self.generator.random() < share)

    def add(self) -> bool:
        """Add a layer, or a block, or apply an earlier layer or block once more; tell whether it fitted."""
        if self.calls and self.chance(AGAIN) and self._again():
            return True
        if self.open and self.values and self.chance(BLOCKS) and self._add_block():
            return True
        several = self.chance(SEVERAL)
        kinds = [layer for layer in drawable() if (layer.arity[0] > 1) == several]
        if self.values and self.chance(0.85):
            kinds = [layer for layer in kinds if _reads(layer, self.values[-1])]
        return self.add_layer(pick(self.generator, kinds or drawable()))

    def add_layer(self, layer: type[LayerSpec], pins: Row | None = None) -> bool:
        """Add a layer, on new inputs where no value fits; ``pins`` settle options. Tell whether it fitted."""
        if self.values and self.chance(0.8):
            self._adapt(layer)
        for attempt in range(TRIES):
            # The longer nothing fits, the likelier a new input, and in a block or a full model nothing else is left.
            sources = self._sources(layer, 0.05 + attempt / TRIES)
            if sources is None:
                return False
            drawn = draw_layer(layer, self.generator, tuple(source.shape for source in sources), pins)
            if drawn is not None and self._append_layer(drawn, sources):
                return True
        return False

    def add_pair(self, first: type[LayerSpec], second: type[LayerSpec]) -> bool:
        """Add a layer and another that reads its result; tell whether they fitted."""
        if self.values and self.chance(0.8):
            self._adapt(first)
        for attempt in range(TRIES):
            sources = self._sources(first, 0.05 + attempt / TRIES)
            if sources is None:
                return False
            drawn = draw_layer(first, self.generator, tuple(source.shape for source in sources))
            if drawn is None or not _reads(second, Value("", drawn.shape, _integer(drawn, sources))):
                continue
            after = draw_layer(second, self.generator, (drawn.shape,) * second.arity[0])
            if after is not None and self._append_layer(drawn, sources):
                value = self.values[-1]
                alike = [known for known in self.values if (known.shape, known.integer) == (value.shape, value.integer)]
                others = [pick(self.generator, alike) for _ in range(second.arity[0] - 1)]
                return self._append_layer(after, [value, *others])
        return False

    def embed_integers(self) -> None:
        """Let embeddings read the integers that nothing reads yet, so that there is something to train."""
        for value in self.results():
            if value.integer:
                drawn = draw_layer(Embedding, self.generator, (value.shape,))
                if drawn is not None:
                    self._append_layer(drawn, [value])

    def results(self) -> list[Value]:
        """Return the values that nothing reads, inputs left out."""
        first = len(self.values) - sum(value.name not in self._given for value in self.values)
        return [value for value in self.values[first:] if not value.read]

    @property
    def _given(self) -> set[str]:
        return set(self.inputs) if self.open else {"input", "input_1", "input_2"}

    def _sources(self, layer: type[LayerSpec], fresh: float) -> list[Value] | None:
        """Choose what a layer reads; None when nothing can fit."""
        least, most = layer.arity
        count = (
            least if most == least else least + int(self.generator.integers(0, min(2, (most or least + 2) - least) + 1))
        )
        first = self._source(layer, fresh)
        if first is None:
            return None
        alike = [value for value in self.values if (value.shape, value.integer) == (first.shape, first.integer)]
        others = [value for value in self.values if value.integer == first.integer]
        sources = [first]
        for _ in range(count - 1):
            pending = sum(not source.name for source in sources)
            if self._may_open(pending) and self.chance(fresh):
                shape = tuple(1 if self.chance(0.15) else extent for extent in first.shape)
                sources.append(self._new_input(shape, first.integer))
            else:
                sources.append(pick(self.generator, (alike if self.chance(0.7) else others) or [first]))
        return sources

    def _source(self, layer: type[LayerSpec], fresh: float) -> Value | None:
        """Choose what a layer reads first: mostly the newest value that fits."""
        fitting = [value for value in self.values if _reads(layer, value)]
        if self._may_open() and (not fitting or self.chance(fresh)):
            integer = layer.accepts == "integer" or (layer.accepts == "any" and self.chance(0.2))
            return self._new_input(
                draw_shape(self.generator, pick(self.generator, sorted(profile(layer).reads))), integer
            )
        if not fitting:
            return None
        return fitting[-1] if self.chance(0.75) else pick(self.generator, fitting)

    def _adapt(self, layer: type[LayerSpec]) -> None:
        """Reshape the newest value when it has not as many axes as a layer reads, so that the model stays connected."""
        newest = self.values[-1]
        if newest.integer or layer.accepts == "integer" or _reads(layer, newest):
            return
        shape, rest = [], prod(newest.shape)
        for _ in range(pick(self.generator, sorted(profile(layer).reads)) - 1):
            divisors = [extent for extent in range(1, rest + 1) if rest % extent == 0]
            # The middle ones leave something for the other axes.
            shape.append(divisors[len(divisors) // 2])
            rest //= shape[-1]
        fields = {"type": "reshape", "shape": [*shape, rest]}
        self._append(fields, [newest], [("", (*shape, rest))])

    def _may_open(self, pending: int = 0) -> bool:
        return self.open and len(self.inputs) + pending < MOST_INPUTS

    def _new_input(self, shape: Shape, integer: bool) -> Value:
        """Return an input that joins the model only when a layer reads it."""
        return Value("", shape, integer)

    def _append_layer(self, drawn: Drawn, sources: list[Value]) -> bool:
        """Add a layer with its side inputs; tell whether there are values for these."""
        sides = self._sides(drawn, sum(not source.name for source in sources))
        if sides is None:
            return False
        integer = _integer(drawn, sources)
        shapes = tuple(source.kind for source in chain(sources, *sides.values()))
        if isinstance(drawn.layer, Divide):
            # What is divided by is kept from 0.
            self._append({"type": "sigmoid"}, sources[1:], [("", sources[1].shape)])
            sources = [sources[0], self.values[-1]]
        mask = integer and (drawn.layer.gives is not None or all(source.mask for source in sources))
        name = self._append(drawn.fields, sources, [("", drawn.shape)], integer, mask, sides)
        if not integer and not isinstance(drawn.layer, Divide):
            self.calls.append(_Call({"type": "shared", "layer": name}, shapes, (("", drawn.shape),)))
        return True

    def _sides(self, drawn: Drawn, pending: int) -> dict[str, list[Value]] | None:
        """Choose values for side inputs, earlier or new ones; None where none fit and no input may be added."""
        chosen: dict[str, list[Value]] = {}
        for name, shapes in drawn.sides.items():
            chosen[name] = []
            for shape in shapes:
                wanted = Value("", shape, drawn.layer.side_inputs[name] == "integer", mask=name == "mask")
                fitting = [value for value in self.values if value.kind == wanted.kind]
                if fitting and (self.chance(0.6) or not self._may_open(pending)):
                    chosen[name].append(pick(self.generator, fitting))
                elif self._may_open(pending):
                    chosen[name].append(wanted)
                    pending += 1
                else:
                    return None
        return chosen

    def _append(
        self,
        fields: dict[str, Any],
        sources: list[Value],
        results: list[tuple[str, Shape]],
        integer: bool = False,
        mask: bool = False,
        sides: Mapping[str, list[Value]] = MappingProxyType({}),
    ) -> str:
        for source in chain(sources, *sides.values()):
            if not source.name:
                self._join(source)
            source.read = True
        name = f"{fields['type']}_{len(self.layers) + 1}"
        read = {side: [value.name for value in given] for side, given in sides.items()}
        self.layers.append({**fields, **read, "name": name, "inputs": [source.name for source in sources]})
        self.values += [Value(f"{name}.{part}" if part else name, shape, integer, mask) for part, shape in results]
        return name

    def _join(self, source: Value) -> None:
        """Make an input of the model of what a layer reads."""
        source.name = f"input_{len(self.inputs) + 1}"
        given: dict[str, Any] = {"shape": list(source.shape)}
        if source.integer:
            given |= {"dtype": "integer"} | ({"low": 0, "high": 1} if source.mask else {})
        elif self.chance(0.3):
            given |= pick(self.generator, ({"low": 0.0, "high": 1.0}, {"low": -2.0, "high": 2.0}, {"low": 0.0}))
        self.inputs[source.name] = given
        self.values.insert(len(self.inputs) - 1, source)

    def _again(self) -> bool:
        """Apply an earlier layer or block once more, to values of the same shapes."""
        call = pick(self.generator, self.calls)
        sources = []
        for wanted in call.sources:
            fitting = [value for value in self.values if value.kind == wanted]
            if not fitting:
                return False
            sources.append(fitting[-1] if self.chance(0.7) else pick(self.generator, fitting))
        self._append(dict(call.fields), sources, list(call.results))
        return True

    def _add_block(self) -> bool:
        """Put a few layers into a block, and use it, several times in a row where its output fits its input."""
        g = self.generator
        floats = [value for value in self.values if not value.integer]
        if not floats:
            return False
        sources = [floats[-1], *([pick(g, floats)] if self.chance(0.25) else [])]
        names = ["input"] if len(sources) == 1 else ["input_1", "input_2"]
        inner = Sketch(g, open=False, values=[Value(name, v.shape) for name, v in zip(names, sources, strict=True)])
        for _ in range(int(g.integers(1, 4))):
            inner.add()
        results = inner.results()
        if not results or not all(value.read for value in inner.values[: len(names)]):
            return False
        call: dict[str, Any] = {"type": "block", "block": f"block_{len(self.blocks) + 1}"}
        block: dict[str, Any] = {} if names == ["input"] else {"inputs": names}
        arguments = take_arguments(g, inner.layers, 0.4)
        if arguments:
            # Some are stated where the block is used, others are defaults.
            stated = {name: value for name, value in arguments.items() if self.chance(0.5)}
            block["arguments"] = {name: None if name in stated else value for name, value in arguments.items()}
            call |= {"arguments": stated} if stated else {}
        block["layers"] = inner.layers
        parts = [value.name for value in results]
        if len(parts) > 1 or self.chance(0.3):
            block["outputs"] = parts
        if [value.shape for value in results] == [source.shape for source in sources] and self.chance(0.8):
            call["repeat"] = int(g.integers(2, 4))
        self.blocks[call["block"]] = block
        shapes = tuple(source.kind for source in sources)
        given = tuple((value.name if len(parts) > 1 else "", value.shape) for value in results)
        name = self._append(call, sources, list(given))
        self.calls.append(_Call({"type": "shared", "layer": name}, shapes, given))
        self.calls.append(_Call(call, shapes, given))
        return True


def _integer(drawn: Drawn, sources: list[Value]) -> bool:
    return drawn.layer.gives == "integer" or (sources[0].integer and drawn.layer.accepts == "any")


def _reads(layer: type[LayerSpec], value: Value) -> bool:
    kind = "integer" if value.integer else "float"
    return len(value.shape) in profile(layer).reads and layer.accepts in ("any", kind)


def take_arguments(generator: np.random.Generator, layers: list[dict[str, Any]], share: float) -> dict[str, Any]:
    """Replace some whole numbers in layers by references; return what the references stand for."""
    arguments: dict[str, Any] = {}
    for layer in layers:
        numbers = [name for name, value in layer.items() if type(value) is int]
        if numbers and generator.random() < share:
            name = pick(generator, numbers)
            argument = f"{name}_{len(arguments) + 1}"
            value = layer[name]
            if value > 1 and value % 2 == 0 and generator.random() < 0.5:
                arguments[argument], layer[name] = value // 2, f"${{2 * {argument}}}"
            else:
                arguments[argument], layer[name] = value, f"${argument}"
    return arguments
