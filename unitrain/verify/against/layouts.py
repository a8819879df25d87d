"""How the user's arrays lie, beside the spec's: their axes in another order, joined or split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.graph.node import Node
from unitrain.spec.layers.base import Shape

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How a tensor ``[batch, ...]`` of the model lies: the spec's, seen as ``view``, its axes reordered, as ``shape``.

    Parameters
    ----------
    view
        The spec's shape, or an equal one with more axes: ``(height, width, channel)`` of a flattened image.
    axes
        For each axis of theirs the axis of ``view``, batch left out.
    shape
        Their shape, batch left out.
    """

    view: Shape
    axes: tuple[int, ...]
    shape: Shape

    @classmethod
    def same(cls, shape: Shape, theirs: Shape | None = None) -> Layout:
        """Return the layout that changes nothing but axes of size 1."""
        return cls(shape, tuple(range(len(shape))), shape if theirs is None else theirs)

    @classmethod
    def channels_first(cls, shape: Shape, theirs: Shape | None = None) -> Layout:
        """Return the layout with the last axis in front of the others."""
        axes = (*range(len(shape))[-1:], *range(len(shape) - 1))
        return cls(shape, axes, tuple(shape[axis] for axis in axes) if theirs is None else theirs)

    @property
    def moves(self) -> bool:
        """Whether elements stand in another order."""
        return bool((self.order() != np.arange(prod(self.view))).any())

    def order(self) -> npt.NDArray[np.int64]:
        """Return for each of their elements, in order, the place of the spec's."""
        return np.arange(prod(self.view)).reshape(self.view).transpose(self.axes).reshape(-1)

    def to_theirs(self, array: Array) -> Array:
        """Bring the spec's ``[batch, ...]`` into theirs."""
        turned = array.reshape(len(array), *self.view).transpose(0, *(axis + 1 for axis in self.axes))
        return np.ascontiguousarray(turned).reshape(len(array), *self.shape)

    def to_ours(self, array: Array, shape: Shape) -> Array:
        """Bring theirs into the spec's ``[batch, *shape]``."""
        split = array.reshape(len(array), *(self.view[axis] for axis in self.axes))
        back = np.argsort(self.axes)
        return np.ascontiguousarray(split.transpose(0, *(axis + 1 for axis in back))).reshape(len(array), *shape)


def layouts(ours: Shape, theirs: Shape, inherited: list[Layout], first: bool) -> list[Layout]:
    """Return the layouts in which a tensor of the spec's shape may lie in theirs, the likeliest first.

    Parameters
    ----------
    ours, theirs
        Shapes, batch left out.
    inherited
        The layouts of what it is computed from.
    first
        Whether their images have the channel first.
    """
    if prod(ours) != prod(theirs):
        return []
    bare = _bare(theirs)
    found = [
        Layout(known.view, known.axes, theirs)
        for known in inherited
        if prod(known.view) == prod(ours) and (known.shape == theirs or len(bare) <= 1)
    ]
    for view in dict.fromkeys([ours, *(known.view for known in inherited if prod(known.view) == prod(ours))]):
        last, front = Layout.same(view, theirs), Layout.channels_first(view, theirs)
        for layout in (front, last) if first else (last, front):
            turned = tuple(view[axis] for axis in layout.axes)
            if len(bare) <= 1 or _bare(turned) == bare:
                found.append(layout)
    if _bare(ours) == bare:
        found.append(Layout.same(ours, theirs))
    return list(dict.fromkeys(found))


def _bare(shape: Shape) -> Shape:
    return tuple(extent for extent in shape if extent != 1)


@dataclass(frozen=True)
class Conversion:
    """How one of their parameters becomes the spec's.

    Parameters
    ----------
    split
        Their shape, with an axis split in two where the spec has two.
    transpose
        For each axis of the spec's its axis in ``split``; axes left out have size 1.
    shape
        The spec's shape.
    rows
        For each index of their first (split, transposed) axis the spec's index: where their model flattens otherwise.
    repeated
        Whether one number of theirs stands for all of the spec's.
    """

    split: Shape
    transpose: tuple[int, ...]
    shape: Shape
    rows: tuple[int, ...] = ()
    repeated: bool = False

    def to_ours(self, array: Array) -> Array:
        """Convert a parameter, or a gradient by it."""
        if self.repeated:
            return np.full(self.shape, array.reshape(-1)[0], array.dtype)
        turned = array.reshape(self.split)
        turned = turned.transpose(*self.transpose, *(a for a in range(turned.ndim) if a not in self.transpose))
        turned = np.ascontiguousarray(turned).reshape(self.shape)
        if not self.rows:
            return turned
        found = np.empty_like(turned)
        found[np.array(self.rows)] = turned
        return found


# What the axes of the spec's parameters are, by local name and number of axes.
_OURS: dict[tuple[str, int], str] = {
    ("kernel", 2): "io",
    ("kernel", 3): "wio",
    ("kernel", 4): "hwio",
    ("kernel", 5): "thwio",
    ("depthwise_kernel", 3): "wcm",
    ("depthwise_kernel", 4): "hwcm",
    ("pointwise_kernel", 2): "io",
    ("table", 2): "vd",
    ("reduce_kernel", 2): "io",
    ("expand_kernel", 2): "io",
    ("query", 2): "io",
    ("key", 2): "io",
    ("value", 2): "io",
    ("output", 2): "io",
    ("recurrent", 2): "io",
}


def our_axes(node: Node, local: str, shape: Shape) -> str:
    """Return a letter for each axis of one of the spec's parameters, as in `ForeignParameter.axes`."""
    if local == "kernel" and node.layer.type.startswith("depthwise"):
        return {3: "wcm", 4: "hwcm"}[len(shape)]
    if len(shape) == 1:
        return "c"
    if node.layer.type == "tied_projection":
        return ""  # as a table or a kernel
    return _OURS.get((local, len(shape)), "")


def conversions(ours: str, shape: Shape, theirs: str, their_shape: Shape) -> Iterator[Conversion]:
    """Yield the ways in which a parameter of theirs may become the spec's, the likeliest first; none when none fits.

    Parameters
    ----------
    ours, theirs
        Letters of the axes, where they are known.
    shape, their_shape
        Shapes.
    """
    if prod(shape) != prod(their_shape):
        if prod(their_shape) == 1 and len(shape) == 1 and "c" in ours:
            yield Conversion(their_shape, (), shape, repeated=True)
        return
    if len(shape) == 1 and len(_bare(their_shape)) <= 1:
        yield Conversion(their_shape, tuple(range(len(their_shape))), shape)
        return
    if ours and theirs:
        known = _by_letters(ours, shape, theirs, their_shape)
        if known is not None:
            yield known
        return
    if shape == their_shape:
        yield Conversion(shape, tuple(range(len(shape))), shape)
    if len(shape) == len(their_shape):
        orders = [(*range(1, len(shape)), 0), *permutations(range(len(shape)))]
        for order in dict.fromkeys(orders):
            if tuple(their_shape[axis] for axis in order) == shape and order != tuple(range(len(shape))):
                yield Conversion(their_shape, order, shape)
    elif _bare(shape) == _bare(their_shape):
        yield Conversion(their_shape, tuple(range(len(their_shape))), shape)


def _by_letters(ours: str, shape: Shape, theirs: str, their_shape: Shape) -> Conversion | None:
    """Convert by the meaning of the axes; None where sizes contradict it."""
    sizes = dict(zip(ours, shape, strict=True))
    if len(theirs) != len(their_shape):
        return None
    if "c" in ours and "m" in ours and "o" in theirs:
        # A group for each channel: the channel's filters stand together.
        if dict(zip(theirs, their_shape, strict=True)).get("i", 1) != 1:
            return None
        place = theirs.index("o")
        split = (*their_shape[:place], sizes["c"], sizes["m"], *their_shape[place + 1 :])
        letters = theirs.replace("o", "cm")
    elif "o" in ours and "c" in theirs and "m" in theirs:
        if sizes.get("i", 1) != 1:
            return None
        split, letters = their_shape, theirs
        order = [letters.index(letter) for letter in ours.replace("i", "").replace("o", "cm")]
        return Conversion(split, tuple(order), shape)
    else:
        split, letters = their_shape, theirs
    if prod(split) != prod(their_shape):
        return None
    present = [letter for letter in ours if letter in letters]
    if any(sizes[letter] != split[letters.index(letter)] for letter in present):
        return None
    if any(sizes[letter] != 1 for letter in ours if letter not in letters):
        return None
    if any(split[place] != 1 for place, letter in enumerate(letters) if letter not in ours):
        return None
    return Conversion(split, tuple(letters.index(letter) for letter in present), shape)
