"""Writes data files by the letter of their formats, and prepares them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.data.load import prepare
from unitrain.data.prepared import Prepared
from unitrain.spec.data import DataSpec


@dataclass(frozen=True)
class Input:
    shape: tuple[int, ...]
    dtype: str = "float"


def make_generator(seed: int = 0) -> Callable[[str], np.random.Generator]:
    return lambda purpose: np.random.default_rng([seed, *purpose.encode()])


@dataclass(frozen=True)
class Workshop:
    """Writes files into a folder and prepares them."""

    folder: Path

    def prepare(
        self,
        spec: Mapping[str, Any],
        inputs: Mapping[str, Any] | int | tuple[int, ...] = (1,),
        outputs: tuple[str, ...] = ("y",),
        task: Any = None,
        seed: int = 0,
    ) -> Prepared:
        shape = (inputs,) if isinstance(inputs, int) else inputs
        given = {"x": Input(shape)} if isinstance(shape, tuple) else dict(shape)
        return prepare(DataSpec.model_validate(spec), self.folder, given, outputs, task, make_generator(seed))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def idx(self, name: str, values: Any, packed: bool = False) -> Path:
        """Write an idx file by the letter of the format, with struct alone."""
        array = np.asarray(values, dtype=np.uint8)
        header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        content = header + bytes(array.reshape(-1).tolist())
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
        return path

    def picture(self, name: str, pixels: Any) -> Path:
        from PIL import Image

        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
        return path

    def table(self, name: str, columns: Mapping[str, Any]) -> Path:
        """Write a CSV of equally long columns; None is an empty field."""
        lines = [",".join(columns)]
        lines += [
            ",".join("" if value is None else str(value) for value in row)
            for row in zip(*columns.values(), strict=True)
        ]
        return self.write(name, "\n".join(lines) + "\n")
