"""Hostile input: sound files of every kind, changed at random, given to the command that reads them.

Each must end in success or in a clear error within `SECONDS`, and write nothing but its run folder. To add a kind of
file, add a row to `KINDS`: a maker of a folder that trains, the file in it to change, and the command.

As a program: ``hostile.py --cases N --seed N [--kinds a,b]``: one process, bounded in memory, that goes on after each.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from survival import inside, sources

from unitrain.cli.main import main as unitrain
from unitrain.folders import remove_folder
from unitrain.spec.errors import InputError
from unitrain.train.fit import fit

SECONDS = 10.0
BYTES = 2 * 1024**3

TABLE = """\
name: hostile
model: {inputs: {features: {shape: [2]}}, layers: [{type: dense, name: y, units: 2}]}
data: {source: SOURCE, split: {validation: 0.2, test: 0}}
loss: cross_entropy
optimizer: {type: sgd, lr: 0.1}
training: {epochs: 1, batch_size: 8}
"""
IMAGES = TABLE.replace("{features: {shape: [2]}}", "{image: {shape: [4, 4, 1]}}").replace(
    "layers: [", "layers: [{type: flatten, name: flat}, "
)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Parameters
    ----------
    name
        What it is called on the command line.
    make
        Fills an empty folder with sound files.
    file
        The one that is changed, relative to the folder.
    use
        Reads it: a command line for ``unitrain``, or a function.
    text
        Whether it is text, which is changed by words too.
    inside
        Changes what a sound file holds: without it most changes are found by the container alone.
    around
        Changes the folder that the file lies in: links, pipes, other files.
    """

    name: str
    make: Callable[[Path], None]
    file: str
    use: Sequence[str] | Callable[[Path], None]
    text: bool = False
    inside: Callable[[bytes, random.Random], bytes] | None = None
    around: Callable[[Path, random.Random], None] | None = None


def _points() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(24, 2)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64)


def _recipe(folder: Path, source: str, text: str = TABLE) -> None:
    (folder / "recipe.yaml").write_text(text.replace("SOURCE", source))


def _csv(folder: Path) -> None:
    x, y = _points()
    lines = ["a,b,kind", *(f"{a:.4f},{b:.4f},{'yes' if k else 'no'}" for (a, b), k in zip(x, y, strict=True))]
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    _recipe(folder, "{type: table, file: data.csv, target: kind}")


def _parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    x, y = _points()
    pyarrow.parquet.write_table(pyarrow.table({"a": x[:, 0], "b": x[:, 1], "kind": y}), folder / "data.parquet")
    _recipe(folder, "{type: table, file: data.parquet, target: kind}")


def _npz(folder: Path, save: Callable[..., None] = np.savez) -> None:
    x, y = _points()
    save(folder / "data.npz", x=x, y=y)
    _recipe(folder, "{type: npz, file: data.npz, inputs: {features: x}, targets: {y: y}}")


def _npy(folder: Path) -> None:
    x, y = _points()
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    _recipe(folder, "{type: npy, inputs: {features: x.npy}, targets: {y: y.npy}}")


def _idx(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 4, 4), dtype=np.uint8)
    (folder / "images").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 24, 0, 0, 0, 4, 0, 0, 0, 4]) + pixels.tobytes())
    labels = _points()[1].astype(np.uint8)
    (folder / "labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 24]) + labels.tobytes())
    _recipe(folder, "{type: idx, images: images, labels: labels}", IMAGES)


def _png(folder: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for number, kind in enumerate(_points()[1]):
        place = folder / "pictures" / ("yes" if kind else "no")
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (4, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    shutil.copy(next((folder / "pictures" / "yes").iterdir()), folder / "pictures" / "no" / "changed.png")
    _recipe(folder, "{type: image_folder, folder: pictures, channels: grayscale}", IMAGES)


def _rich_recipe(folder: Path) -> None:
    _csv(folder)
    (folder / "model.yaml").write_text(
        "name: m\narguments: {width: 4}\ninputs:\n  features: {shape: [2]}\nlayers:\n"
        "  - {type: dense, name: hidden, units: $width, activation: relu, kernel_initializer: he_normal}\n"
        '  - {type: dense, name: two, units: "${2 * width}"}\n  - {type: layer_norm, name: n}\n'
        "  - {type: dropout, name: d, rate: 0.1}\n  - {type: dense, name: y, units: 2}\n"
    )
    (folder / "recipe.yaml").write_text(
        "name: hostile\nmodel: {file: model.yaml, width: 3}\n"
        "data:\n  source: {type: table, file: data.csv, target: kind}\n  split: {validation: 0.2, test: 0.1}\n"
        "loss: {type: cross_entropy, label_smoothing: 0.1}\n"
        "optimizer: {type: adam, lr: 0.01, clip_norm: 1.0, ema: 0.9}\n"
        "schedule: {type: cosine, warmup: 1}\nmetrics: [accuracy, {type: top_k, k: 1}]\n"
        "training: {epochs: 2, batch_size: 8, accumulate: 2, early_stopping: {patience: 1}}\n"
        "seed: 3\ndeterministic: true\n"
    )


def _run(folder: Path) -> None:
    _csv(folder)
    with contextlib.chdir(folder):
        fit("recipe.yaml", out="run", overrides=["training.max_steps=2", "training.epochs=3"])


def _onnx(folder: Path) -> None:
    _run(folder)
    with contextlib.chdir(folder):
        _command(["export", "run", "--to", "onnx", "--out", "model.onnx"])


def _text_bpe(folder: Path) -> None:
    sources.text(folder, "{type: bpe, size: 300}")


_DRY = ("fit", "recipe.yaml", "--dry-run")
_NEWEST = "run/checkpoints/step-00000002.safetensors"

KINDS = (
    Kind("recipe", _rich_recipe, "recipe.yaml", _DRY, text=True),
    Kind("trained-recipe", _csv, "recipe.yaml", ("fit", "recipe.yaml", "--set", "training.max_steps=2"), text=True),
    Kind("spec", _rich_recipe, "model.yaml", _DRY, text=True),
    Kind("summary", _rich_recipe, "model.yaml", ("summary", "model.yaml"), text=True),
    Kind(
        "weights", _run, "run/weights.safetensors", ("evaluate", "run", "--part", "validation"), inside=inside.tensors
    ),
    Kind(
        "checkpoint",
        _run,
        _NEWEST,
        ("fit", "--resume", "run", "--set", "training.max_steps=3"),
        inside=inside.checkpoint,
    ),
    Kind(
        "preprocessing", _run, "run/preprocessing.json", ("predict", "run", "data.csv", "--out", "run/p.csv"), text=True
    ),
    Kind(
        "environment",
        _run,
        "run/environment.json",
        ("fit", "--resume", "run", "--set", "training.max_steps=3"),
        text=True,
    ),
    Kind("metrics", _run, "run/metrics.jsonl", ("runs", "compare", "run", "run"), text=True),
    Kind("result", _run, "run/result.json", ("runs", "list", "."), text=True),
    Kind("npz", _npz, "data.npz", _DRY, inside=inside.arrays),
    Kind("packed-npz", lambda folder: _npz(folder, np.savez_compressed), "data.npz", _DRY),
    Kind("npy", _npy, "x.npy", _DRY, inside=inside.array),
    Kind("csv", _csv, "data.csv", _DRY, text=True),
    Kind("parquet", _parquet, "data.parquet", _DRY, inside=inside.table),
    Kind("idx", _idx, "images", _DRY),
    Kind("png", _png, "pictures/no/changed.png", _DRY),
    Kind("text", sources.text, "a.txt", _DRY, text=True, inside=sources.text_file),
    Kind("text-bpe", _text_bpe, "a.txt", _DRY, text=True, inside=sources.text_file),
    Kind(
        "text-folder",
        sources.text_folder,
        "texts/no/00.txt",
        _DRY,
        text=True,
        inside=sources.text_file,
        around=sources.folder_of_texts,
    ),
    Kind("conll", sources.conll, "data.conll", _DRY, text=True, inside=sources.text_file),
    Kind("tagged-table", sources.tagged_table, "data.csv", _DRY, text=True, inside=sources.text_file),
    Kind("tagged-lists", sources.tagged_lists, "data.parquet", _DRY, inside=inside.table),
    Kind("series", sources.series, "data.csv", _DRY, text=True, inside=sources.series_file),
    Kind("many-series", sources.many_series, "data.csv", _DRY, text=True, inside=sources.series_file),
    Kind("masks", sources.masks, "masks/00.png", _DRY, inside=sources.mask_file),
    Kind("coloured-masks", sources.coloured_masks, "masks/00.png", _DRY, inside=sources.mask_file),
    Kind(
        "vocabulary",
        sources.vocabulary,
        "run/preprocessing.json",
        ("predict", "run", "texts", "--out", "run/p.csv"),
        inside=sources.stored_vocabulary,
    ),
    Kind(
        "bpe-vocabulary",
        sources.bpe_vocabulary,
        "run/preprocessing.json",
        ("generate", "run", "--prompt", "the dog", "--tokens", "3"),
        inside=sources.stored_vocabulary,
    ),
    Kind("onnx", _onnx, "model.onnx", ("verify", "run", "--against", "model.onnx", "-q"), inside=inside.onnx),
)

_NUMBERS = ("0", "-1", "1e308", ".nan", ".inf", "1000000000000", "99999999999999999999999", "2147483648", "0.5", "-0.0")
_WORDS = (
    "null",
    "true",
    "[]",
    "{}",
    "''",
    "../../outside",
    "/etc/passwd",
    "$width",
    '"${9**9**9}"',
    "&a [*a]",
    "~",
    "é\u2028",
)
_LINES = (
    "x: !!python/object/apply:os.system ['touch outside']",
    "\t",
    "<<: *a",
    "---",
    "%YAML 9.9",
    "? [a]",
    "\x00",
    "{",
    ",,,",
)


def change(content: bytes, generator: random.Random, text: bool) -> bytes:
    """Change a file's content once to four times."""
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        words = text and generator.random() < 0.85
        content = _change_words(content, generator) if words else _change_bytes(content, generator)
    return content


def _change_words(content: bytes, generator: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    found = list(re.finditer(r"-?\d+\.?\d*|\w+", text)) or [re.match("", text)]
    one = generator.choice(found)
    match generator.randrange(7):
        case 0 | 1:
            new = generator.choice(_NUMBERS)
        case 2:
            new = generator.choice(_WORDS)
        case 3:
            new = generator.choice(found).group()
        case 4:
            new = ""
        case 5:
            lines = text.split("\n")
            lines.insert(generator.randrange(len(lines) + 1), generator.choice((*_LINES, *lines)))
            return "\n".join(lines).encode("utf-8", "replace")
        case _:
            lines = text.split("\n")
            del lines[generator.randrange(len(lines))]
            return "\n".join(lines).encode("utf-8", "replace")
    return (text[: one.start()] + new + text[one.end() :]).encode("utf-8", "replace")


def _change_bytes(content: bytes, generator: random.Random) -> bytes:
    data = bytearray(content)
    at = generator.randrange(len(data) + 1)
    match generator.randrange(7):
        case 0:
            return bytes(data[:at])
        case 1 if data:
            data[at % len(data)] ^= 1 << generator.randrange(8)
        case 2 if data:
            data[at % len(data)] = generator.choice((0, 1, 127, 128, 255))
        case 3:
            size = generator.choice((2, 4, 8))
            value = generator.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
            data[at : at + size] = value.to_bytes(size, generator.choice(("little", "big")))
        case 4:
            data[at:at] = generator.randbytes(generator.choice((1, 4, 64)))
        case 5:
            end = at + generator.randrange(64)
            data[at:end] = b"" if generator.random() < 0.5 else bytes(data[at:end]) * 2
        case _:
            end = at + generator.randrange(16)
            data[at:end] = generator.randbytes(len(data[at:end]))
    return bytes(data)


class TooLong(BaseException):
    """A case has taken longer than it may; no `except Exception` holds it."""


def _command(arguments: Sequence[str]) -> tuple[int, str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            unitrain(list(arguments))
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def trouble(kind: Kind, folder: Path, *, sound: bool = False) -> str | None:
    """Use the file in a folder; return what is wrong with how that ended, or None. A sound file is to be taken."""
    before = _outside(folder)
    try:
        with contextlib.chdir(folder), _at_most(SECONDS):
            if callable(kind.use):
                try:
                    kind.use(folder)
                    code, printed = 0, ""
                except InputError as error:
                    code, printed = 2, str(error)
            else:
                code, printed = _command(kind.use)
    except TooLong:
        return f"took more than {SECONDS:g} s"
    except BaseException:
        return traceback.format_exc()[-1500:]
    if code not in ((0,) if sound else (0, 1, 2)) or "Traceback" in printed:
        return f"ended with {code}: {printed[-1500:]}"
    if code and not printed.strip():
        return f"ended with {code} and without a word"
    after = _outside(folder)
    changed = sorted(path for path in before.keys() ^ after.keys() | {p for p in before if before[p] != after.get(p)})
    return f"changed outside of its run folder: {', '.join(changed)}" if changed else None


def _outside(folder: Path) -> dict[str, tuple[int, int]]:
    """Return all files around and in a folder that are no run's, with size and time of change."""
    found = {}
    for entry in _below(folder.parent, leave_out=(str(folder / "run"), str(folder / "runs"))):
        status = entry.stat(follow_symlinks=False)
        if not entry.is_dir(follow_symlinks=False):
            found[entry.path] = (status.st_size, status.st_mtime_ns)
    return found


def _below(folder: Path, leave_out: Collection[str] = ()) -> Iterator[os.DirEntry[str]]:
    """Go through a folder, folders before what is in them; however deep, as the library's own walks do not."""
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.path not in leave_out:
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)


def cases(kind: Kind, count: int, seed: int, place: Path) -> Iterator[tuple[int, str]]:
    """Try changes of one kind; yield number and trouble of those that end badly, their files kept in ``place``."""
    sound = place / f"{kind.name}-sound"
    sound.mkdir()
    kind.make(sound)
    found = trouble(kind, _copy(sound, place / f"{kind.name}-unchanged"), sound=True)
    if found is not None:
        yield -1, f"unchanged: {found}"
        return
    content = (sound / kind.file).read_bytes()
    for number in range(count):
        generator = random.Random(f"{seed} {kind.name} {number}")
        folder = _copy(sound, place / f"{kind.name}-{number}" / "inner")
        if kind.around is not None and generator.random() < 0.5:
            kind.around(folder, generator)
        elif kind.inside is not None and generator.random() < 0.6:
            (folder / kind.file).write_bytes(kind.inside(content, generator))
        else:
            (folder / kind.file).write_bytes(change(content, generator, kind.text))
        found = trouble(kind, folder)
        if found is None:
            remove_folder(folder.parent)
        else:
            yield number, found


def _copy(sound: Path, to: Path) -> Path:
    shutil.copytree(sound, to)
    return to


def main() -> int:
    """Try all kinds; print what ends badly, and where its files lie."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(kind.name for kind in KINDS))
    chosen = parser.parse_args()
    faulthandler.enable()
    # A run without the extra for reports writes none, which would take most of its time.
    sys.modules["jinja2"] = None  # type: ignore[assignment]  # as Python marks what cannot be imported
    place = Path(tempfile.mkdtemp(prefix="hostile-"))
    failures = done = 0
    for kind in KINDS:
        if kind.name not in chosen.kinds.split(","):
            continue
        started = time.monotonic()
        (place / kind.name).mkdir()
        bad = list(cases(kind, chosen.cases, chosen.seed, place / kind.name))
        done += chosen.cases
        failures += len(bad)
        print(
            f"{kind.name:<16} {chosen.cases} cases, {len(bad)} end badly, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        for number, found in bad:
            print(f"  {place / kind.name / f'{kind.name}-{number}'}\n    " + found.replace("\n", "\n    "), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{done} cases, {failures} end badly; {peak / 2**20:,.0f} MiB at most, bound {BYTES / 2**20:,.0f} MiB")
    if not failures:
        shutil.rmtree(place)
    return 1 if failures or peak > BYTES else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
