"""Anybody's ONNX file as a subject: its samples from pictures or arrays, or random inputs for speed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unitrain.backends.onnx.anatomy import read_model
from unitrain.backends.onnx.deployed import Deployed, Port, deploy
from unitrain.data.pictures import picture_labels, read_label_column, read_pictures
from unitrain.data.sources.arrays import read_arrays
from unitrain.spec.base import load_spec
from unitrain.spec.errors import InputError, did_you_mean, unknown_name
from unitrain.spec.study import ImagePreprocessing
from unitrain.study.quality import Task
from unitrain.study.splits import Samples, Splits, cut, limited, make_splits
from unitrain.study.subject import Subject
from unitrain.weights.random import stream

Array = npt.NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]

# Of random inputs, for each split.
_RANDOM = 32
# Sizes that are tried where a model does not say its own, with random inputs.
_SIZES = (224, 320, 128, 64, 32, 48)


@dataclass(frozen=True)
class Given:
    """What the user gave beside the file.

    Parameters
    ----------
    data
        A folder of pictures, or an npz whose keys are the model's inputs.
    labels
        A CSV: ``file,label`` for pictures, ``label`` for arrays.
    preprocess
        How pictures become inputs: a YAML file.
    calib
        An npz of samples without labels.
    shapes
        Input to its shape, batch left out, where the file does not say it.
    """

    data: Path | None = None
    labels: Path | None = None
    preprocess: Path | None = None
    calib: Path | None = None
    shapes: Shapes = field(default_factory=dict)


def from_file(path: Path, given: Given, calibration: int, seed: int) -> Subject:
    """Read an ONNX file and samples for it.

    Raises
    ------
    InputError
        The file is no model that onnxruntime runs, or what was given does not fit it.
    """
    model = read_model(path)
    deployed = deploy(path)
    _check_names(given.shapes, deployed.inputs)
    notes = []
    if given.data is None and given.calib is None:
        if given.labels is not None or given.preprocess is not None:
            raise InputError("labels and preprocessing are for --data", hint="name the samples: --data images/")
        samples, said = _random(deployed, given.shapes, path, seed)
        splits = _thirds(samples, calibration, seed, said)
        speed_only = True
    else:
        splits, said = _given(deployed, given, calibration, seed)
        notes += said
        speed_only = False
    one = splits.selection
    fixed, said = _batch(deployed, one, path)
    notes += said
    task = _task(deployed, one, fixed, labelled=splits.test.target is not None)
    if splits.test.target is not None:
        _check_labels(deployed, splits, task, fixed)
    return Subject(path.stem, path, model, splits, task, speed_only, None, fixed, tuple(notes))


def _check_names(shapes: Shapes, ports: Sequence[Port]) -> None:
    names = [port.name for port in ports]
    for name in shapes:
        if name not in names:
            raise unknown_name("input", name, names, ("--shape",))


def _given(deployed: Deployed, given: Given, calibration: int, seed: int) -> tuple[Splits, list[str]]:
    notes: list[str] = ["the training data of the file is not known: that the samples are none of it cannot be checked"]
    held: Samples | None = None
    if given.data is not None:
        held, said = _data(deployed.inputs, given, given.data)
        notes += said
    calibrating = None if given.calib is None else Samples(_arrays(given.calib, deployed.inputs))
    if held is None:
        assert calibrating is not None
        return _thirds(calibrating, calibration, seed, ()), notes
    if calibrating is None:
        return _thirds(held, calibration, seed, ()), notes
    parts = cut(held, {"selection": 0.5, "test": 0.5}, stream(seed, "study", "splits"))
    splits = make_splits(None, limited(calibrating, calibration), parts["selection"], parts["test"], drop=False)
    return splits, notes


def _thirds(samples: Samples, calibration: int, seed: int, notes: Sequence[str]) -> Splits:
    """Cut samples into calibration, at most a third, and selection and test, which share the rest."""
    share = min(1 / 3, calibration / len(samples))
    parts = cut(
        samples,
        {"calibration": share, "selection": (1 - share) / 2, "test": (1 - share) / 2},
        stream(seed, "study", "splits"),
    )
    said = ("calibration, selection and test samples were drawn from what was given",) if not notes else tuple(notes)
    return make_splits(None, parts["calibration"], parts["selection"], parts["test"], said, drop=True)


def _data(ports: Sequence[Port], given: Given, data: Path) -> tuple[Samples, list[str]]:
    spec = None if given.preprocess is None else load_spec(ImagePreprocessing, given.preprocess)
    if data.is_dir():
        if spec is None:
            raise InputError(
                "pictures need to be told how they become the model's input",
                hint="--preprocess pre.yaml with, say, `size: [224, 224]`, `mean: [...]`, `std: [...]`",
            )
        if len(ports) != 1 or len(ports[0].shape) != 4:
            raise InputError(
                "pictures are for a model of one input of four axes",
                found=", ".join(f"{port.name} {_show(port)}" for port in ports),
                hint="give an npz whose keys are the inputs",
            )
        array, paths, notes = read_pictures(data, spec, spec.layout or _layout(ports[0]))
        array = array.astype(ports[0].kind)
        _check_array(ports[0], array, str(given.preprocess))
        target = picture_labels(data, paths, given.labels, spec.classes)
        return Samples({ports[0].name: array}, target), notes
    if not data.exists():
        near = [entry.name for entry in data.parent.iterdir()] if data.parent.is_dir() else []
        raise InputError("no such folder or file", file=str(data), hint=did_you_mean(data.name, near))
    arrays = _arrays(data, ports)
    count = len(next(iter(arrays.values())))
    classes = None if spec is None else spec.classes
    target = None if given.labels is None else read_label_column(given.labels, count, classes)
    return Samples(arrays, target), []


def _layout(port: Port) -> Literal["nchw", "nhwc"]:
    return "nhwc" if port.shape[-1] in (1, 3) and port.shape[1] not in (1, 3) else "nchw"


def _arrays(path: Path, ports: Sequence[Port]) -> dict[str, Array]:
    """Read the inputs from an npz; one nameless array can only be the one input."""
    found = dict(read_arrays(path))
    names = [port.name for port in ports]
    if len(names) == 1 and len(found) == 1 and names[0] not in found:
        found = {names[0]: next(iter(found.values()))}
    arrays = {}
    for port in ports:
        if port.name not in found:
            raise InputError(
                f"no key '{port.name}', which the model reads",
                file=str(path),
                found=", ".join(found),
                hint=did_you_mean(port.name, found),
            )
        array = np.asarray(found[port.name])
        whole = port.kind.startswith(("int", "uint", "bool"))
        if array.dtype.kind not in ("iub" if whole else "fiub"):
            raise InputError(
                f"the key '{port.name}' holds another kind of numbers",
                file=str(path),
                found=str(array.dtype),
                allowed=port.kind,
            )
        arrays[port.name] = array.astype(port.kind)
        _check_array(port, arrays[port.name], str(path))
    if len({len(array) for array in arrays.values()}) > 1:
        sizes = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise InputError("the arrays differ in their number of samples", file=str(path), found=sizes)
    return arrays


def _check_array(port: Port, array: Array, file: str) -> None:
    fits = array.ndim == len(port.shape) and all(
        size is None or size == have for size, have in zip(port.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise InputError(
            f"the samples do not fit the input '{port.name}'",
            file=file,
            found=str(list(array.shape)),
            allowed=_show(port),
        )


def _show(port: Port) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in port.shape) + "]"


def _random(deployed: Deployed, shapes: Shapes, path: Path, seed: int) -> tuple[Samples, list[str]]:
    """Draw random inputs; sizes that the file does not say are tried until it runs."""
    notes = ["inputs are random: normal numbers, and zeros and ones where the model reads integers"]
    reason = ""
    for size in _SIZES:
        generator = stream(seed, "study", "random")
        tried = {port.name: shapes.get(port.name) or _filled(port, size) for port in deployed.inputs}
        arrays = {port.name: _draw(port, tried[port.name], 3 * _RANDOM, generator) for port in deployed.inputs}
        try:
            deployed.run({name: array[: _fixed(deployed) or 1] for name, array in arrays.items()})
        except Exception as error:  # onnxruntime's own kinds of error have no common class
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            continue
        unknown = [
            f"{port.name} {list(tried[port.name])}"
            for port in deployed.inputs
            if None in port.shape[1:] and port.name not in shapes
        ]
        if unknown:
            notes.append(f"sizes that the file leaves open were taken as {', '.join(unknown)}; --shape sets them")
        return Samples(arrays), notes
    listed = ", ".join(f"{port.name} {_show(port)}" for port in deployed.inputs)
    example = f"--shape {deployed.inputs[0].name}=3,48,320" if deployed.inputs else None
    raise InputError(
        f"the model runs with none of the sizes that were tried: {reason}",
        file=str(path),
        found=f"inputs {listed}",
        hint=f"say the size of a sample: {example}",
    )


def _filled(port: Port, size: int) -> tuple[int, ...]:
    """Fill in the sizes that a file leaves open; a channel axis has 3."""
    channels = 1 if _layout(port) == "nchw" else 3
    return tuple(
        known if known is not None else 3 if len(port.shape) == 4 and axis == channels else size
        for axis, known in enumerate(port.shape)
    )[1:]


def _draw(port: Port, shape: tuple[int, ...], count: int, generator: np.random.Generator) -> Array:
    if port.kind.startswith("float"):
        return generator.standard_normal((count, *shape), np.float32).astype(port.kind)
    return generator.integers(0, 2, (count, *shape)).astype(port.kind)


def _fixed(deployed: Deployed) -> int | None:
    sizes = {port.shape[0] for port in deployed.inputs if port.shape}
    return sizes.pop() if len(sizes) == 1 else None


def _batch(deployed: Deployed, samples: Samples, path: Path) -> tuple[int | None, list[str]]:
    """Find out which batches the model takes; return the only size, or None for any, and a note."""
    stated = _fixed(deployed)
    if stated is not None:
        return stated, [f"the file takes batches of {stated} alone: there is no offline scenario"]

    def run(count: int) -> None:
        deployed.run(samples.take(np.arange(count) % len(samples)).inputs)

    try:
        run(1)
    except Exception as error:  # as above
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the model does not run on the samples: {reason}", file=str(path)) from None
    try:
        run(2)
    except Exception:  # a batch that was written down somewhere inside
        return 1, ["the model runs with one sample at a time alone: there is no offline scenario"]
    return None, []


def _task(deployed: Deployed, samples: Samples, fixed: int | None, *, labelled: bool) -> Task:
    """Choose what is judged: the first output of floats; classes where it has two axes, or three as of sequences."""
    count = fixed or 1
    found = deployed.run(samples.take(np.arange(count) % len(samples)).inputs)
    floats = [name for name, array in found.items() if array.dtype.kind == "f"]
    if not floats:
        raise InputError(
            "the model has no output of floats, and only such can be judged",
            file=str(deployed.path),
            found=", ".join(f"{name} {array.dtype}" for name, array in found.items()),
        )
    array = found[floats[0]]
    if array.ndim == 0 or len(array) != count:
        raise InputError(
            f"the output '{floats[0]}' has not the samples on its first axis",
            file=str(deployed.path),
            found=str(list(array.shape)),
            allowed=f"{count} samples",
        )
    classes = (array.ndim in (2, 3) and array.shape[-1] > 1) or (labelled and array.ndim <= 2)
    return Task(floats[0], "classes" if classes else "numbers", labelled)


def _check_labels(deployed: Deployed, splits: Splits, task: Task, fixed: int | None) -> None:
    samples = splits.selection
    array = deployed.run(samples.take(np.arange(fixed or 1) % len(samples)).inputs)[task.output]
    if array.ndim > 2:
        raise InputError(
            f"labels are for a model of classes, and the output '{task.output}' has more axes",
            found=str(list(array.shape)),
            allowed="[samples, classes]",
        )
    width = array.shape[-1] if array.ndim == 2 and array.shape[-1] > 1 else 2
    for part in (splits.selection, splits.test):
        if part.target is not None and part.target.max() >= width:
            raise InputError(
                "a label is no class of the model",
                found=str(part.target.max()),
                allowed=f"0 .. {width - 1}",
                hint="name the classes in the order of the output: `classes: [...]` in --preprocess",
            )


def read_shapes(words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read ``x=3,48,320`` settings. Raises `InputError`."""
    shapes = {}
    for word in words:
        name, equals, text = word.rpartition("=")
        sizes = [part.strip() for part in text.split(",")]
        if not equals or not name or not all(part.isdecimal() and int(part) > 0 for part in sizes):
            raise InputError("a shape is written input=3,48,320, the batch left out", file="--shape", found=word)
        shapes[name] = tuple(map(int, sizes))
    return shapes
