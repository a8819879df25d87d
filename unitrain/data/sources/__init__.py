"""Readers, one file a kind of source; `read_source` picks the one for a `DataSpec`."""

from __future__ import annotations

from pathlib import Path

from unitrain.data.raw import Parts
from unitrain.data.sources import (
    austen,
    bundled,
    idx,
    image_folder,
    image_masks,
    npy,
    npz,
    series,
    table,
    tagged,
    tagged_table,
    text,
)
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError
from unitrain.spec.sources.arrays import Npy, Npz
from unitrain.spec.sources.bundled import ItalyPower, Mnist5k, Sunspots
from unitrain.spec.sources.idx import FashionMnist, Idx, Mnist
from unitrain.spec.sources.images import ImageFolder, ImageMasks
from unitrain.spec.sources.series import Series
from unitrain.spec.sources.table import Table
from unitrain.spec.sources.tagged import BrownPos, Conll, TaggedTable
from unitrain.spec.sources.text import Austen, Text, TextFolder


def read_source(spec: DataSpec, folder: Path) -> tuple[Parts, list[str]]:
    """Read all parts that the source has, and the notes on what was left out.

    Raises
    ------
    InputError
        A file or package is missing (with the command that installs it), or its content is wrong.
    """
    source = spec.source
    if isinstance(source, Npz):
        return npz.read(source, folder, spec.group(), spec.stream), []
    if isinstance(source, Npy):
        return npy.read(source, folder, spec.stream), []
    if isinstance(source, ImageFolder):
        return image_folder.read(source, folder, spec)
    if isinstance(source, ImageMasks):
        return image_masks.read(source, folder, spec)
    if isinstance(source, Table):
        return table.read(source, folder, spec.group(), spec.stream), []
    if spec.stream == "always":
        raise InputError(
            f"a source of type {source.type} does not stream",
            field=("stream",),
            allowed="always for npy, npz that is not compressed, image_folder, image_masks and Parquet tables",
        )
    if isinstance(source, Text):
        return text.read(source, folder), []
    if isinstance(source, TextFolder):
        return text.read_folder(source, folder), []
    if isinstance(source, Austen):
        return austen.read(source, folder), []
    if isinstance(source, Conll):
        return tagged.read(source, folder), []
    if isinstance(source, TaggedTable):
        return tagged_table.read(source, folder, spec.group()), []
    if isinstance(source, BrownPos):
        return tagged.read_brown(source, folder), []
    if isinstance(source, Series):
        return series.read(source, folder)
    if isinstance(source, Sunspots):
        return series.read_sunspots(), []
    if isinstance(source, ItalyPower):
        return series.read_italy_power(), []
    if isinstance(source, Idx):
        return idx.read(source, folder), []
    if isinstance(source, (Mnist, FashionMnist)):
        return idx.read_mnist(source, folder), []
    if isinstance(source, Mnist5k):
        return bundled.read_mnist_5k(source), []
    return bundled.read_sklearn(source), []
