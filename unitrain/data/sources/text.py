"""Plain text: files of running text, and folders of texts with a folder for each class."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unitrain.data.files import find_file, find_folder, list_classes, list_files
from unitrain.data.raw import Array, Origin, Parts, Raw
from unitrain.machine import available_memory
from unitrain.spec.errors import InputError
from unitrain.spec.sources.text import Text, TextFolder

SUFFIXES = (".txt", ".text", ".md")


def read_text(path: Path) -> str:
    """Read a file of UTF-8, with or without a mark at its beginning; line ends become newlines.

    Raises
    ------
    InputError
        A byte is no UTF-8 (with its line), the file holds nothing but blanks, or more than memory does.
    """
    size = path.stat().st_size
    if size > available_memory() // 2:
        raise InputError("the text is too large for memory", file=str(path), found=f"{size:,} bytes")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "not UTF-8 text",
            file=str(path),
            line=content.count(b"\n", 0, error.start) + 1,
            found=f"byte {content[error.start]:02x}",
        ) from None
    if not text.strip():
        raise InputError("the file is empty", file=str(path))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def texts_raw(texts: Mapping[str, str], targets: Mapping[str, Sequence[str]] | None = None) -> Raw:
    """Return texts, by the files they are from, as feature ``text``."""
    classes = {name: words(values) for name, values in (targets or {}).items()}
    origin = Origin(", ".join([*texts][:3]), files=tuple(texts))
    return Raw({"text": words(texts.values())}, classes, origin, np.arange(len(texts)), texts={"text": None})


def words(values: object) -> Array:
    """Return object ``[n]``, whatever the values are."""
    listed = list(values)  # type: ignore[call-overload]  # any iterable; NumPy would make more axes of tuples
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def read_files(names: Sequence[str], folder: Path) -> Raw:
    """Read files that paths or patterns name, in the order of the names, each file once."""
    paths: dict[Path, None] = {}
    for name in names:
        if any(sign in name for sign in "*?["):
            found = sorted(Path(path) for path in glob.glob(str(folder / Path(name).expanduser()), recursive=True))
            found = [path for path in found if path.is_file()]
            if not found:
                raise InputError("no file fits the pattern", file=str(folder / name), field=("source", "files"))
            paths |= dict.fromkeys(found)
        else:
            paths[find_file(name, folder)] = None
    return texts_raw({str(path): read_text(path) for path in paths})


def read(source: Text, folder: Path) -> Parts:
    """Read the files a recipe names and those of the other parts."""
    parts = {"train": read_files(source.files, folder)}
    for part, names in (("validation", source.validation_files), ("test", source.test_files)):
        if names is not None:
            parts[part] = read_files(names, folder)
    return parts


def folder_raw(folder: Path) -> Raw:
    """Read a folder: feature ``text``; target ``class``, the name of the sub-folder, where there are any."""
    labelled = list_classes(folder, SUFFIXES)
    paths = [path for path, _ in labelled] if labelled else list_files(folder, SUFFIXES)
    if not paths:
        raise InputError(
            "the folder holds no texts",
            file=str(folder),
            allowed=f"folder/class/text with a suffix of {', '.join(SUFFIXES)}",
        )
    targets = {"class": [name for _, name in labelled]} if labelled else None
    return texts_raw({str(path): read_text(path) for path in paths}, targets)


def read_folder(source: TextFolder, folder: Path) -> Parts:
    """Read the folder a recipe names and those of the other parts."""
    parts: Parts = {}
    for part in ("train", "validation", "test"):
        name = source.folder if part == "train" else getattr(source, f"{part}_folder")
        if name is not None:
            place = find_folder(name, folder)
            parts[part] = folder_raw(place)
            if not parts[part].targets:
                raise InputError("the texts lie in no class folders", file=str(place), allowed="folder/class/text.txt")
    return parts
