"""Where the spec's layers are in the user's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from unitrain.graph.node import Node
from unitrain.verify.against.layouts import Layout

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Place:
    """Where a layer's result is in the user's model: the number of a tensor, and how it lies."""

    number: int
    layout: Layout


@dataclass(frozen=True)
class Aligned:
    """A section of the spec and of the user's model that belong together.

    Parameters
    ----------
    nodes
        The layers, one unless they could be found together only.
    feeds
        Where each input of the section is.
    place
        Where its result is.
    right
        Whether it computes what the reference computes.
    """

    nodes: tuple[Node, ...]
    feeds: Mapping[str, Place]
    place: Place
    right: bool


@dataclass(frozen=True)
class Fault:
    """A difference in how the models are put together, at a layer."""

    part: str
    text: str
