"""Sound folders of text, tagged tokens, series, masks and vocabularies, and what is done to them for `hostile`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
from pathlib import Path

import numpy as np

from unitrain.train.fit import fit

WORDS = ("the", "dog", "cat", "sees", "hears", "runs", "café", "Straße")
READER = """\
name: hostile
model:
  inputs: {tokens: {shape: [6], dtype: integer}}
  layers: [{type: embedding, name: e, vocabulary: 400, width: 3}, LAST]
data: {source: SOURCE, vocabulary: WHAT, split: {validation: 0.2, test: 0}}
loss: cross_entropy
optimizer: {type: sgd, lr: 0.1}
training: {epochs: 1, batch_size: 8}
"""
WRITER = READER.replace("LAST", "{type: dense, name: y, units: 400}")
CLASSIFIER = READER.replace("LAST", "{type: flatten, name: f}, {type: dense, name: y, units: 2}")
TAGGER = READER.replace("LAST", "{type: dense, name: y, units: 3}").replace(
    "loss: cross_entropy", "loss: {type: cross_entropy, ignore_index: -1}"
)
FORECASTER = """\
name: hostile
model: {inputs: {x: {shape: [4]}}, layers: [{type: dense, name: y, units: 2}]}
data:
  source: SOURCE
  features: {x: [n]}
  window: {length: 4, horizon: 2, season: 3}
  split: {validation: 0.3, test: 0}
  target_scaling: standardise
loss: mse
optimizer: {type: sgd, lr: 0.01}
metrics: [mase, smape]
training: {epochs: 1, batch_size: 8}
"""
PAINTER = """\
name: hostile
model: {inputs: {image: {shape: [4, 6, 3]}}, layers: [{type: conv2d, name: y, filters: 3, kernel_size: 1}]}
data: {source: SOURCE, split: {validation: 0.2, test: 0}}
loss: {type: cross_entropy, ignore_index: 255}
optimizer: {type: sgd, lr: 0.1}
metrics: [iou]
training: {epochs: 1, batch_size: 8}
"""


def _recipe(folder: Path, text: str, source: str, vocabulary: str = "words") -> None:
    (folder / "recipe.yaml").write_text(text.replace("SOURCE", source).replace("WHAT", vocabulary), encoding="utf-8")


def _sentence(generator: random.Random) -> list[str]:
    return [generator.choice(WORDS) for _ in range(generator.randrange(2, 9))]


def text(folder: Path, vocabulary: str = "bytes") -> None:
    """Make files of running text, for a language model."""
    generator = random.Random(0)
    for name in ("a.txt", "b.txt"):
        lines = "\n".join(" ".join(_sentence(generator)) + "." for _ in range(20))
        (folder / name).write_text(lines, encoding="utf-8")
    _recipe(folder, WRITER, '{type: text, files: "*.txt"}', vocabulary)


def text_folder(folder: Path) -> None:
    """Make a folder of texts for each of two classes."""
    generator = random.Random(0)
    for number in range(12):
        place = folder / "texts" / ("yes" if number % 2 else "no")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02}.txt").write_text(" ".join(_sentence(generator)), encoding="utf-8")
    _recipe(folder, CLASSIFIER, "{type: text_folder, folder: texts}")


def conll(folder: Path) -> None:
    """Make a token and its tag a line."""
    generator = random.Random(0)
    blocks = ["\n".join(f"{word} X {'ABC'[len(word) % 3]}" for word in _sentence(generator)) for _ in range(24)]
    (folder / "data.conll").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    _recipe(folder, TAGGER, "{type: conll, file: data.conll}")


def tagged_table(folder: Path) -> None:
    """Make a table with a token a row."""
    generator = random.Random(0)
    rows = [
        f"{sentence // 4},{sentence},{word},{'ABC'[len(word) % 3]}"
        for sentence in range(24)
        for word in _sentence(generator)
    ]
    (folder / "data.csv").write_text("\n".join(["document,id,word,tag", *rows]) + "\n", encoding="utf-8")
    source = "{type: tagged_table, file: data.csv, tokens: word, tags: tag, sentence: id, group: document}"
    _recipe(folder, TAGGER, source)


def tagged_lists(folder: Path) -> None:
    """Make a Parquet table with a sentence a row."""
    import pyarrow as pa
    from pyarrow import parquet

    generator = random.Random(0)
    words = [_sentence(generator) for _ in range(24)]
    tags = [[len(word) % 3 for word in sentence] for sentence in words]
    parquet.write_table(pa.table({"a": words, "kind": tags}), folder / "data.parquet")
    _recipe(folder, TAGGER, "{type: tagged_table, file: data.parquet, tokens: a, tags: kind, rows: sentences}")


def series(folder: Path) -> None:
    """Make one series, by days."""
    days = [str(np.datetime64("2026-01-01") + day) for day in range(40)]
    rows = [f"{day},{5 + np.sin(at):.3f},{at % 7}" for at, day in enumerate(days)]
    (folder / "data.csv").write_text("\n".join(["day,n,other", *rows]) + "\n")
    _recipe(folder, FORECASTER, "{type: series, file: data.csv, time: day, target: n}")


def many_series(folder: Path) -> None:
    """Make three series, mixed by time."""
    rows = [f"{at},{name},{size * (2 + np.sin(at)):.3f}" for at in range(40) for size, name in enumerate("abc", 1)]
    (folder / "data.csv").write_text("\n".join(["t,id,n", *rows]) + "\n")
    _recipe(folder, FORECASTER, "{type: series, file: data.csv, series: id, time: t, target: n}")


def masks(folder: Path, classes: str = "") -> None:
    """Make pictures with a mask each: of numbers, or of colours where ``classes`` names these."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(16):
        pixels = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:02}.png")
        mask = generator.integers(0, 3, (4, 6), dtype=np.uint8)
        shown = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)[mask] if classes else mask
        Image.fromarray(shown).save(folder / "masks" / f"{number:02}.png")
    _recipe(folder, PAINTER, f"{{type: image_masks, images: images, masks: masks{classes}}}")


def coloured_masks(folder: Path) -> None:
    """Make masks in which a colour stands for a class."""
    masks(folder, ", classes: {ground: [0, 0, 0], car: [255, 0, 0], sky: [0, 0, 255]}")


def vocabulary(folder: Path) -> None:
    """Train on texts of two classes: words."""
    text_folder(folder)
    with contextlib.chdir(folder):
        fit("recipe.yaml", out="run")


def bpe_vocabulary(folder: Path) -> None:
    """Train a language model on pieces of words."""
    text(folder, "{type: bpe, size: 300}")
    with contextlib.chdir(folder):
        fit("recipe.yaml", out="run", overrides=["training.max_steps=2"])


_STRANGE = (
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",  # half of a surrogate pair
    b"\xf4\x90\x80\x80",  # beyond the last code point
    b"\xc0\xaf",  # longer than it need be
    b"\x00" * 50,
    b"\xef\xbb\xbf",
    "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e".encode(),
    "\u202e\u200b\u200d".encode(),
    ("e" + "\u0301" * 5000).encode(),
    "\U0010ffff\ufffe".encode(),
    b"\r",
    b"\r\n\r\n",
    b"\x1b[2J\x07",
    b"\t" * 3000,
    b'"',
    b"-DOCSTART- -X- O\n",
    b"# a\n",
)


def text_file(content: bytes, generator: random.Random) -> bytes:
    """Change a text: bytes that are none, signs that few expect, giant words and lines, nothing at all."""
    at = generator.randrange(len(content) + 1)
    match generator.randrange(8):
        case 0:
            return generator.choice((b"", b"\n" * 100, b" ", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"a"))
        case 1:
            new = generator.choice((b"a", b"a ", "é".encode(), b"ab", b"\x00", b",", b"1 ")) * 100_000
        case 2:
            new = b"\n".join([b"x"] * 20_000)
        case 3:
            return content.decode().encode(generator.choice(("utf-16", "utf-32", "utf-8-sig")))
        case 4:
            new = "".join(chr(generator.randrange(32, 0xD800)) for _ in range(2000)).encode()
        case _:
            new = generator.choice(_STRANGE)
    return content[:at] + new + content[at:]


_TIMES = (
    "2026-01-01",
    "2026-13-45",
    "NaT",
    "inf",
    "0001-01-01",
    "9999-12-31T23:59:60Z",
    "1e400",
    "-5",
    "3",
    "12:00",
    "",
)


def series_file(content: bytes, generator: random.Random) -> bytes:
    """Change rows of a series: order, times, names, numbers."""
    head, *rows = content.decode().splitlines()
    at = generator.randrange(len(rows))
    cells = rows[at].split(",")
    match generator.randrange(8):
        case 0:
            generator.shuffle(rows)
        case 1:
            rows.insert(at, generator.choice(rows))
        case 2:
            cells[0] = generator.choice(_TIMES)
        case 3:
            cells[1] = generator.choice(("", "a", "new", "a, b", "nan", "x" * 100_000, "1e308", "-1e308", "é\u2028"))
        case 4:
            cells[-1] = generator.choice(("", "nan", "inf", "1e308", "-1e308", "1e-320", "x", "1" * 400, "0"))
        case 5:
            del rows[generator.randrange(3) : at]
        case 6:
            rows = [
                ",".join([row.split(",")[0], *(generator.choice(("5", "1e300", "-1e300")) for _ in cells[1:])])
                for row in rows
            ]
        case _:
            rows = rows * generator.choice((2, 300))
    if at < len(rows):
        rows[at] = ",".join(cells)
    return "\n".join([head, *rows]).encode()


_MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "I", "I;16", "CMYK", "PA")


def mask_file(content: bytes, generator: random.Random) -> bytes:
    """Change a mask: its size, its mode, its palette, its numbers, its kind of file."""
    from PIL import Image

    pixels = np.random.default_rng(generator.randrange(2**32)).integers(0, 3, (4, 6), dtype=np.uint8)
    image = Image.fromarray(pixels)
    kind, options = "PNG", {}
    match generator.randrange(9):
        case 0:
            image = image.resize(generator.choice(((1, 1), (4, 6), (6, 5), (12, 8), (3000, 1))))
        case 1:
            with contextlib.suppress(ValueError):
                image = image.convert(generator.choice(_MODES))
        case 2:
            image = Image.fromarray(pixels + np.uint8(generator.choice((1, 3, 252, 253))))
        case 3:
            image = Image.fromarray(pixels.astype(np.uint16) * generator.choice((1, 256, 20000)))
        case 4:
            image = image.convert("P")
            image.putpalette([generator.randrange(256) for _ in range(3 * generator.choice((1, 3, 256)))])
            options = {"transparency": generator.choice((0, 200))}
        case 5:
            kind = generator.choice(("GIF", "TIFF", "BMP", "WEBP", "JPEG", "ICO", "PPM"))
            if kind == "GIF":
                options = {"save_all": True, "append_images": [image] * 3}
        case 6:
            exif = Image.Exif()
            exif[0x0112] = generator.choice((3, 6, 8, 99))
            options = {"exif": exif}
        case 7:
            return content[: generator.randrange(len(content))]
        case _:
            kind = "TIFF"
            image = Image.fromarray((pixels + generator.choice((np.nan, np.inf, 0.5, 1.0))).astype(np.float32))
    stream = io.BytesIO()
    try:
        image.save(stream, kind, **options)
    except (OSError, KeyError, ValueError):  # Pillow cannot write this one
        return content[::-1]
    return stream.getvalue()


_LINKS = (
    "/etc/passwd",
    "/etc",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/mem",
    "/proc/self",
    "../..",
    ".",
    "nowhere",
    "/",
)


def folder_of_texts(folder: Path, generator: random.Random) -> None:
    """Change a folder: links that lead outside, in a circle or nowhere, deep folders, strange names, pipes."""
    place = generator.choice((folder / "texts", folder / "texts" / "no"))
    suffix = next((folder / "texts").rglob("*.*")).suffix
    name = generator.choice(("link", "0", "é\u2028", "-", "a b", "x" * 200, ".hidden", "\udcff")) + suffix
    match generator.randrange(7):
        case 0 | 1:
            (place / name).symlink_to(generator.choice(_LINKS))
        case 2:
            (place / "circle").symlink_to(place)
        case 3:
            dig(place, generator.choice((50, 50, 50, 1100)), f"x{suffix}")
        case 4:
            os.mkfifo(place / name)
        case 5:
            (place / name).mkdir()
        case _:
            (place / name).write_bytes(generator.choice((b"", b"\xff", b"a dog", b"\x00")))


def dig(place: Path, depth: int, name: str) -> None:
    """Make folders in folders, deeper than a path may be long, with a file in the last."""
    here = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, b"a dog sees")
    os.close(file)
    os.close(here)


_VALUES = (None, 0, -1, 10**30, "", "x", [], {}, ["a", "a"], [""], ["ab", 3], {"type": "bytes"}, True, 0.5)


def stored_vocabulary(content: bytes, generator: random.Random) -> bytes:
    """Change one value of the vocabulary of a run, or of the tokenizer that is kept in it as JSON."""
    state = json.loads(content)
    encoder = next(iter(state["inputs"].values()))["features"][0]["encoder"]
    found = encoder["vocabulary"]
    if "tokenizer" in found and generator.random() < 0.7:
        tokenizer = json.loads(found["tokenizer"])
        _change_one(tokenizer if generator.random() < 0.3 else tokenizer["model"], generator)
        found["tokenizer"] = json.dumps(tokenizer)
        if generator.random() < 0.1:
            found["tokenizer"] = found["tokenizer"][: generator.randrange(len(found["tokenizer"]))]
    else:
        _change_one(generator.choice((found, encoder)), generator)
    return json.dumps(state).encode()


def _change_one(where: dict[str, object], generator: random.Random) -> None:
    name = generator.choice(sorted(where))
    inner = where[name]
    if isinstance(inner, dict) and inner and generator.random() < 0.6:
        _change_one(inner, generator)
    elif isinstance(inner, list) and inner and generator.random() < 0.6:
        inner[generator.randrange(len(inner))] = generator.choice((*_VALUES, *inner[:3]))
    elif generator.random() < 0.2:
        del where[name]
    else:
        where[name] = generator.choice(_VALUES)
