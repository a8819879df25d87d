"""Augmentation: exact where it can be, deterministic always, labels untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data_workshop import Input
from hypothesis import given, settings
from hypothesis import strategies as st

from unitrain.data.augment import cutout, flip, move, shift
from unitrain.spec.errors import InputError


def images(count: int = 8, height: int = 6, width: int = 5, channels: int = 3) -> Any:
    return np.random.default_rng(0).integers(1, 256, size=(count, height, width, channels)).astype(np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_flip_is_the_mirror_image() -> None:
    batch = images()
    np.testing.assert_array_equal(flip(batch, rng(), probability=1.0), batch[:, :, ::-1])
    np.testing.assert_array_equal(flip(batch, rng(), horizontal=False, vertical=True, probability=1.0), batch[:, ::-1])
    np.testing.assert_array_equal(flip(batch, rng(), probability=0.0), batch)
    half = flip(images(400), rng())
    mirrored = (half == images(400)[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (half == images(400)).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250  # binomial, five sigma


@settings(max_examples=50, deadline=None)
@given(
    down=st.integers(-8, 8),
    right=st.integers(-8, 8),
    mode=st.sampled_from(["constant", "edge", "reflect"]),
)
def test_move_equals_pad_and_crop(down: int, right: int, mode: Any) -> None:
    batch = images(2, 9, 10)
    padding = ((0, 0), (8, 8), (8, 8), (0, 0))
    padded = np.pad(batch, padding, mode, **({"constant_values": 7} if mode == "constant" else {}))
    expected = padded[:, 8 - down : 17 - down, 8 - right : 18 - right]
    moved = move(batch, np.full(2, down), np.full(2, right), mode, 7)
    np.testing.assert_array_equal(moved, expected)
    assert moved.dtype == np.uint8


def test_shift_reaches_every_offset_and_no_further() -> None:
    batch = np.zeros((2000, 7, 7, 1), dtype=np.uint8)
    batch[:, 3, 3] = 255
    places = np.argwhere(shift(batch, rng(), 1, 2)[..., 0] == 255)
    found = {(int(row), int(column)) for _, row, column in places}
    assert found == {(row, column) for row in (2, 3, 4) for column in (1, 2, 3, 4, 5)}
    assert len(places) == 2000


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cutout_covers_a_square_cut_off_at_the_border(size: int) -> None:
    batch = images(500, 12, 10)
    covered = (cutout(batch, rng(), size) == 0).all(axis=-1)
    area = covered.sum(axis=(1, 2))
    assert area.max() == size * size
    # The centre lies inside, so at least a quarter of the square does.
    assert area.min() >= (size // 2 or 1) ** 2
    for mask in covered[:50]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    np.testing.assert_array_equal(cutout(batch, rng(), size, probability=0.0), batch)
    two = (cutout(batch, rng(), size, count=2) == 0).all(axis=-1).sum(axis=(1, 2))
    assert two.max() == 2 * size * size


STEPS = [
    {"type": "flip"},
    {"type": "crop", "padding": 1},
    {"type": "shift", "height": 1, "width": 1, "mode": "edge"},
    {"type": "cutout", "size": 2},
]


@pytest.mark.parametrize("shape", [(8, 8, 1), (64,)])
def test_the_augmenter_is_deterministic_and_leaves_all_else(workshop: Any, shape: tuple[int, ...]) -> None:
    prepared = workshop.prepare({"source": "digits", "augment": STEPS}, shape)
    batch = {"x": prepared.train.inputs["x"][:32]}
    before = batch["x"].copy()
    targets = prepared.train.targets["y"].copy()
    first = prepared.augmenter(batch, rng(1))
    again = prepared.augmenter(batch, rng(1))
    other = prepared.augmenter(batch, rng(2))
    np.testing.assert_array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])
    assert first["x"].shape == batch["x"].shape
    assert first["x"].dtype == np.float32
    np.testing.assert_array_equal(batch["x"], before)
    np.testing.assert_array_equal(prepared.train.targets["y"], targets)


def test_flat_and_square_inputs_are_changed_alike(workshop: Any) -> None:
    square = workshop.prepare({"source": "digits", "augment": STEPS}, (8, 8, 1))
    flat = workshop.prepare({"source": "digits", "augment": STEPS}, (64,))
    one = square.augmenter({"x": square.train.inputs["x"][:16]}, rng())["x"]
    two = flat.augmenter({"x": flat.train.inputs["x"][:16]}, rng())["x"]
    np.testing.assert_array_equal(one.reshape(16, 64), two)


def test_the_fill_is_black_as_the_model_sees_it(workshop: Any) -> None:
    spec = {"source": "digits", "pixels": "standardise", "augment": [{"type": "cutout", "size": 20}]}
    prepared = workshop.prepare(spec, (8, 8, 1))
    unit = workshop.prepare({"source": "digits"}, (8, 8, 1)).train.inputs["x"].astype(np.float64)
    covered = prepared.augmenter({"x": prepared.train.inputs["x"][:4]}, rng())["x"]
    np.testing.assert_allclose(covered, -unit.mean() / unit.std(), rtol=1e-5)


def test_no_steps_no_augmenter_and_no_images_an_error(workshop: Any) -> None:
    assert workshop.prepare({"source": "digits"}, (8, 8, 1)).augmenter is None
    with pytest.raises(InputError, match="augmentation is for images, and no input has them"):
        workshop.prepare({"source": "iris", "augment": ["flip"]}, 4)


def test_other_inputs_pass_unchanged(workshop: Any) -> None:
    np.savez(
        workshop.folder / "a.npz",
        i=images(30, 4, 4),
        m=np.arange(60.0).reshape(30, 2),
        c=np.arange(30) % 2,
    )
    source = {"type": "npz", "file": "a.npz", "inputs": {"x": "i", "m": "m"}, "targets": {"y": "c"}}
    inputs = {"x": Input((4, 4, 3)), "m": Input((2,))}
    spec = {"source": source, "augment": [{"type": "flip", "probability": 1.0}]}
    prepared = workshop.prepare(spec, inputs)
    changed = prepared.augmenter(prepared.train.inputs, rng())
    np.testing.assert_array_equal(changed["m"], prepared.train.inputs["m"])
    np.testing.assert_array_equal(changed["x"], prepared.train.inputs["x"][:, :, ::-1])
