"""What a token is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from unitrain.spec.base import Spec

VocabularyName = Literal["bytes", "characters", "words", "bpe"]


class VocabularySpec(Spec):
    """What a token is. Learnt from the training part; number 0 is padding.

    Parameters
    ----------
    type
        Bytes of UTF-8 (257 tokens), characters, words and the marks between them, or pieces of words by byte pair
        encoding. Characters and words that training did not have get the number 1.
    size
        At most so many tokens, padding and unknown included: the most frequent ones. ``bpe`` needs it.
    """

    type: VocabularyName
    size: Annotated[int, Field(ge=3)] | None = None

    @model_validator(mode="after")
    def _size(self) -> VocabularySpec:
        if self.type == "bpe" and self.size is None:
            raise ValueError("byte pair encoding needs a size: {type: bpe, size: 2000}")
        if self.type == "bytes" and self.size is not None:
            raise ValueError("a vocabulary of bytes has 257 tokens and takes no size")
        return self


def _from_name(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


NamedVocabulary = Annotated[
    VocabularySpec, BeforeValidator(_from_name, json_schema_input_type=VocabularyName | VocabularySpec)
]
