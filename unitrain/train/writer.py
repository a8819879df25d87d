"""Writing with a trained language model: text in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitrain.data.vocabulary import Vocabulary
from unitrain.graph.passes.decode import decode_step
from unitrain.spec.errors import InputError
from unitrain.train.generation import CachedReader, Reader, Sampling, WholeReader, generate, language_model
from unitrain.train.inference import TrainedRun
from unitrain.train.session import settings
from unitrain.weights.store import load_weights

_TORN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Writer:
    """A run's language model with its vocabulary.

    Parameters
    ----------
    reader
        The model.
    vocabulary
        What its tokens stand for.
    """

    reader: Reader
    vocabulary: Vocabulary

    @classmethod
    def open(cls, path: Path, *, backend: str | None = None, device: str | None = None, whole: bool = False) -> Writer:
        """Read a run folder; with ``whole`` keys and values of attention are not kept.

        Raises
        ------
        InputError
            The run is no language model, or its model sees later tokens.
        """
        run = TrainedRun.open(path, backend=backend, device=device)
        try:
            language_model(run.loaded.graph)
        except InputError as error:
            raise error.located(str(path)) from None
        encoder = run.preprocessing.text_encoder()
        if encoder is None:
            raise InputError(
                "the run has no vocabulary: its data are tokens without text",
                file=str(path),
                hint="train on a source of text, such as `source: {type: text, ...}`",
            )
        decoding = None if whole else decode_step(run.loaded.graph)
        if decoding is None:
            reader = WholeReader(run.program)
            reader.check_causal()
            return cls(reader, encoder.vocabulary)
        weights = decoding.weights(load_weights(run.folder.weights, run.loaded.graph))
        program = run.place.backend.compile(decoding.graph, weights, settings(run.loaded, run.place))
        return cls(CachedReader(decoding, program), encoder.vocabulary)

    def encode(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt. Raises `InputError` where it has none."""
        tokens = list(self.vocabulary.encode(prompt))
        if not tokens:
            raise InputError("the prompt has no tokens", hint="a model needs one token at least to go on from")
        return tokens

    def notes(self, prompt: str) -> list[str]:
        """Say what the model does not see of a prompt."""
        tokens = self.encode(prompt)
        notes = []
        unknown = sum(not self.vocabulary.writes(token) for token in tokens)
        if unknown:
            notes.append(f"{unknown} of the prompt's {len(tokens)} tokens are not in the vocabulary")
        if len(tokens) > self.reader.length:
            notes.append(f"the model sees the last {self.reader.length} of the prompt's {len(tokens)} tokens")
        return notes

    def stream(self, prompt: str, count: int, sampling: Sampling, stop: str | None = None) -> Iterator[str]:
        """Yield the text that follows a prompt, piece by piece.

        What may still change is held back: a character of which bytes are missing, and what may become ``stop``.
        """
        given = self.encode(prompt)
        before = len(self.vocabulary.decode(given))
        tokens: list[int] = []
        shown, text = 0, ""
        for drawn in generate(self.reader, given, count, sampling, allowed=self.vocabulary.writes):
            tokens.append(int(drawn[0]))
            text = self.vocabulary.decode([*given, *tokens])[before:]
            if stop and stop in text:
                yield text[shown : text.index(stop)]
                return
            safe = len(text.rstrip(_TORN)) - (len(stop) - 1 if stop else 0)
            if safe > shown:
                yield text[shown:safe]
                shown = safe
        yield text[shown:]

    def write(
        self, prompt: str, count: int, sampling: Sampling, samples: int, stop: str | None = None
    ) -> list[tuple[str, list[int]]]:
        """Return for each sample the text that follows the prompt, and the tokens that were drawn."""
        given = self.encode(prompt)
        before = len(self.vocabulary.decode(given))
        steps = list(generate(self.reader, given, count, sampling, samples=samples, allowed=self.vocabulary.writes))
        found = []
        for tokens in np.stack(steps, axis=1).tolist():
            text = self.vocabulary.decode([*given, *tokens])[before:]
            found.append((text.split(stop)[0] if stop else text, tokens))
        return found
