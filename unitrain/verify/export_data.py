"""The preprocessing of a run as an ONNX model takes it, and exports with it held to `TrainedRun.predict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Arrays
from unitrain.backends.precision import stored_in
from unitrain.data.encoders import CategoryEncoder, Encoder, IntegerEncoder, NumericEncoder, PixelEncoder, TextEncoder
from unitrain.data.raw import Raw
from unitrain.data.sources import read_source
from unitrain.data.targets import NumberTarget
from unitrain.spec.errors import InputError
from unitrain.train.inference import TrainedRun
from unitrain.verify.export import (
    BATCHES,
    DEFAULT_OPSETS,
    ExportResult,
    Run,
    Written,
    in_batches,
    sample_count,
    write_checked,
)
from unitrain.verify.export_files import check_place
from unitrain.verify.runner import Cast
from unitrain.verify.verdict import Verdict, judge

if TYPE_CHECKING:
    from unitrain.backends.onnx import preprocessing as described

Array = npt.NDArray[Any]


def export_with_preprocessing(
    trained: TrainedRun, path: Path, *, opset: int | None = None, replace: bool = False
) -> ExportResult:
    """Write a run as an ONNX model that takes raw columns, and hold it to what the run predicts of its own raw data.

    Raises
    ------
    InputError
        The recipe's data is not there, a step cannot be said in ONNX, or as for `export_checked`.
    """
    from unitrain.backends import load_backend

    if trained.preprocessing.window is not None:
        raise InputError(
            "the samples of a series are cut from its rows, which an ONNX model cannot do by itself",
            hint="leave out --with-preprocessing; preprocessing.json says how inputs are scaled",
        )
    check_place(path, "onnx", replace=replace)
    load_backend("onnx")
    from unitrain.backends.onnx import export

    raw = raw_samples(trained)
    description = describe(trained, raw)
    graph, weights = trained.loaded.graph, trained.program.weights()
    names = [*graph.outputs]
    names += [name for kinds in description.output_names(graph).values() for name in kinds.values()]

    def write(place: Path) -> Written:
        export.write_onnx(
            graph,
            weights,
            place,
            opset=opset or DEFAULT_OPSETS["unitrain"],
            precision=stored_in(trained.loaded.recipe.training.precision),
            preprocessing=description,
        )
        return Written(lambda: export.load_onnx(place, names))

    compared = _Compared.of(trained, raw, description)
    return write_checked(path, "onnx", write, compared.judge)


def raw_samples(trained: TrainedRun) -> Raw:
    """Read the recipe's raw data and return a few samples, from all over it: of the validation part if it is a file."""
    recipe = trained.loaded.recipe
    parts, _ = read_source(recipe.data, trained.loaded.folder)
    raw = parts.get("validation", parts["train"])
    count = sample_count(trained.loaded.graph, len(raw))
    return raw.take(np.unique(np.linspace(0, len(raw) - 1, count).astype(np.int64)))


def describe(trained: TrainedRun, raw: Raw) -> described.Preprocessing:
    """Say in plain values what the run's preprocessing does; ``raw`` tells the shapes of the features."""
    from unitrain.backends.onnx import preprocessing as to

    graph, state = trained.loaded.graph, trained.preprocessing
    inputs = {}
    for name, given in state.inputs.items():
        sizes = [lookup.rows for lookup in graph.lookups if lookup.source == name]
        inputs[name] = tuple(
            to.Feature(feature.name, _step(feature.name, feature.encoder, raw, min(sizes, default=None), trained))
            for feature in given.features
        )
    return to.Preprocessing(inputs, {output: _target(trained, output) for output in graph.outputs})


def _step(name: str, encoder: Encoder, raw: Raw, table: int | None, trained: TrainedRun) -> described.Step:
    """Describe one encoder; ``table`` is the number of rows of the smallest embedding that it indexes."""
    from unitrain.backends.onnx import preprocessing as to

    values = raw.features[name]
    shape = tuple(int(size) for size in values.shape[1:])
    match encoder:
        case NumericEncoder():
            return to.Numbers(encoder.shift, encoder.scale, encoder.fill, shape)
        case IntegerEncoder():
            return to.Integers(shape=shape) if table is None else to.Integers(0, table, shape)
        case PixelEncoder():
            std = np.array(encoder.std)
            divisor = (encoder.white * std).astype(np.float32)
            offset = (np.array(encoder.mean) / std).astype(np.float32)
            shape = (encoder.height, encoder.width, len(encoder.mean))
            return to.Pixels(tuple(map(float, divisor)), tuple(map(float, offset)), shape)
        case CategoryEncoder():
            codes = {category: code for code, category in enumerate(encoder.categories)}
            absent = -1 if encoder.fill is None else codes[encoder.fill]
            codes |= {word: absent for word in ("", *trained.preprocessing.missing_values) if word not in codes}
            unseen = len(encoder.categories) if encoder.unseen == "ignore" else -1
            if encoder.method == "ordinal" and table is not None and unseen >= table:
                unseen = -1
            return to.Categories(codes, len(encoder.categories), encoder.method == "one_hot", unseen)
        case TextEncoder():
            raise InputError(
                f"'{name}' is text, and cutting text into tokens cannot be said in ONNX",
                hint="export without the preprocessing: the model takes numbers of tokens",
            )


def _target(trained: TrainedRun, output: str) -> described.Target:
    """Describe the way back of one output, as `TrainedRun.readable` goes it."""
    from unitrain.backends.onnx import preprocessing as to

    losses, state = trained.loaded.losses, trained.preprocessing
    shape = trained.loaded.graph.shape(trained.loaded.graph.outputs[output])
    loss = losses[output].loss.type if output in losses else None
    classes = state.classes().get(output)
    if loss == "cross_entropy" and len(shape) == 1:
        names = [str(label) for label in classes or range(shape[0])]
        return to.ClassNames((*names, *(f"class {index}" for index in range(len(names), shape[0]))))
    if loss == "binary_cross_entropy" and int(np.prod(shape)) == 1:
        names = [str(label) for label in classes or (0, 1)]
        return to.ClassNames((names[0], names[-1]), binary=True)
    target = state.targets.get(output)
    if loss == "binary_cross_entropy" and len(shape) == 1:
        return to.Labels(trained.label_names(output, shape[0]))
    return to.Units(target.shift, target.scale) if isinstance(target, NumberTarget) else to.Units()


def onnx_inputs(raw: Raw, description: described.Preprocessing) -> dict[str, Array]:
    """Bring raw features into the kinds that the exported model takes."""
    from unitrain.backends.onnx import preprocessing as to

    inputs: dict[str, Array] = {}
    for feature in (feature for features in description.inputs.values() for feature in features):
        values = raw.features[feature.name]
        match feature.step:
            case to.Categories():
                words: Any = ["" if word is None else str(word) for word in values]
                inputs[feature.name] = np.array(words, dtype=object)
            case to.Pixels(shape=shape):
                if values.dtype != np.uint8:
                    raise InputError(
                        f"the pixels of '{feature.name}' are no bytes", file=raw.origin.file, found=str(values.dtype)
                    )
                inputs[feature.name] = values.reshape(len(values), *shape)
            case _:
                inputs[feature.name] = values.astype(np.float64)
    return inputs


@dataclass(frozen=True)
class _Compared:
    """Raw samples and what is expected of them.

    Parameters
    ----------
    inputs
        As the exported model takes them.
    kept
        Which of the samples `TrainedRun.predict` predicts; of the others the model must give NaN and no word.
    reference, yardsticks
        Of those kept: the model's outputs and the added ones, by name.
    words
        Names of the added outputs that hold words, with that of their probabilities.
    """

    inputs: Arrays
    kept: npt.NDArray[np.bool_]
    reference: Mapping[str, Array]
    yardsticks: tuple[Mapping[str, Array], ...]
    words: Mapping[str, tuple[str, tuple[str, ...]]]

    @classmethod
    def of(cls, trained: TrainedRun, raw: Raw, description: described.Preprocessing) -> _Compared:
        """Predict the samples as the run does, in float64 and with what tells how much rounding loses."""
        graph, weights = trained.loaded.graph, trained.program.weights()
        raw = Raw(raw.features, {}, raw.origin, np.arange(len(raw)), white=raw.white)
        kept = np.array([_predictable(trained, raw, row) for row in range(len(raw))])
        if not kept.any():
            raise InputError("the run predicts none of the rows that were tried", file=raw.origin.file)
        prepared = trained.preprocessing.apply(raw.take(kept)).inputs
        cast = Cast.of({}, stored_in(trained.loaded.recipe.training.precision), 0)
        predicted = []
        for runner in (cast.reference, *cast.yardsticks):
            outputs = runner.program("model", graph, weights).predict(prepared, max(BATCHES))
            predicted.append({**outputs, **_readable(trained, description, outputs)})
        words = {}
        for output, names in description.output_names(graph).items():
            if "prediction" in names and "probabilities" in names:
                target: Any = description.targets[output]
                words[names["prediction"]] = (names["probabilities"], target.names)
        return cls(onnx_inputs(raw, description), kept, predicted[0], tuple(predicted[1:]), words)

    def judge(self, run: Run) -> dict[str, Verdict]:
        """Run the model with each size of batch and judge every output."""
        verdicts: dict[str, Verdict] = {}
        for size in BATCHES:
            found, count = in_batches(run, self.inputs, size)
            kept = self.kept[:count]
            there = int(kept.sum())
            for name, values in found.items():
                label = f"{name}, batch of {size}"
                if name in self.words:
                    verdicts[label] = self._judge_words(name, values, kept)
                elif not _refused(values[~kept]):
                    verdicts[label] = Verdict(False, np.inf, np.inf, 1.0, "rows that the run leaves out are predicted")
                elif there:
                    others = (other[name][:there] for other in self.yardsticks)
                    verdicts[label] = judge(values[kept], self.reference[name][:there], *others)
        return verdicts

    def _judge_words(self, name: str, words: Array, kept: npt.NDArray[np.bool_]) -> Verdict:
        """Judge class names: those of the reference, or where two are all but equal the other."""
        if any(word != "" for word in words[~kept]):
            return Verdict(False, np.inf, np.inf, 1.0, "rows that the run leaves out are predicted")
        probabilities, names = self.words[name]
        right = self.reference[probabilities][: int(kept.sum())]
        for row, word in enumerate(words[kept]):
            chosen = [right[row, code] for code, known in enumerate(names) if known == word]
            if not chosen or max(chosen) < right[row].max() - 1e-5:
                wanted = names[int(right[row].argmax())]
                return Verdict(False, np.inf, np.inf, 1.0, f"'{word}' at row {row}, not '{wanted}'")
        return Verdict(True, 0.0, 0.0, 1.0)


def _predictable(trained: TrainedRun, raw: Raw, row: int) -> bool:
    """Tell whether the run predicts a row, or leaves it out or refuses it."""
    one = raw.take(np.array([row]))
    try:
        trained.preprocessing.apply(trained.preprocessing.without_missing(one)[0])
    except InputError:
        return False
    return True


def _refused(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.isnan(values).all())


def _readable(trained: TrainedRun, description: described.Preprocessing, outputs: Arrays) -> dict[str, Array]:
    """Return what `TrainedRun.predict` makes of outputs, joined to the arrays that the exported model gives."""
    found: dict[str, Array] = {}
    for output, names in description.output_names(trained.loaded.graph).items():
        columns = trained.readable(output, outputs[output].astype(np.float64))
        target: Any = description.targets[output]
        if "probabilities" in names:
            shares = [columns.get(f"probability.{name}") for name in target.names]
            if shares[0] is None:  # of two classes only the second is given
                shares[0] = 1.0 - columns[f"probability.{target.names[-1]}"]
            found[names["probabilities"]] = np.stack([share for share in shares if share is not None], axis=1)
        else:
            values = [column for label, column in columns.items() if label.startswith("prediction")]
            found[names["prediction"]] = values[0] if len(values) == 1 else np.stack(values, axis=1)
    return found
