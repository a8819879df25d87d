"""The two doors of the data floor: `prepare` for a recipe, `apply_stored` for a finished run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unitrain.data import split, windows
from unitrain.data.augment import augmenter_for
from unitrain.data.dataset import Split
from unitrain.data.language import cut_parts, is_language
from unitrain.data.leaks import find_leaks
from unitrain.data.levels import Level, apply_levels, fit_levels, without_scaling
from unitrain.data.mapping import map_features, map_targets
from unitrain.data.missing import without_missing
from unitrain.data.prepared import Prepared, Report
from unitrain.data.preprocess import Preprocessing, fit, fit_targets
from unitrain.data.raw import Array, Origin, Parts, Raw, missing_mask
from unitrain.data.sources import read_source
from unitrain.data.stored import read_file
from unitrain.data.targets import ClassTarget, TargetState, are_tags, infer_task, stacked
from unitrain.spans import span
from unitrain.spec.data import DataSpec, Task
from unitrain.spec.errors import InputError
from unitrain.spec.sources import Source

_ORDER = ("train", "validation", "test")


def prepare(
    spec: DataSpec,
    folder: Path,
    inputs: Mapping[str, Any],
    targets: Sequence[str],
    task: Task | Mapping[str, Task | None] | None,
    generator: Callable[[str], np.random.Generator],
    stored: Preprocessing | None = None,
) -> Prepared:
    """Read, split, fit on the training part, and apply to all parts.

    Parameters
    ----------
    spec
        What the recipe says.
    folder
        What relative paths are relative to.
    inputs
        Model input -> something with ``.shape`` (batch left out) and ``.dtype`` (``float`` or ``integer``).
    targets
        Names of the model outputs that are trained.
    task
        For all outputs, or by output; None is inferred from the target.
    generator
        Gives the random generator for a purpose: ``split`` and ``limit`` are asked for.
    stored
        What an earlier run has fitted, to be applied instead of fitting anew.

    Raises
    ------
    InputError
        Whatever is wrong with the data, with file and row.
    """
    with span("read data"):
        parts, notes = read_source(spec, folder)
    if is_language(spec.source):
        encoder = None if stored is None else stored.text_encoder()
        vocabulary = None if encoder is None else encoder.vocabulary
        with span("split data"):
            parts, said = cut_parts(parts, spec, inputs, generator("split"), vocabulary)
        notes += said
    features = map_features(spec, parts["train"], inputs)
    columns = map_targets(spec, parts["train"], targets)
    used = dict.fromkeys(name for names in features.values() for name in names)
    _check_overrides(spec, used)
    for part, raw in parts.items():
        parts[part], dropped = without_missing(raw, used, spec.missing)
        notes += dropped
    tasks, inferred = _tasks(parts["train"], columns, task)
    if not is_language(spec.source):
        with span("split data"):
            parts = _divide(spec, parts, columns, tasks, generator("split"))
    notes += [*inferred, *_shared_groups(parts)]
    length = _text_length(parts["train"], features, inputs)
    left = without_scaling(spec)
    levels: Mapping[str, Level] = {}
    fitted: Mapping[str, TargetState] = {}
    if stored is None:
        numbers = [name for output, names in columns.items() if tasks[output] == "regression" for name in names]
        levels = fit_levels(parts["train"], spec, used, numbers)
        fitted = fit_targets(apply_levels(parts["train"], levels), columns, tasks, left, length)
    if spec.limit is not None and spec.window is not None:
        parts["train"] = windows.latest(parts["train"], spec.window, spec.limit)
    elif spec.limit is not None and spec.limit < len(parts["train"]):
        notes.append(f"limited to {spec.limit:,} of {len(parts['train']):,} training samples")
        classes = _classes(parts["train"], columns, tasks)
        parts["train"] = _limited(parts["train"], spec.limit, classes, generator("limit"))
    with span("preprocess data"):
        preprocessing, said = stored, []
        if preprocessing is None:
            train = apply_levels(parts["train"], levels)
            preprocessing, said = fit(train, left, inputs, features, fitted, levels)
        splits = {part: preprocessing.apply(raw, part=part) for part, raw in parts.items()}
    notes += _short_series(parts, splits)
    streams = any(raw.streams for raw in parts.values())
    if streams:
        notes.append(
            "the inputs stay in their files and stream from there; equal samples in two parts are not looked for"
        )
    with span("look for leaks"):
        leaks = () if streams else find_leaks(splits, parts)
    report = Report(
        counts={part: len(arrays) for part, arrays in splits.items()},
        class_counts=_class_counts(preprocessing, splits),
        leaks=leaks,
        notes=(*notes, *said),
    )
    return Prepared(
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        preprocessing,
        preprocessing.classes(),
        report,
        augmenter_for(spec.augment, preprocessing, inputs, splits["train"].targets, parts["train"].white),
    )


@dataclass(frozen=True)
class Applied:
    """A user's file as a model takes it.

    Parameters
    ----------
    data
        Inputs, and targets where the file has them and they are not skipped.
    origin
        Names the samples: ``origin.name(data.rows[i])``.
    notes
        What a user should know: dropped rows, resized images.
    """

    data: Split
    origin: Origin
    notes: tuple[str, ...]


def apply_stored(
    preprocessing: Preprocessing,
    data: str | Path | Source,
    folder: Path = Path(),
    *,
    targets: Literal["needed", "found", "skipped"] = "found",
) -> Applied:
    """Apply what a run has stored to a file, a folder of images, or any source.

    Parameters
    ----------
    preprocessing
        Of the run.
    data
        A path, read by its suffix (CSV, TSV, Parquet, npz, npy, idx, an image, a folder of images), or a
        source of one part as a recipe states it.
    folder
        What relative paths are relative to.
    targets
        ``needed``: a file without them is an error. ``found``: they are read where the file has them. ``skipped``: they
        are not looked at, so that a file of new samples may leave them blank or hold anything there; a series is read
        all the same, on from what it has been.

    Raises
    ------
    InputError
        Whatever is wrong with the file, with row.
    """
    raw, notes = read_file(preprocessing, data, folder)
    absent = [name for name in preprocessing.target_columns() if name not in raw.targets]
    if targets == "needed" and absent:
        raise InputError(
            f"the data has no target '{absent[0]}'",
            file=raw.origin.file,
            found=", ".join([*raw.features, *raw.targets]),
            hint=None if raw.origin.unit == "sample" else "a column that is blank in each row counts as none",
        )
    if targets == "skipped" and preprocessing.window is None:
        raw = replace(raw, targets={})
    raw, dropped = preprocessing.without_missing(raw)
    return Applied(preprocessing.apply(raw, ahead=targets != "needed"), raw.origin, (*notes, *dropped))


def _tasks(
    raw: Raw, columns: Mapping[str, tuple[str, ...]], task: Task | Mapping[str, Task | None] | None
) -> tuple[dict[str, Task], list[str]]:
    """Return the task of each output, inferred where it is not stated, and notes on what was inferred."""
    tasks: dict[str, Task] = {}
    notes: list[str] = []
    for output, names in columns.items():
        stated = task.get(output) if isinstance(task, Mapping) else task
        tasks[output], note = (stated, None) if stated else infer_task(raw, names)
        notes += [note] if note else []
    return tasks, notes


def _text_length(raw: Raw, features: Mapping[str, tuple[str, ...]], inputs: Mapping[str, Any]) -> int | None:
    """Return how many tokens of a text the model takes, None when it takes no text."""
    lengths = (inputs[name].shape for name, names in features.items() if any(part in raw.texts for part in names))
    return next((shape[0] for shape in lengths if len(shape) == 1), None)


def _limited(raw: Raw, count: int, classes: Array | None, generator: np.random.Generator) -> Raw:
    """Return ``count`` samples, the classes in proportion where there are classes."""
    order = split.stratified_order(np.zeros(len(raw)) if classes is None else classes, generator)
    return raw.take(np.sort(order[:count]))


def _shared_groups(parts: Parts) -> list[str]:
    """Report groups that stand in two parts, which only parts given as files can bring about."""
    owned = {part: set(raw.group) for part, raw in parts.items() if raw.group is not None}
    notes = []
    for earlier, later in itertools.combinations(owned, 2):
        shared = sorted(str(group) for group in owned[earlier] & owned[later])
        if shared:
            notes.append(f"leak: {len(shared)} groups stand in {earlier} and in {later}, such as '{shared[0]}'")
    return notes


def _short_series(parts: Parts, splits: Mapping[str, Split]) -> list[str]:
    """Report how many of many series give a part no sample, being too short."""
    notes = []
    for part, arrays in splits.items():
        series = parts[part].series
        if series is not None and arrays.series is not None:
            there, used = len(set(series)), len(set(arrays.series))
            if used < there:
                notes.append(f"{there - used:,} of {there:,} series are too short for a sample of the {part} part")
    return notes


def _divide(
    spec: DataSpec,
    parts: Parts,
    columns: Mapping[str, tuple[str, ...]],
    tasks: Mapping[str, Task],
    generator: np.random.Generator,
) -> Parts:
    """Draw the parts that the source lacks from its training part."""
    shares = split.fractions(spec.split, parts)
    raw = parts["train"]
    if len(shares) > 1 and spec.ordered():
        if raw.group is not None:
            raise InputError("ordered parts are not drawn, so a group has no meaning", field=("split", "ordered"))
        back = spec.window.length if spec.window is not None and spec.split.look_back else 0
        drawn = split.in_order(len(raw), shares, spec.split.gap, windows.stretches(raw), back)
        parts = {**parts, **{part: raw.take(index) for part, index in drawn.items()}}
    elif len(shares) > 1:
        codes = _classes(raw, columns, tasks)
        if spec.split.stratified and codes is None:
            raise InputError(
                "only classes can be stratified",
                field=("split", "stratified"),
                found="regression, or several labels a sample",
            )
        if raw.group is not None and missing_mask(raw.group).any():
            raise raw.error(int(missing_mask(raw.group).argmax()), "the sample has no group to split by")
        use = codes if spec.split.stratified is not False else None
        drawn = split.divide(len(raw), shares, generator, use, raw.group)
        parts = {**parts, **{part: raw.take(index) for part, index in drawn.items()}}
    return {part: parts[part] for part in _ORDER if part in parts}


def _classes(raw: Raw, columns: Mapping[str, tuple[str, ...]], tasks: Mapping[str, Task]) -> Array | None:
    """Return the classes ``[n]`` to stratify by: those of the first output that has one class a sample."""
    for output, names in columns.items():
        if tasks[output] == "classification" and len(names) == 1 and not are_tags(raw, names):
            values = stacked(raw, names)
            if values.ndim == 1:
                return values.astype(str) if values.dtype == object else values
    return None


def _check_overrides(spec: DataSpec, used: Mapping[str, Any]) -> None:
    for name in spec.per_column:
        if name not in used:
            raise InputError(f"no column '{name}' is a feature", field=("per_column", name), allowed=", ".join(used))


def _class_counts(preprocessing: Preprocessing, splits: Mapping[str, Split]) -> dict[str, dict[str, dict[str, int]]]:
    result: dict[str, dict[str, dict[str, int]]] = {}
    for output, state in preprocessing.targets.items():
        if isinstance(state, ClassTarget) and splits["train"].targets[output].ndim == 1:
            counts = {
                part: np.bincount(arrays.targets[output], minlength=len(state.classes))
                for part, arrays in splits.items()
            }
            result[output] = {
                name: {part: int(count[code]) for part, count in counts.items()}
                for code, name in enumerate(state.classes)
            }
    return result
