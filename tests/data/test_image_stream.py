"""Pictures that stay in their files: the numbers of pictures in memory, whoever decodes them."""

from __future__ import annotations

import gc
import os
import signal

import numpy as np
import pytest
from PIL import Image

from unitrain.data.decoders import Decoders
from unitrain.data.lazy import Lazy
from unitrain.data.sources import image_folder
from unitrain.spec.errors import InputError
from unitrain.train.fit import fit
from unitrain.train.recipe import load_recipe
from unitrain.train.session import prepare_data

RECIPE = """
name: pictures
model:
  inputs: {{image: {{shape: [6, 5, 3]}}}}
  layers: [{{type: flatten}}, {{type: dense, name: logits, units: 2}}]
data: {{source: {{type: image_folder, folder: pictures{size}}}, {data}}}
loss: cross_entropy
optimizer: {{type: adam, lr: 0.01}}
training: {{epochs: 2, batch_size: 7}}
"""


@pytest.fixture
def pictures(tmp_path):
    """40 pictures of several sizes and formats in two classes."""
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "pictures" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        size = (6, 5, 3) if number % 3 else (9, 8, 3)
        pixels = generator.integers(0, 256, size).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.{('png', 'jpg', 'bmp')[number % 3]}")
    return tmp_path


def write(folder, data, size=", size: [6, 5]"):
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(data=data, size=size))
    return path


def prepared(folder, data):
    return prepare_data(load_recipe(write(folder, data)))


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("pixels", ["unit", "standardise"])
def test_streamed_pictures_are_those_in_memory(pictures, workers, pixels):
    held = prepared(pictures, f"stream: never, pixels: {pixels}")
    lazy = prepared(pictures, f"stream: always, workers: {workers}, pixels: {pixels}")
    assert lazy.preprocessing == held.preprocessing
    assert isinstance(lazy.train.inputs["image"], Lazy)
    for part in ("train", "validation", "test"):
        found, there = getattr(lazy, part), getattr(held, part)
        assert np.array_equal(np.asarray(found.inputs["image"]), there.inputs["image"])
        assert np.array_equal(found.targets["logits"], there.targets["logits"])
        assert np.array_equal(found.rows, there.rows)


def test_training_gives_the_same_weights(pictures):
    weights = []
    for name, data in {
        "held": "stream: never, augment: [flip]",
        "read by workers": "stream: never, workers: 2, augment: [flip]",
        "streamed": "stream: always, workers: 2, augment: [flip]",
    }.items():
        fit(write(pictures, data), out=pictures / name, backend="numpy")
        weights.append((pictures / name / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_pictures_are_skipped_alike(pictures, workers):
    for name in ("cat/04.jpg", "dog/31.jpg"):
        (pictures / "pictures" / name).write_bytes(b"no picture")
    held = prepared(pictures, "stream: never, invalid_image: skip")
    lazy = prepared(pictures, f"stream: always, invalid_image: skip, workers: {workers}")
    assert np.array_equal(np.asarray(lazy.train.inputs["image"]), held.train.inputs["image"])
    told = [note for note in lazy.report.notes if note.startswith("skipped")]
    assert len(told) == 2
    assert told == [note for note in held.report.notes if note.startswith("skipped")]


@pytest.mark.parametrize("data", ["stream: always, workers: 2", "stream: always, workers: 0", "stream: never"])
def test_a_bad_picture_is_named(pictures, data):
    (pictures / "pictures" / "dog" / "31.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"31\.jpg.*\n?.*does not decode: unknown format"):
        fit(write(pictures, data), out=pictures / "run", backend="numpy")


@pytest.mark.parametrize("data", ["stream: always, workers: 2", "stream: never"])
def test_another_size_is_told(pictures, data):
    with pytest.raises(InputError) as caught:
        fit(write(pictures, data, size=""), out=pictures / "run", backend="numpy")
    for word in ("differ in size", "6 x 5", "9 x 8", "size: [height, width]"):
        assert word in str(caught.value)


def test_what_does_not_fit_streams(pictures, monkeypatch):
    needed = 40 * 6 * 5 * 3 * 10  # bytes, by what a pixel costs while it is prepared
    monkeypatch.setattr(image_folder, "available_memory", lambda: 2 * needed)
    assert isinstance(prepared(pictures, "stream: auto").train.inputs["image"], np.ndarray)
    monkeypatch.setattr(image_folder, "available_memory", lambda: 2 * needed - 2)
    assert isinstance(prepared(pictures, "stream: auto").train.inputs["image"], Lazy)


def test_workers_end_with_their_owner(pictures):
    paths = [str(path) for path in sorted((pictures / "pictures").rglob("*.*"))]
    decoders = Decoders(2, "rgb", (6, 5))
    pixels, problems = decoders.decode(paths, (6, 5, 3))
    assert not problems
    assert pixels.any(axis=(1, 2, 3)).all()
    processes = list(decoders._processes)
    assert [process.poll() for process in processes] == [None, None]
    del decoders
    gc.collect()
    assert [process.poll() for process in processes] == [0, 0]


def test_a_worker_that_is_gone_is_missed(pictures):
    paths = [str(path) for path in sorted((pictures / "pictures").rglob("*.*"))]
    decoders = Decoders(2, "rgb", (6, 5))
    decoders.decode(paths, (6, 5, 3))
    os.kill(decoders._processes[0].pid, signal.SIGKILL)
    decoders._processes[0].wait()
    with pytest.raises(InputError, match="has ended"):
        decoders.decode(paths, (6, 5, 3))
