"""From text to numbers and back: bytes, characters, words, or pieces of words.

Learnt from the training part, kept as JSON.

Number 0 is padding in all of them, as the layer ``padding_mask`` takes it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice
from unitrain.spec.errors import InputError
from unitrain.spec.vocabulary import VocabularySpec

PADDING = 0
_PADDING_NAME = "<pad>"


class ByteVocabulary(Spec):
    """Every byte of UTF-8 is a token, its number the byte's plus one: 257 in all, whatever the language."""

    type: Literal["bytes"] = "bytes"
    size: ClassVar[int] = 257

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's tokens."""
        return [byte + 1 for byte in text.encode("utf-8", "surrogateescape")]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; bytes that are no UTF-8 become U+FFFD, padding nothing."""
        return bytes(token - 1 for token in tokens if 1 <= token < self.size).decode("utf-8", "replace")

    def writes(self, token: int) -> bool:
        """Tell whether a token stands for text, as padding does not."""
        return 1 <= token < self.size

    def byte_counts(self) -> npt.NDArray[np.float64]:
        """Return for each token how many bytes of UTF-8 it stands for, ``[size]``."""
        return np.array([0.0] + [1.0] * 256)

    def character_counts(self) -> npt.NDArray[np.float64]:
        """Return for each token how many characters begin in it, ``[size]``."""
        return np.array([0.0] + [float(_begins_character(byte)) for byte in range(256)])


class CharacterVocabulary(Spec):
    """Every character of the training part is a token; number 1 is any other.

    Parameters
    ----------
    characters
        In order; the first has the number 2.
    """

    type: Literal["characters"] = "characters"
    characters: tuple[str, ...]

    @model_validator(mode="after")
    def _single(self) -> CharacterVocabulary:
        if any(len(character) != 1 for character in self.characters):
            raise ValueError("characters are strings of length 1")
        if len(set(self.characters)) != len(self.characters):
            raise ValueError("a character stands there twice")
        return self

    @classmethod
    def learn(cls, texts: Iterable[str], size: int | None = None) -> CharacterVocabulary:
        """Take all characters of the texts, or the most frequent ones; ``size`` counts padding and unknown too."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        ranked = sorted(counts, key=lambda character: (-counts[character], character))
        return cls(characters=tuple(sorted(ranked if size is None else ranked[: max(size - 2, 0)])))

    @property
    def size(self) -> int:
        """Count the tokens, padding and unknown included."""
        return len(self.characters) + 2

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.characters, 2)}

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's tokens."""
        numbers = self._numbers
        return [numbers.get(character, 1) for character in text]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; an unknown character becomes U+FFFD, padding nothing."""
        written = {PADDING: "", 1: "\N{REPLACEMENT CHARACTER}"}
        return "".join(
            written[token] if token in written else self.characters[token - 2]
            for token in tokens
            if 0 <= token < self.size
        )

    def writes(self, token: int) -> bool:
        """Tell whether a token stands for text, as padding and unknown do not."""
        return 2 <= token < self.size

    def byte_counts(self) -> npt.NDArray[np.float64]:
        """Return for each token how many bytes of UTF-8 it stands for, ``[size]``; of an unknown one at least 1."""
        return np.array([0.0, 1.0, *(float(len(character.encode())) for character in self.characters)])

    def character_counts(self) -> npt.NDArray[np.float64]:
        """Return for each token how many characters begin in it, ``[size]``."""
        return np.array([0.0] + [1.0] * (self.size - 1))


class WordVocabulary(Spec):
    """Words of the training part are tokens, as they stand between blanks; number 1 is any other word.

    Parameters
    ----------
    words
        In order; the first has the number 2.
    """

    type: Literal["words"] = "words"
    words: tuple[str, ...]

    @classmethod
    def learn(cls, texts: Iterable[str | Sequence[str]], size: int | None = None) -> WordVocabulary:
        """Take all words, or the most frequent ones, the most frequent first; ``size`` counts the two others too."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text) if isinstance(text, str) else text)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(words=tuple(ranked if size is None else ranked[: max(size - 2, 0)]))

    @property
    def size(self) -> int:
        """Count the tokens, padding and unknown included."""
        return len(self.words) + 2

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, 2)}

    def encode(self, text: str | Sequence[str]) -> list[int]:
        """Return the numbers of a text's words, or of words that are cut already."""
        numbers = self._numbers
        return [numbers.get(word, 1) for word in (split_words(text) if isinstance(text, str) else text)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the words with blanks between them; an unknown one becomes U+FFFD, padding nothing."""
        words = ("\N{REPLACEMENT CHARACTER}", *self.words)
        return " ".join(words[token - 1] for token in tokens if 1 <= token < self.size)

    def writes(self, token: int) -> bool:
        """Tell whether a token stands for text, as padding and unknown do not."""
        return 2 <= token < self.size


class BpeVocabulary(Spec):
    """Pieces of words by byte pair encoding over bytes (Sennrich et al. 2016; Radford et al. 2019, section 2.2).

    Any text can be written with it. Needs the package ``tokenizers``.

    Parameters
    ----------
    tokenizer
        What ``tokenizers`` writes of a tokenizer, as JSON text.
    """

    type: Literal["bpe"] = "bpe"
    tokenizer: str

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> BpeVocabulary:
        """Merge the most frequent pairs until there are ``size`` tokens, padding included.

        Raises
        ------
        InputError
            The size is below the 257 of all bytes and padding, or ``tokenizers`` is not installed.
        """
        if size < ByteVocabulary.size:
            raise InputError("the vocabulary is too small", found=str(size), allowed=f"{ByteVocabulary.size} or more")
        library, tokenizer = _tokenizers(), _new_tokenizer()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[_PADDING_NAME],
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator((piece for text in texts for piece in _pieces(text)), trainer)
        return cls(tokenizer=tokenizer.to_str())

    @cached_property
    def _loaded(self) -> Any:
        library, plain = _tokenizers(), _new_tokenizer()
        try:
            tokenizer = library.Tokenizer.from_str(self.tokenizer)
        # The library raises nothing narrower, and something wider where it has a bug.
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise InputError(f"the stored tokenizer cannot be read: {error}") from None
        # Other parts than those of `learn` may do anything, a panic of the library included.
        plain.add_special_tokens([_PADDING_NAME])
        numbers = sorted(tokenizer.get_vocab().values())
        if _without_pieces(tokenizer) != _without_pieces(plain) or numbers != list(range(len(numbers))):
            raise InputError("the stored tokenizer is none that was learnt here")
        return tokenizer

    @property
    def size(self) -> int:
        """Count the tokens, padding included."""
        return int(self._loaded.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's tokens."""
        return list(self._loaded.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; bytes that are no UTF-8 become U+FFFD, padding nothing."""
        return str(self._loaded.decode([token for token in tokens if self.writes(token)]))

    def writes(self, token: int) -> bool:
        """Tell whether a token stands for text, as padding does not."""
        return 1 <= token < self.size

    def byte_counts(self) -> npt.NDArray[np.float64]:
        """Return for each token how many bytes of UTF-8 it stands for, ``[size]``."""
        # Each character of a piece stands for one byte.
        pieces = [self._loaded.id_to_token(token) or "" for token in range(self.size)]
        return np.array([0.0, *(float(len(piece)) for piece in pieces[1:])])

    def character_counts(self) -> npt.NDArray[np.float64]:
        """Return for each token how many characters begin in it, ``[size]``."""
        letters = _letters_that_begin()
        pieces = [self._loaded.id_to_token(token) or "" for token in range(self.size)]
        return np.array([0.0, *(float(sum(letter in letters for letter in piece)) for piece in pieces[1:])])


Vocabulary = Annotated[ByteVocabulary | CharacterVocabulary | WordVocabulary | BpeVocabulary, Choice()]


def learn_vocabulary(spec: VocabularySpec, texts: Iterable[str | Sequence[str]]) -> Vocabulary:
    """Learn the vocabulary a recipe asks for from the texts of the training part.

    Raises
    ------
    InputError
        The texts are words that are cut already, and the vocabulary is none of words; or `BpeVocabulary.learn`.
    """
    if spec.type == "words":
        return WordVocabulary.learn(texts, spec.size)
    whole = []
    for text in texts:
        if not isinstance(text, str):
            raise InputError("each word is a token here", field=("vocabulary",), found=spec.type, allowed="words")
        whole.append(text)
    if spec.type == "bytes":
        return ByteVocabulary()
    if spec.type == "characters":
        return CharacterVocabulary.learn(whole, spec.size)
    assert spec.size is not None  # the specification has seen to it
    return BpeVocabulary.learn(whole, spec.size)


def split_words(text: str) -> list[str]:
    """Cut a text into words and the marks between them: letters and digits go together, any other sign is alone."""
    return _WORD.findall(text)


# An apostrophe inside a word belongs to it.
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


def _pieces(text: str) -> Iterator[str]:
    """Cut a text within words, or runs of blanks, of a thousand characters: learning takes their length squared."""
    start = 0
    for run in _LONG_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


_LONG_RUN = re.compile(r"\S{1000}|\s{1000}")


def padded(tokens: Sequence[int], length: int) -> list[int]:
    """Cut tokens to a length, or fill up with padding."""
    return [*tokens[:length], *[PADDING] * (length - len(tokens))]


def _begins_character(byte: int) -> bool:
    """Tell whether a byte of UTF-8 begins a character: all do but those of the form 10xxxxxx."""
    return byte & 0xC0 != 0x80


def _letters_that_begin() -> frozenset[str]:
    """Return the letters of byte-level BPE whose byte begins a character (the table of Radford et al.'s encoder.py).

    Bytes that print stand for themselves; the others, in order, are U+0100, U+0101, ...
    """
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printing]
    letters = {byte: chr(byte) for byte in printing} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return frozenset(letter for byte, letter in letters.items() if _begins_character(byte))


def _new_tokenizer() -> Any:
    """Return a tokenizer of byte-level BPE that has learnt nothing."""
    library = _tokenizers()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def _without_pieces(tokenizer: Any) -> Any:
    """Return all settings of a tokenizer but what it has learnt."""
    settings = json.loads(tokenizer.to_str())
    settings["model"] |= {"vocab": None, "merges": None}
    return settings


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            "byte pair encoding needs the package tokenizers, which is not installed",
            hint="pip install 'unitrain[text]'",
        ) from None
    return tokenizers
