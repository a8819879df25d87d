"""Using a trained run: measuring it, and predicting with it, on any backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Program
from unitrain.data.dataset import Split as DataSplit
from unitrain.data.load import apply_stored
from unitrain.data.preprocess import Preprocessing
from unitrain.data.targets import TagTarget
from unitrain.spec.errors import InputError, unknown_name
from unitrain.train.evaluation import Evaluator, predict
from unitrain.train.measures import Measures
from unitrain.train.recipe import LoadedRecipe
from unitrain.train.run_folder import RunFolder
from unitrain.train.session import Place, batchable, load_run, prepare_data, settings
from unitrain.weights.store import load_weights, write_atomically

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Predictions:
    """Columns of one value a sample, and what a user should know: dropped rows, resized images."""

    columns: Mapping[str, npt.NDArray[Any]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TrainedRun:
    """A run folder with its kept weights, compiled for inference."""

    folder: RunFolder
    loaded: LoadedRecipe
    place: Place
    program: Program
    preprocessing: Preprocessing

    @classmethod
    def open(cls, path: str | Path, *, backend: str | None = None, device: str | None = None) -> TrainedRun:
        """Read a run folder and compile its model, on another backend if named. Raises `InputError`."""
        folder = RunFolder.open(Path(path))
        loaded = load_run(folder)
        place = Place.choose(loaded, backend, device)
        weights = load_weights(folder.weights, loaded.graph)
        program = place.backend.compile(loaded.graph, weights, settings(loaded, place))
        preprocessing = Preprocessing.from_plain(folder.read_json(folder.preprocessing))
        return cls(folder, loaded, place, program, preprocessing)

    def evaluate(
        self, part: str = "test", data: Path | None = None, *, each_series: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """Measure a part of the recipe's data, or a file; return the number of samples and the values.

        Among the values of a series is ``seasonal_naive``: what that forecast is worth. With ``each_series`` there is
        ``series`` too: the same of each of many series by its name, and its number of ``samples``.

        Raises
        ------
        InputError
            The part is empty, or the file does not fit or holds no targets, or no series to be told apart.
        """
        if data is not None:
            split = apply_stored(self.preprocessing, data, targets="needed").data
        else:
            if part not in PARTS:
                raise unknown_name("part", part, PARTS)
            prepared = prepare_data(self.loaded, self.preprocessing)
            found = getattr(prepared, part)
            if found is None:
                present = [name for name in PARTS if getattr(prepared, name) is not None]
                raise InputError(f"the recipe's data has no {part} part", allowed=", ".join(present))
            split = found
        batch = batchable(split)
        size = self.loaded.recipe.training.evaluation_batch_size
        evaluator = Measures.of(self.loaded, self.preprocessing).evaluator(size)
        values = evaluator.evaluate(self.program, batch)
        if set(split.naive) == set(self.loaded.losses):
            values["seasonal_naive"] = evaluator.measure(split.naive, batch)
        if each_series:
            values["series"] = self._each_series(split, evaluator)
        return len(batch), values

    def _each_series(self, split: DataSplit, evaluator: Evaluator) -> dict[str, dict[str, Any]]:
        if split.series is None:
            raise InputError("the data is not of many series", hint="`series: COLUMN` in a source of type series")
        predictions = predict(self.program, split.inputs, evaluator.batch_size)
        found = {}
        for name in dict.fromkeys(split.series):
            rows = np.flatnonzero(split.series == name)
            one = replace(
                batchable(split),
                inputs={key: array[rows] for key, array in split.inputs.items()},
                targets={key: array[rows] for key, array in split.targets.items()},
                units={key: array[rows] for key, array in split.units.items()},
            )
            values = evaluator.measure({key: array[rows] for key, array in predictions.items()}, one)
            if set(split.naive) == set(self.loaded.losses):
                naive = {key: array[rows] for key, array in split.naive.items()}
                values["seasonal_naive"] = evaluator.measure(naive, one)
            found[str(name)] = {"samples": len(rows), **values}
        return found

    def predict(self, data: Path) -> Predictions:
        """Predict a file: one value a sample in each column, classes by name.

        For each output: ``prediction``, and for classes ``probability``, of the predicted and of each class; of
        several yes or no labels both of each. Targets in the file are not looked at.
        Several outputs have their names before the columns'. Where the preprocessing has dropped rows, the
        column ``row`` says which are left, counted from 0. Of a series, ``row`` is the last row that a forecast has
        seen, and each row after it has a column: ``prediction.1``, ``prediction.2``; of many series ``series`` says
        which. Tags of a text's tokens stand in
        one column, blanks between them.
        """
        applied = apply_stored(self.preprocessing, data, targets="skipped")
        split = applied.data
        size = self.loaded.recipe.training.evaluation_batch_size
        columns: dict[str, npt.NDArray[Any]] = {}
        if split.series is not None:
            columns["series"] = split.series.astype(str)
        if not np.array_equal(split.rows, np.arange(len(split))):
            columns["row"] = split.rows
        outputs = predict(self.program, split.inputs, size)
        for name, values in outputs.items():
            prefix = "" if len(outputs) == 1 else f"{name}."
            tags = self.preprocessing.targets.get(name)
            if isinstance(tags, TagTarget):
                columns[f"{prefix}prediction"] = _tag_names(tags, values, self.preprocessing.text_lengths(split))
                continue
            for label, column in self.readable(name, values.astype(np.float64), split.units.get(name)).items():
                columns[prefix + label] = column
        return Predictions(columns, applied.notes)

    def readable(
        self, name: str, values: npt.NDArray[np.float64], units: npt.NDArray[np.float64] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Turn an output's numbers into classes with probabilities, or numbers in the target's units.

        ``units`` are those of many series, as `unitrain.data.dataset.Split` has them.
        """
        loss = self.loaded.losses[name].loss.type if name in self.loaded.losses else None
        classes = self.preprocessing.classes().get(name)
        if loss == "cross_entropy" and values.ndim == 2:
            shifted = np.exp(values - values.max(axis=1, keepdims=True))
            probabilities = shifted / shifted.sum(axis=1, keepdims=True)
            names = [str(label) for label in classes or range(values.shape[1])]
            names += [f"class {index}" for index in range(len(names), values.shape[1])]
            chosen = probabilities.argmax(axis=1)
            return {
                "prediction": np.array(names)[chosen],
                "probability": probabilities.max(axis=1),
                **{f"probability.{label}": probabilities[:, index] for index, label in enumerate(names)},
            }
        if loss == "binary_cross_entropy" and values.reshape(len(values), -1).shape[1] == 1:
            probability = 0.5 * (1.0 + np.tanh(0.5 * values.reshape(-1)))
            names = [str(label) for label in classes or (0, 1)]
            chosen = (probability > 0.5).astype(int)
            return {"prediction": np.array(names)[chosen], f"probability.{names[-1]}": probability}
        if loss == "binary_cross_entropy" and (values.ndim == 2 or self.preprocessing.window is not None):
            return self._several_labels(name, 0.5 * (1.0 + np.tanh(0.5 * values.reshape(len(values), -1))))
        if loss == "cross_entropy" and values.ndim > 2:
            return {"prediction": values.argmax(axis=-1).astype(np.int32)}
        values = self.preprocessing.invert(name, values, units)
        if self.preprocessing.window is not None:
            return self._forecast(name, values)
        if values.ndim == 1 or values.shape[1:] == (1,):
            return {"prediction": values.reshape(-1)}
        if values.ndim == 2:
            return {f"prediction.{index}": values[:, index] for index in range(values.shape[1])}
        return {"prediction": values}

    def label_names(self, name: str, count: int) -> tuple[str, ...]:
        """Name the ``count`` yes or no labels of an output: by the target's columns, or by number.

        Those of a forecast as its numbers are named, in the order ``[row, column]``.
        """
        if self.preprocessing.window is not None:
            return self._forecast_names(name, count)
        state = self.preprocessing.targets.get(name)
        return state.columns if state and len(state.columns) == count else tuple(map(str, range(count)))

    def _several_labels(self, name: str, probabilities: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
        """Answer each of several yes or no questions ``[batch, label]``: 0 or 1, and the probability of 1."""
        labels = self.label_names(name, probabilities.shape[1])
        return {
            **{f"prediction.{label}": (probabilities[:, k] > 0.5).astype(np.int32) for k, label in enumerate(labels)},
            **{f"probability.{label}": probabilities[:, k] for k, label in enumerate(labels)},
        }

    def _forecast(self, name: str, values: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
        """Give each row that is forecast a column; those of one target stand together."""
        count = len(self.preprocessing.targets[name].columns)
        each = values.reshape(len(values), -1)
        names = self._forecast_names(name, each.shape[1])
        return {
            f"prediction.{names[position]}": each[:, position]
            for first in range(count)
            for position in range(first, each.shape[1], count)
        }

    def _forecast_names(self, name: str, count: int) -> tuple[str, ...]:
        """Name what is forecast, ``[row, column]``: rows counted from 1, and of several columns each by its name."""
        columns = self.preprocessing.targets[name].columns
        rows = range(1, count // len(columns) + 1)
        return tuple(f"{column}.{row}" if len(columns) > 1 else f"{row}" for row in rows for column in columns)


def _tag_names(target: TagTarget, values: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the likeliest tag of each token that a text has: strings ``[n]``."""
    # An output may be wider than there are tags.
    chosen = values[..., : len(target.classes)].argmax(axis=-1)
    return np.array(
        [
            " ".join(target.classes[code] for code in codes[:length])
            for codes, length in zip(chosen, lengths, strict=True)
        ]
    )


def write_predictions(path: Path, columns: Mapping[str, npt.NDArray[Any]], *, replace: bool = False) -> None:
    """Write predictions as CSV, Parquet or npz, by the suffix, whole or not at all.

    Raises
    ------
    InputError
        The suffix is unknown, the file is there already, or arrays of several axes do not fit a table.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".npz"):
        raise InputError("unknown kind of file", file=str(path), found=suffix, allowed=".csv, .parquet, .npz")
    if path.exists() and not replace:
        raise InputError("the file is there already", file=str(path), hint="--force replaces it")
    if not path.parent.is_dir():
        raise InputError("the folder does not exist", file=str(path.parent))
    if suffix == ".npz":
        write_atomically(path, lambda temporary: _write_npz(temporary, columns))
        return
    if any(column.ndim != 1 for column in columns.values()):
        raise InputError("predictions of several axes do not fit a table", file=str(path), hint="write an .npz")
    import pyarrow
    from pyarrow import csv, parquet

    table = pyarrow.table({name: pyarrow.array(column) for name, column in columns.items()})
    writer = csv.write_csv if suffix == ".csv" else parquet.write_table
    write_atomically(path, lambda temporary: writer(table, temporary))


def _write_npz(path: Path, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    with path.open("wb") as handle:
        # NumPy's stub takes the arrays' names for its own options.
        np.savez_compressed(handle, **columns)  # type: ignore[arg-type]
