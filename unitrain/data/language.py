"""Running text for a language model: divided, made into tokens, and cut into windows, before anything else is done.

A part's texts are laid end to end, with a token 0 between two. A window's targets are its tokens, one later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.data import split
from unitrain.data.raw import Parts, Raw
from unitrain.data.vocabulary import PADDING, Vocabulary, WordVocabulary, learn_vocabulary
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError
from unitrain.spec.sources.text import Austen, Language
from unitrain.spec.vocabulary import VocabularySpec

Tokens = npt.NDArray[np.int32]
FEATURE, TARGET = "text", "next"


def is_language(source: object) -> bool:
    """Tell whether a source is running text of which the next token is predicted."""
    return isinstance(source, Language) and not (isinstance(source, Austen) and source.predict != "next")


def cut_parts(
    parts: Parts,
    spec: DataSpec,
    inputs: Mapping[str, Any],
    generator: np.random.Generator,
    vocabulary: Vocabulary | None,
) -> tuple[Parts, list[str]]:
    """Divide texts into parts, learn the vocabulary from the training part, and cut all into windows.

    Parameters
    ----------
    parts
        Texts as read, feature ``text``.
    spec
        What the recipe says; its source is a `Language`.
    inputs
        The model's inputs: one, of integers ``[length]``.
    vocabulary
        Of an earlier run, or None to learn one.

    Raises
    ------
    InputError
        A part is too short for one window, or the model's input is none for tokens.
    """
    source = spec.source
    assert isinstance(source, Language)
    length = _window_length(inputs)
    parts = divide_texts(parts, spec, generator)
    wanted = spec.vocabulary or VocabularySpec(type="characters")
    learnt = vocabulary or learn_vocabulary(wanted, parts["train"].features[FEATURE])
    windows = {
        part: windows_of(raw, learnt, length, (source.stride or length) if part == "train" else length, part)
        for part, raw in parts.items()
    }
    characters = {part: sum(map(len, raw.features[FEATURE])) for part, raw in parts.items()}
    notes = [
        "text: " + ", ".join(f"{count:,} characters {part}" for part, count in characters.items()),
        f"windows of {length} tokens, a new one each {source.stride or length} in training",
    ]
    unknown = _unknown_share(windows, learnt)
    return windows, notes + unknown


def windows_of(raw: Raw, vocabulary: Vocabulary, length: int, stride: int, part: str = "text") -> Raw:
    """Lay texts end to end and cut them; what is left at the end and fills no window is left out.

    Returns
    -------
    raw
        Feature ``text`` and target ``next``, int32 ``[window, length]``, which hold numbers of tokens.

    Raises
    ------
    InputError
        There are not ``length + 1`` tokens.
    """
    texts = raw.features[FEATURE]
    pieces: list[Tokens] = []
    for number, text in enumerate(texts):
        pieces.append(np.array([PADDING] * (number > 0) + vocabulary.encode(text), dtype=np.int32))
    tokens = np.concatenate(pieces)
    if len(tokens) <= length:
        raise InputError(
            f"too little text: the {part} part does not fill one window",
            file=raw.origin.file,
            found=f"{len(tokens):,} tokens",
            allowed=f"at least {length + 1:,}: the input's length and the token behind it",
        )
    starts = np.arange(0, len(tokens) - length, stride)
    places = starts[:, None] + np.arange(length)
    text_of = np.searchsorted(np.cumsum([len(piece) for piece in pieces]), starts, side="right")
    classes = {TARGET: tuple(str(token) for token in range(vocabulary.size))}
    return Raw(
        {FEATURE: tokens[places]},
        {TARGET: tokens[places + 1]},
        raw.origin,
        raw.rows[text_of],
        classes=classes,
        texts={FEATURE: vocabulary},
    )


def _window_length(inputs: Mapping[str, Any]) -> int:
    shapes = [given.shape for given in inputs.values() if str(given.dtype) == "integer"]
    if len(inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 1:
        raise InputError(
            "a language model has one input of tokens",
            field=("source",),
            found=", ".join(f"{name} {list(given.shape)} {given.dtype}" for name, given in inputs.items()),
            allowed="one input {shape: [length], dtype: integer}",
        )
    return int(shapes[0][0])


def divide_texts(parts: Parts, spec: DataSpec, generator: np.random.Generator) -> Parts:
    """Draw the parts that the source lacks from its texts, which stay texts."""
    assert isinstance(spec.source, Language)
    if spec.split.stratified:
        raise InputError("running text has no classes to stratify by", field=("split", "stratified"))
    shares = split.fractions(spec.split, parts)
    if len(shares) == 1:
        return parts
    raw = parts["train"]
    drawn = _stretches(raw, shares) if spec.source.divide == "stretches" else _whole_documents(raw, shares, generator)
    return {**parts, **drawn}


def _stretches(raw: Raw, shares: Mapping[str, float]) -> Parts:
    """Cut each text at the same fractions of its characters, at the nearest blank before."""
    pieces: dict[str, list[str]] = {part: [] for part in shares}
    for text in raw.features[FEATURE]:
        begin, total = 0, 0.0
        for part, share in shares.items():
            total += share
            end = len(text) if total > 1.0 - 1e-9 else _before_blank(text, round(total * len(text)), begin)
            pieces[part].append(text[begin:end])
            begin = end
    parts: Parts = {}
    for part, found in pieces.items():
        kept = np.array([bool(piece) for piece in found])
        if not kept.any():
            raise InputError(f"too little text: the {part} part would be empty", field=("split", part))
        whole = Raw({FEATURE: np.array(found, dtype=object)}, {}, raw.origin, raw.rows, texts=raw.texts)
        parts[part] = whole.take(kept)
    return parts


def _before_blank(text: str, end: int, begin: int) -> int:
    """Return the place behind the last blank before ``end``; ``end`` where there is none near."""
    for place in range(end, max(begin, end - 100), -1):
        if text[place - 1].isspace():
            return place
    return end


def _whole_documents(raw: Raw, shares: Mapping[str, float], generator: np.random.Generator) -> Parts:
    """Give texts, in random order, to the part that lacks most of its share of all characters; each gets one."""
    texts = raw.features[FEATURE]
    if len(texts) < len(shares):
        raise InputError(
            "too few texts to divide by",
            field=("source", "divide"),
            found=f"{len(texts)}",
            allowed=f"at least {len(shares)}, one for each part",
            hint="`divide: stretches` cuts each text",
        )
    sizes = np.array([len(text) for text in texts])
    lacks = np.array(list(shares.values())) * sizes.sum()
    part_of = np.zeros(len(texts), dtype=np.int64)
    empty = set(range(len(shares)))
    order = generator.permutation(len(texts))
    for position, index in enumerate(order):
        choices = sorted(empty) if len(order) - position == len(empty) else range(len(shares))
        chosen = max(choices, key=lambda choice: float(lacks[choice]))
        part_of[index] = chosen
        lacks[chosen] -= sizes[index]
        empty.discard(chosen)
    return {part: raw.take(part_of == number) for number, part in enumerate(shares)}


def _unknown_share(parts: Parts, vocabulary: Vocabulary) -> list[str]:
    """Say how much of each part is no token of the vocabulary."""
    if vocabulary.type not in ("characters", "words"):
        return []
    notes = []
    for part, raw in parts.items():
        share = float((raw.targets[TARGET] == 1).mean())
        if share:
            kind = "words" if isinstance(vocabulary, WordVocabulary) else "characters"
            notes.append(f"{part}: {100 * share:.3g} % of the tokens are {kind} that the vocabulary lacks")
    return notes
