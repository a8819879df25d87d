"""Masks: numbers and colours become classes, files are paired by name, and augmentation moves both alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data_workshop import Workshop
from PIL import Image

from unitrain.data.prepared import Prepared
from unitrain.spec.data import DataSpec
from unitrain.spec.errors import InputError

COUNT, HEIGHT, WIDTH = 6, 4, 5
COLOURS = {"sky": [0, 0, 255], "road": [128, 64, 128], "car": [255, 0, 0]}
CODES = np.random.default_rng(0).integers(0, 3, size=(COUNT, HEIGHT, WIDTH))


def _pictures(workshop: Workshop, masks: Any, folder: str = "masks") -> None:
    """Images whose red channel holds 40 times the class, so that a pixel tells what its mask must say."""
    for number in range(COUNT):
        image = np.zeros((HEIGHT, WIDTH, 3))
        image[..., 0] = 40 * CODES[number]
        workshop.picture(f"images/day{number % 2}/{number}.png", image)
        path = workshop.picture(f"{folder}/day{number % 2}/{number}.png", masks[number])
        assert path.is_file()


def _prepare(workshop: Workshop, source: Any = (), shape: Any = (HEIGHT, WIDTH, 3), **changes: Any) -> Prepared:
    spec = {
        "source": {"type": "image_masks", "images": "images", "masks": "masks", **dict(source)},
        "split": {"validation": 0, "test": 0},
        **changes,
    }
    return workshop.prepare(spec, shape, task="classification")


def _check(made: Prepared, codes: Any = CODES) -> None:
    order = [0, 2, 4, 1, 3, 5]  # the folders by name
    np.testing.assert_array_equal(made.train.targets["y"], codes[order])
    np.testing.assert_allclose(made.train.inputs["x"][..., 0] * 255, 40 * CODES[order], atol=1e-4)


@pytest.mark.parametrize("workers", [0, 2])
def test_numbers_are_classes(workshop: Workshop, workers: int) -> None:
    _pictures(workshop, CODES)
    _check(_prepare(workshop, workers=workers))
    made = _prepare(workshop, {"classes": list(COLOURS)})
    assert made.classes["y"] == ("sky", "road", "car")
    _check(made)


def test_masks_go_with_images_that_stream(workshop: Workshop) -> None:
    _pictures(workshop, CODES)
    made = _prepare(workshop, stream="always").train
    np.testing.assert_allclose(made.inputs["x"][np.arange(2)][..., 0] * 255, 40 * CODES[[0, 2]], atol=1e-4)
    np.testing.assert_array_equal(made.targets["y"][:2], CODES[[0, 2]])


def test_palettes_colours_and_named_numbers_are_classes(workshop: Workshop) -> None:
    colours = np.array(list(COLOURS.values()))[CODES]
    _pictures(workshop, colours)
    _check(_prepare(workshop, {"classes": COLOURS}))
    for number in range(COUNT):
        palette = Image.fromarray(CODES[number].astype(np.uint8), mode="P")
        palette.putpalette(bytes(value for colour in COLOURS.values() for value in colour))
        palette.save(workshop.folder / f"masks/day{number % 2}/{number}.png")
    _check(_prepare(workshop))
    _check(_prepare(workshop, {"classes": COLOURS}))
    _pictures(workshop, np.where(CODES > 0, 255, 0))
    made = _prepare(workshop, {"classes": {"background": 0, "object": 255}})
    _check(made, (CODES > 0).astype(int))
    _pictures(workshop, np.repeat(CODES[..., None], 3, axis=-1))
    _check(_prepare(workshop))


def test_other_pixels_may_be_ignored(workshop: Workshop) -> None:
    colours = np.array([*list(COLOURS.values())[:2], [9, 9, 9]])[CODES]
    _pictures(workshop, colours)
    known = {"classes": dict(list(COLOURS.items())[:2])}
    _check(_prepare(workshop, {**known, "others": "ignore"}), np.where(CODES == 2, 255, CODES))
    row, column = np.argwhere(CODES[0] == 2)[0]
    with pytest.raises(InputError) as caught:
        _prepare(workshop, known)
    assert f"found:   [9, 9, 9] in row {row}, column {column}" in str(caught.value)
    assert "masks/day0/0.png" in str(caught.value)


def test_masks_are_resized_to_the_nearest_pixel(workshop: Workshop) -> None:
    codes = np.repeat(np.repeat(CODES, 2, axis=1), 2, axis=2)
    for number in range(COUNT):
        workshop.picture(f"images/{number}.png", np.zeros((2 * HEIGHT, 2 * WIDTH, 3)))
        workshop.picture(f"masks/{number}.png", 100 * codes[number])
    made = _prepare(workshop, {"size": [HEIGHT, WIDTH], "classes": {"a": 0, "b": 100, "c": 200}})
    np.testing.assert_array_equal(made.train.targets["y"], CODES)


def test_augmentation_moves_image_and_mask_alike(workshop: Workshop) -> None:
    _pictures(workshop, CODES)
    steps = ["flip", {"type": "flip", "horizontal": False, "vertical": True}, {"type": "cutout", "size": 1}]
    steps = [*steps, {"type": "shift", "height": 1, "width": 2, "fill": 250, "mask_fill": 255}]
    made = _prepare(workshop, augment=steps)
    assert made.augmenter is not None
    different = 0
    for seed in range(20):
        inputs = made.augmenter(made.train.inputs, np.random.default_rng(seed))["x"]
        masks = made.augmenter.moved_masks(made.train.targets, np.random.default_rng(seed))["y"]
        red = np.round(inputs[..., 0] * 255).astype(int)
        # Outside is 250 and 255. Cutout blackens one pixel of each image at most, whose class stays.
        np.testing.assert_array_equal(red == 250, masks == 255)
        wrong = (red != 40 * masks) & (masks != 255)
        assert (red[wrong] == 0).all()
        assert wrong.sum(axis=(1, 2)).max() <= 1
        different += not np.array_equal(masks, made.train.targets["y"])
    assert different >= 18


def test_arrays_with_a_class_for_each_pixel_move_with_their_images(workshop: Workshop) -> None:
    x = np.random.default_rng(1).normal(size=(8, 4, 4, 1)).astype(np.float32)
    np.savez(workshop.folder / "a.npz", x=x, m=(x[..., 0] > 0).astype(np.int64))
    spec = {"source": {"type": "npz", "file": "a.npz", "inputs": {"x": "x"}, "targets": {"y": "m"}}}
    made = workshop.prepare({**spec, "numeric": "none", "augment": ["flip"]}, (4, 4, 1), task="classification")
    assert made.augmenter is not None
    changed = made.augmenter(made.train.inputs, np.random.default_rng(4))["x"]
    masks = made.augmenter.moved_masks(made.train.targets, np.random.default_rng(4))["y"]
    np.testing.assert_array_equal(masks, changed[..., 0] > 0)
    assert not np.array_equal(changed, made.train.inputs["x"])


def test_fashion_masks_are_what_the_pictures_show(workshop: Workshop) -> None:
    images = np.random.default_rng(2).integers(0, 3, size=(6, 2, 3)) * 100
    labels = np.array([0, 9, 1, 4, 4, 7])
    for prefix in ("train", "t10k"):
        workshop.idx(f"f/{prefix}-images-idx3-ubyte", images)
        workshop.idx(f"f/{prefix}-labels-idx1-ubyte", labels)
    made = workshop.prepare(
        {"source": {"type": "fashion_mnist", "folder": "f", "masks": True}, "split": {"validation": 0}},
        (*images.shape[1:], 1),
        task="classification",
    )
    np.testing.assert_array_equal(made.train.targets["y"], (images > 0) * (1 + labels[:, None, None]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("remove", r"images/day0/2.png: the image has no mask"),
        ("size", r"masks/day0/2.png: the mask has another size than its image"),
        ("colours", r"the mask is in colours, and nothing says which class a colour is"),
        ("damage", r"masks/day0/2.png: the"),
        ("twice", r"two masks have one name"),
    ],
)
def test_mistakes_are_answered(workshop: Workshop, change: str, message: str) -> None:
    _pictures(workshop, CODES)
    path = workshop.folder / "masks/day0/2.png"
    if change == "remove":
        path.unlink()
    elif change == "size":
        workshop.picture("masks/day0/2.png", np.zeros((WIDTH, HEIGHT)))
    elif change == "colours":
        workshop.picture("masks/day0/2.png", np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3))
    elif change == "damage":
        path.write_bytes(path.read_bytes()[:60])
    else:
        workshop.picture("masks/day0/2.bmp", CODES[2])
    with pytest.raises(InputError, match=message):
        _prepare(workshop)


def test_a_mask_without_an_image_is_noted(workshop: Workshop) -> None:
    _pictures(workshop, CODES)
    workshop.picture("masks/extra.png", CODES[0])
    assert any("1 masks have no image" in note for note in _prepare(workshop).report.notes)


@pytest.mark.parametrize(
    "classes", [{"a": 1, "b": [0, 0, 0]}, {"a": 1, "b": 1}, {"a": 1}, {"a": 300, "b": 1}, {"a": [1, 2], "b": [0, 0, 0]}]
)
def test_classes_that_make_no_sense_are_refused(classes: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        DataSpec.model_validate({"source": {"type": "image_masks", "images": "i", "masks": "m", "classes": classes}})
