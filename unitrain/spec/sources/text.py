"""Text: running, or a text a file."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from unitrain.spec.base import Spec
from unitrain.spec.columns import Names


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
