"""Text from a language model: the next token drawn again and again from what the model says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Program
from unitrain.backends.tables import alibi_slopes, rotary_angles, sinusoidal_waves
from unitrain.graph.graph import Graph
from unitrain.graph.passes.decode import Cache, Decoding
from unitrain.spec.errors import InputError
from unitrain.weights.random import stream

Logits = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int32]

# Added to the products with positions that are not seen: their weight is 0 in float32, exactly.
_LEFT_OUT = -1e9


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Parameters
    ----------
    temperature
        Logits are divided by it; 0 takes the likeliest token, the first of equals.
    top_k
        Only so many of the likeliest tokens may be drawn.
    top_p
        Only the likeliest tokens whose probabilities add up to this much may be drawn, the one with which they reach
        it included (Holtzman et al. 2020, The curious case of neural text degeneration, section 3.1).
    seed
        Keys the draws: each depends on the seed, the number of the sample and the position alone.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < np.inf:
            raise InputError("the temperature is out of range", found=str(self.temperature), allowed="0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise InputError("top_k is out of range", found=str(self.top_k), allowed="1 or more")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise InputError("top_p is out of range", found=str(self.top_p), allowed="above 0, to 1")

    def probabilities(self, logits: Logits) -> Logits:
        """Return the probabilities ``[sample, vocabulary]`` with which tokens are drawn."""
        if self.temperature == 0.0:
            chosen = np.zeros_like(logits)
            chosen[np.arange(len(logits)), logits.argmax(axis=1)] = 1.0
            return chosen
        with np.errstate(over="ignore"):  # of a temperature next to 0
            weights = np.exp((logits - logits.max(axis=1, keepdims=True)) / self.temperature)
        # The likeliest first; of equals the first in the vocabulary.
        order = np.argsort(-logits, axis=1, kind="stable")
        ranked = np.take_along_axis(weights, order, axis=1)
        if self.top_k is not None:
            ranked[:, self.top_k :] = 0.0
        ranked /= ranked.sum(axis=1, keepdims=True)
        if self.top_p is not None:
            before = ranked.cumsum(axis=1) - ranked
            ranked[before >= self.top_p] = 0.0
            ranked /= ranked.sum(axis=1, keepdims=True)
        chosen = np.empty_like(ranked)
        np.put_along_axis(chosen, order, ranked, axis=1)
        return chosen

    def draw(self, logits: Logits, position: int) -> Tokens:
        """Draw a token for each sample: the first at which the sum of probabilities exceeds a uniform number."""
        sums = self.probabilities(logits).cumsum(axis=1)
        uniform = np.array([stream(self.seed, "generate", sample, position).random() for sample in range(len(logits))])
        drawn: Tokens = (sums > (uniform * sums[:, -1])[:, None]).argmax(axis=1).astype(np.int32)
        return drawn


class Reader(Protocol):
    """Reads tokens one after another, and says what comes next."""

    @property
    def length(self) -> int:
        """How many tokens it can see at once."""
        ...

    def restart(self) -> None:
        """Forget all tokens."""
        ...

    def read(self, tokens: Tokens) -> Logits:
        """Read further tokens ``[sample, count]`` and return the logits of the next one, ``[sample, vocabulary]``."""
        ...


class WholeReader:
    """Computes the whole sequence for every token: for any model in which no position sees later ones.

    Parameters
    ----------
    program
        The model, from tokens ``[length]`` to logits ``[length, vocabulary]``.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._source, self._output, self.length = language_model(program.graph)
        self._seen: Tokens | None = None

    def restart(self) -> None:
        """Forget all tokens."""
        self._seen = None

    def read(self, tokens: Tokens) -> Logits:
        """Read further tokens, with zeros at the positions behind them, which they do not see."""
        self._seen = tokens if self._seen is None else np.concatenate([self._seen, tokens], axis=1)
        count = self._seen.shape[1]
        sequence = np.zeros((len(tokens), self.length), np.int32)
        sequence[:, :count] = self._seen
        outputs = self._program.predict({self._source: sequence})[self._output]
        return np.asarray(outputs[:, count - 1], np.float64)

    def check_causal(self) -> None:
        """Raise `InputError` where a position sees later ones: such a model says nothing of a token to come."""
        tokens = np.zeros((2, self.length), np.int32)
        tokens[1, self.length // 2 :] = 1
        outputs = self._program.predict({self._source: tokens})[self._output][:, : self.length // 2]
        if not np.allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-3 * np.abs(outputs).max(initial=0.0)):
            raise InputError(
                "the model cannot go on with a text: what it says of a position depends on later ones",
                hint="generate with a causal model, such as models/gpt_mini.yaml",
            )


@dataclass
class CachedReader:
    """Computes the new token alone; the keys and values of earlier ones are kept (see `graph.passes.decode`).

    Parameters
    ----------
    decoding, program
        The model of one step, compiled.
    """

    decoding: Decoding
    program: Program
    _caches: dict[str, npt.NDArray[np.float32]] = field(init=False, default_factory=dict)
    _count: int = field(init=False, default=0)

    @property
    def length(self) -> int:
        """How many tokens it can see at once."""
        return self.decoding.length

    def restart(self) -> None:
        """Forget all tokens."""
        self._caches, self._count = {}, 0

    def read(self, tokens: Tokens) -> Logits:
        """Read further tokens, one after another."""
        steps = [self._step(tokens[:, place : place + 1]) for place in range(tokens.shape[1])]
        return steps[-1]

    def _step(self, tokens: Tokens) -> Logits:
        decoding, position, samples = self.decoding, self._count, len(tokens)
        inputs: dict[str, Any] = {decoding.tokens: tokens}
        if decoding.position is not None:
            inputs[decoding.position] = np.full((samples, 1), position, np.int32)
        for name, layer in decoding.waves.items():
            waves = sinusoidal_waves((self.length, decoding.graph.inputs[name].shape[1]), layer.base, layer.layout)
            inputs[name] = _repeated(waves[position][None], samples)
        for cache in decoding.caches:
            for name in (cache.keys, cache.values):
                if name not in self._caches:
                    self._caches[name] = np.zeros((samples, *cache.shape), np.float32)
                inputs[name] = self._caches[name]
            inputs |= {name: _repeated(array, samples) for name, array in _fixed(cache, position).items()}
        outputs = self.program.predict(inputs)
        for cache in decoding.caches:
            self._caches[cache.keys][:, :, position] = outputs[cache.new_keys][:, :, 0]
            self._caches[cache.values][:, :, position] = outputs[cache.new_values][:, :, 0]
        self._count += 1
        return np.asarray(outputs[decoding.logits][:, 0], np.float64)


def _repeated(array: npt.NDArray[Any], samples: int) -> npt.NDArray[np.float32]:
    return np.broadcast_to(array.astype(np.float32), (samples, *array.shape))


def _fixed(cache: Cache, position: int) -> dict[str, npt.NDArray[Any]]:
    """Return what depends on the position alone: which earlier positions are there, distances, angles."""
    groups, length, channels = cache.shape
    layer = cache.layer
    bias = np.zeros((1, 1, length + 1))
    if layer.position == "alibi":
        distance = np.append(position - np.arange(length), 0)
        bias = (-alibi_slopes(layer.heads)[:, None] * distance).reshape(groups, -1, length + 1)
    bias[..., position:length] = _LEFT_OUT
    found = {cache.bias: bias}
    if cache.turn is not None:
        angles = rotary_angles(length, channels, layer.rotary_base)[position]
        both = [angles, angles] if layer.rotary_layout == "half" else [angles.repeat(2)]
        whole = np.concatenate(both)[None, None]
        found |= {cache.turn[0]: np.cos(whole), cache.turn[1]: np.sin(whole)}
    return found


def language_model(graph: Graph) -> tuple[str, str, int]:
    """Return input, output and length of a model from tokens ``[length]`` to logits ``[length, vocabulary]``.

    Raises
    ------
    InputError
        It is none.
    """
    inputs, outputs = list(graph.inputs.items()), list(graph.outputs.items())
    if len(inputs) == len(outputs) == 1:
        (source, given), (output, last) = inputs[0], outputs[0]
        shape = graph.shape(last)
        if given.dtype == "integer" and len(given.shape) == 1 and len(shape) == 2 and shape[:1] == given.shape:
            return source, output, given.shape[0]
    shown = ", ".join(f"{name} {list(given.shape)} {given.dtype}" for name, given in inputs)
    raise InputError(
        "the model is no language model",
        found=f"from {shown} to {', '.join(f'{name} {list(graph.shape(last))}' for name, last in outputs)}",
        allowed="one input of integers [length], one output [length, vocabulary]",
    )


def generate(
    reader: Reader,
    prompt: Sequence[int],
    count: int,
    sampling: Sampling,
    *,
    samples: int = 1,
    allowed: Callable[[int], bool] | None = None,
) -> Iterator[Tokens]:
    """Go on with a prompt.

    A model sees so many tokens at once. When it has read as many, it starts afresh with the last half of them: so a
    text of any length takes about twice as long a token as its beginning.

    Parameters
    ----------
    reader
        The model.
    prompt
        Tokens, one at least; of a long prompt the model sees the end.
    count
        Tokens to add.
    sampling
        How they are chosen.
    samples
        How many texts to go on with, each with draws of its own.
    allowed
        Tells which tokens may be drawn; all by default.

    Yields
    ------
    array
        The next token of each text, int32 ``[sample]``.
    """
    seen: Tokens = np.tile(np.array(prompt[-reader.length :], np.int32), (samples, 1))
    reader.restart()
    logits = reader.read(seen)
    barred = np.array([allowed is not None and not allowed(token) for token in range(logits.shape[1])])
    for position in range(count):
        tokens = sampling.draw(np.where(barred, -np.inf, logits), position)
        yield tokens
        if position == count - 1:
            return
        seen = np.concatenate([seen, tokens[:, None]], axis=1)
        if seen.shape[1] > reader.length:
            seen = seen[:, -max(reader.length // 2, 1) :]
            reader.restart()
            logits = reader.read(seen)
        else:
            logits = reader.read(tokens[:, None])
