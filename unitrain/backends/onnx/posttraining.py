"""Static int8 after training: ranges from calibration samples, QuantizeLinear and DequantizeLinear in the file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import ModelProto

from unitrain.backends.onnx.deployed import Array
from unitrain.backends.onnx.repair import quiet, refuse_per_channel, refuse_quantised
from unitrain.spec.errors import InputError

Calibration = Literal["minmax", "entropy", "percentile"]
_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


@dataclass(frozen=True)
class Static:
    """How a model is quantised.

    Parameters
    ----------
    per_channel
        A scale for each output channel of a weight, or one for all.
    calibration
        How the range of an activation is taken from the samples.
    signed_weights
        Weights in int8 (U8S8), or in uint8 (U8U8) as for CPUs whose products of mixed signs saturate.
    reduce_range
        Weights of 7 bits, with which such products cannot saturate.
    exclude
        Names of nodes that stay float.
    only
        Names of the nodes that are quantised; None for all.
    """

    per_channel: bool = True
    calibration: Calibration = "minmax"
    signed_weights: bool = True
    reduce_range: bool = False
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None


def static_int8(
    model: ModelProto,
    batches: Sequence[Mapping[str, Array]],
    options: Static,
    ranges: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> ModelProto:
    """Quantise a model that `repair` has prepared.

    Parameters
    ----------
    batches
        Calibration samples, inputs by name.
    ranges
        A file for the ranges found: read where it is there, written where it is not.
    progress
        Told how many batches have gone through the model, where they have to.

    Raises
    ------
    InputError
        The model is quantised already, its opset knows no channels, or onnxruntime's quantiser fails on it.
    """
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    from unitrain.backends.onnx.qdq import write_qdq

    refuse_quantised(model)
    if options.per_channel:
        refuse_per_channel(model)
    types = sorted({*QLinearOpsRegistry, *QDQRegistry})
    with tempfile.TemporaryDirectory() as folder, quiet():
        # From a file: a model in memory would lose its weights to a file that is gone afterwards.
        source = Path(folder) / "float.onnx"
        onnx.save_model(model, str(source))

        def written(extra: Mapping[str, Any]) -> ModelProto:
            return write_qdq(
                load_model_with_shape_infer(source),
                found,
                per_channel=options.per_channel,
                operator_types=types,
                only=options.only or (),
                exclude=options.exclude,
                signed_weights=options.signed_weights,
                reduce_range=options.reduce_range,
                extra=extra,
            )

        try:
            found = _calibrated(source, batches, options.calibration, types, ranges, progress)
            try:
                return written({})
            except ValueError:
                # Widening the scales of channels that are nearly 0 fails on products whose bias has several axes.
                return written({"QDQDisableWeightAdjustForInt32Bias": True})
        except Exception as error:  # its own kinds of error
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"onnxruntime's quantiser fails on it: {reason}") from None


def _calibrated(
    source: Path,
    batches: Sequence[Mapping[str, Array]],
    method: Calibration,
    types: list[str],
    kept: Path | None,
    progress: Callable[[int], None],
) -> Any:
    """Return the ranges of all activations over the batches, from the file ``kept`` if they were found before."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.quantize import load_tensors_data, save_tensors_data

    if kept is not None and kept.is_file():
        return load_tensors_data(kept)
    calibrator = create_calibrator(
        source,
        types,
        augmented_model_path=str(source.with_name("augmented.onnx")),
        calibrate_method=getattr(CalibrationMethod, _METHODS[method]),
    )
    reader = _Reader(batches, progress)
    # Histograms are made of whole activations, of so many batches at a time; for ranges the extremes are enough.
    piece = max(len(batches), 1) if method == "minmax" else max(n for n in (1, 2, 3, 4) if len(batches) % n == 0)
    for start in range(0, len(batches), piece):
        reader.set_range(start, start + piece)
        calibrator.collect_data(reader)
    found = calibrator.compute_data()
    if kept is not None:
        save_tensors_data(found, kept)
    return found


class _Reader:
    """Hands batches to the quantiser, one after another."""

    def __init__(self, batches: Sequence[Mapping[str, Array]], progress: Callable[[int], None]) -> None:
        self._batches = batches
        self._progress = progress
        self._taken = 0
        self.rewind()

    def __len__(self) -> int:
        return len(self._batches)

    def rewind(self) -> None:
        """Begin anew."""
        self._left: Iterator[Mapping[str, Array]] = iter(self._batches)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None at the end."""
        batch = next(self._left, None)
        # A batch has gone through when the next one is asked for.
        self._progress(self._taken)
        self._taken += batch is not None
        return None if batch is None else dict(batch)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with some of the batches alone."""
        self._left = iter(self._batches[start_index:end_index])
