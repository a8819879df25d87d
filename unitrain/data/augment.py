"""Random changes to images of training batches: flip, crop, shift, cutout; a whole batch at a time.

Every function takes images ``[batch, height, width, channel]`` of any dtype and returns new ones of the same
shape and dtype. What comes out depends on the images and the generator alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from unitrain.data.encoders import PixelEncoder
from unitrain.data.preprocess import Preprocessing
from unitrain.data.raw import Array
from unitrain.data.targets import ClassTarget
from unitrain.spec.data import Augmentation, Crop, Cutout, Flip
from unitrain.spec.errors import InputError


def flip(
    images: Array,
    generator: np.random.Generator,
    horizontal: bool = True,
    vertical: bool = False,
    probability: float = 0.5,
) -> Array:
    """Mirror each image left to right, and top to bottom, each with ``probability``."""
    for axis, wanted in ((2, horizontal), (1, vertical)):
        if wanted:
            chosen = generator.random(len(images)) < probability
            images = np.where(chosen[:, None, None, None], np.flip(images, axis), images)
    return images


def move(
    images: Array,
    down: Array,
    right: Array,
    mode: Literal["constant", "edge", "reflect"] = "constant",
    fill: Array | float = 0.0,
) -> Array:
    """Move each image by whole pixels.

    Parameters
    ----------
    down, right
        Pixels for each image, integers ``[batch]``; negative for up and left.
    mode
        What comes in from outside: ``fill``, the nearest pixel, or the mirror image (border not repeated).
    fill
        A number, or one for each channel.
    """
    count, height, width, _ = images.shape
    rows = np.arange(height) - down[:, None]
    columns = np.arange(width) - right[:, None]
    outside_rows, outside_columns = (rows < 0) | (rows >= height), (columns < 0) | (columns >= width)
    inside = _mirrored if mode == "reflect" else _clamped
    batch = np.arange(count)[:, None, None]
    moved = images[batch, inside(rows, height)[:, :, None], inside(columns, width)[:, None, :]]
    if mode == "constant":
        outside = outside_rows[:, :, None] | outside_columns[:, None, :]
        moved = np.where(outside[..., None], np.asarray(fill, dtype=images.dtype), moved)
    return np.asarray(moved)


def shift(
    images: Array,
    generator: np.random.Generator,
    height: int,
    width: int,
    mode: Literal["constant", "edge", "reflect"] = "constant",
    fill: Array | float = 0.0,
) -> Array:
    """Move each image by up to ``height`` pixels up or down and ``width`` sideways, all equally likely.

    Padding by so many pixels and cropping at a random place is the same thing.
    """
    down = generator.integers(-height, height, size=len(images), endpoint=True)
    right = generator.integers(-width, width, size=len(images), endpoint=True)
    return move(images, down, right, mode, fill)


def cutout(
    images: Array,
    generator: np.random.Generator,
    size: int,
    count: int = 1,
    probability: float = 1.0,
    fill: Array | float = 0.0,
) -> Array:
    """Cover ``count`` squares of ``size`` x ``size`` pixels; the part of a square outside the image is lost.

    The centre is any pixel of the image, all equally likely (DeVries & Taylor 2017, section 3.2).
    """
    batch, height, width, _ = images.shape
    for _ in range(count):
        top: Array = generator.integers(height, size=(batch,)) - size // 2
        left: Array = generator.integers(width, size=(batch,)) - size // 2
        chosen: Array = generator.random((batch,)) < probability
        rows = np.arange(height) - top[:, None]
        columns = np.arange(width) - left[:, None]
        in_rows = (rows >= 0) & (rows < size) & chosen[:, None]
        in_columns = (columns >= 0) & (columns < size)
        covered = in_rows[:, :, None] & in_columns[:, None, :]
        images = np.where(covered[..., None], np.asarray(fill, dtype=images.dtype), images)
    return images


def _clamped(index: Array, size: int) -> Array:
    return np.asarray(np.clip(index, 0, size - 1))


def _mirrored(index: Array, size: int) -> Array:
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.asarray(np.where(folded < size, folded, period - folded))


@dataclass(frozen=True)
class Augmenter:
    """The augmentations of a recipe for one model input.

    Parameters
    ----------
    steps
        In order.
    input
        Name of the model input that holds images.
    image_shape
        ``(height, width, channel)``; a model that takes them flat is served too.
    encoder
        Scales a ``fill`` in raw pixels the way the images were.
    white
        White of the raw pixels.
    masks
        Names of the targets that hold a class for each pixel of these images.
    """

    steps: tuple[Augmentation, ...]
    input: str
    image_shape: tuple[int, int, int]
    encoder: PixelEncoder | None = None
    white: float = 255.0
    masks: tuple[str, ...] = ()

    def __call__(self, inputs: Mapping[str, Array], generator: np.random.Generator) -> dict[str, Array]:
        """Return the batch with its images changed; other inputs pass as they are."""
        given = inputs[self.input]
        images = given.reshape(len(given), *self.image_shape)
        for step in self.steps:
            images = self._apply(step, images, generator)
        return {**inputs, self.input: np.ascontiguousarray(images).reshape(given.shape)}

    def moved_masks(self, targets: Mapping[str, Array], generator: np.random.Generator) -> dict[str, Array]:
        """Return the targets with masks mirrored and moved as images are by a generator that draws the same.

        What is covered keeps its class; what comes in from outside has that of ``mask_fill``, or that of what is shown.
        """
        if not self.masks:
            return dict(targets)
        shape = (*self.image_shape[:2], 1)
        pixels = {name: targets[name].reshape(len(targets[name]), *shape) for name in self.masks}
        stacked = np.concatenate(list(pixels.values()), axis=-1)
        for step in self.steps:
            moved = self._apply(step, stacked, generator, getattr(step, "mask_fill", 0))
            # Cutout has now drawn what it draws for the images.
            stacked = stacked if isinstance(step, Cutout) else moved
        parts = np.split(stacked, len(self.masks), axis=-1)
        result = {
            name: np.ascontiguousarray(part).reshape(targets[name].shape)
            for name, part in zip(self.masks, parts, strict=True)
        }
        return {**targets, **result}

    def _apply(
        self, step: Augmentation, images: Array, generator: np.random.Generator, mask_fill: int | None = None
    ) -> Array:
        if isinstance(step, Flip):
            return flip(images, generator, step.horizontal, step.vertical, step.probability)
        fill = self._scaled(step.fill) if mask_fill is None else mask_fill
        if isinstance(step, Cutout):
            return cutout(images, generator, step.size, step.count, step.probability, fill)
        height, width = step.padding if isinstance(step, Crop) else (step.height, step.width)
        return shift(images, generator, height, width, step.mode, fill)

    def _scaled(self, fill: float) -> Array:
        raw = np.full(self.image_shape[2], fill)
        return raw if self.encoder is None else self.encoder.scaled(raw, self.white)


def augmenter_for(
    steps: Sequence[Augmentation],
    preprocessing: Preprocessing,
    inputs: Mapping[str, Any],
    targets: Mapping[str, Array],
    white: float,
) -> Augmenter | None:
    """Build the augmenter for the one input that holds images and its masks; None without steps.

    Raises
    ------
    InputError
        No input holds images, or several do.
    """
    if not steps:
        return None
    found: list[Augmenter] = []
    for name, state in preprocessing.inputs.items():
        encoder = state.features[0].encoder
        shape = tuple(inputs[name].shape)
        if isinstance(encoder, PixelEncoder):
            size = (encoder.height, encoder.width, len(encoder.mean))
            found.append(Augmenter(tuple(steps), name, size, encoder, white))
        elif len(shape) == 3:
            found.append(Augmenter(tuple(steps), name, (shape[0], shape[1], shape[2])))
    if len(found) != 1:
        raise InputError(
            "augmentation is for images, and " + ("no" if not found else "more than one") + " input has them",
            field=("augment",),
            found=", ".join(f"{name} {list(inputs[name].shape)}" for name in preprocessing.inputs),
            allowed="one input of shape [height, width, channel]",
        )
    height, width, _ = found[0].image_shape
    masks = [
        name
        for name, state in preprocessing.targets.items()
        if isinstance(state, ClassTarget) and targets[name].shape[1:] in ((height, width), (height, width, 1))
    ]
    return replace(found[0], masks=tuple(masks))
