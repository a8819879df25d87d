"""Jane Austen's novels, from the data base of an R package."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.data.files import import_library
from unitrain.data.raw import Origin, Parts, Raw
from unitrain.data.sources.text import texts_raw, words
from unitrain.spec.errors import InputError
from unitrain.spec.sources.text import Austen

_HINT = (
    "`apt-get install r-cran-janeaustenr`; or without R: `apt-get download r-cran-janeaustenr`, "
    "`dpkg -x r-cran-janeaustenr_*.deb DIR`, and `folder: DIR/usr/lib/R/site-library/janeaustenr`"
)


def read(source: Austen, folder: Path) -> Parts:
    """Read the novels: a text each, or passages with the name of their novel as target ``novel``.

    Raises
    ------
    InputError
        The package is not there (with the command that installs it), or its data cannot be read.
    """
    novels = read_novels(folder / Path(source.folder).expanduser())
    if source.predict == "next":
        return {"train": texts_raw(novels)}
    passages, names, files = [], [], []
    for novel, text in novels.items():
        for number, passage in enumerate(cut_passages(text, source.passage), start=1):
            passages.append(passage)
            names.append(novel)
            files.append(f"{novel}, passage {number}")
    raw = Raw(
        {"text": words(passages)},
        {"novel": words(names)},
        Origin(source.folder, files=tuple(files)),
        np.arange(len(passages)),
        texts={"text": None},
    )
    return {"train": raw}


def cut_passages(text: str, length: int) -> Iterator[str]:
    """Cut a text at blank lines into passages of at least ``length`` characters; a shorter end is left out."""
    gathered: list[str] = []
    for paragraph in text.split("\n\n"):
        gathered.append(paragraph.strip())
        passage = "\n\n".join(part for part in gathered if part)
        if len(passage) >= length:
            yield passage
            gathered = []


def read_novels(package: Path) -> dict[str, str]:
    """Return each novel's name and text, from R's lazy-load data base: an index, and compressed blobs beside it."""
    data = package / "data"
    if not (data / "Rdata.rdb").is_file():
        raise InputError("Jane Austen's novels are not installed", file=str(package), hint=_HINT)
    parser = import_library("rdata", "'unitrain[text]'", "reading an R package")
    try:
        index = _parse(parser, gzip.decompress((data / "Rdata.rdx").read_bytes()))
        blobs = (data / "Rdata.rdb").read_bytes()
        novels = {}
        for name, place in index["variables"].items():
            first, length = (int(number) for number in place)
            # Four bytes say how long the blob is when it is unpacked.
            lines = _parse(parser, zlib.decompress(blobs[first + 4 : first + length]))
            novels[str(name)] = "\n".join(str(line) for line in lines) + "\n"
    except (OSError, EOFError, zlib.error, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"the package's data cannot be read: {error}", file=str(data), hint=_HINT) from None
    return novels


def _parse(parser: Any, content: bytes) -> Any:
    """Return what R has serialised as plain values; nothing of it is executed."""
    parsed = parser.parser.parse_data(content, extension=".rds")
    return parser.conversion.convert(parsed)
