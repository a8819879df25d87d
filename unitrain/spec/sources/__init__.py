"""Where data comes from: bundled sets, sets installed as packages, and the user's own files.

One file a kind of source. Only names and paths stand here; `unitrain.data.sources` reads them. A relative path is
relative to the folder of the recipe.
"""

from __future__ import annotations

from typing import Annotated

from unitrain.spec.choice import Choice
from unitrain.spec.sources.arrays import Npy, Npz
from unitrain.spec.sources.bundled import BreastCancer, Diabetes, Digits, Iris, ItalyPower, Mnist5k, Sunspots, Wine
from unitrain.spec.sources.idx import FashionMnist, Idx, Mnist
from unitrain.spec.sources.images import ImageFolder, ImageMasks
from unitrain.spec.sources.series import Series
from unitrain.spec.sources.table import Table
from unitrain.spec.sources.tagged import BrownPos, Conll, TaggedTable
from unitrain.spec.sources.text import Austen, Text, TextFolder

Source = Annotated[
    Digits
    | Iris
    | Wine
    | BreastCancer
    | Diabetes
    | Mnist5k
    | FashionMnist
    | Mnist
    | Idx
    | Npz
    | Npy
    | Table
    | Series
    | Sunspots
    | ItalyPower
    | ImageFolder
    | ImageMasks
    | Text
    | TextFolder
    | Austen
    | Conll
    | TaggedTable
    | BrownPos,
    Choice(),
]
