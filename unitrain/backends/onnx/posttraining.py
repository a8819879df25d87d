"""Static int8 after training: ranges from calibration samples, QuantizeLinear and DequantizeLinear in the file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
    model: ModelProto, batches: Sequence[Mapping[str, Array]], options: Static, ranges: Path | None = None
) -> ModelProto:
    """Quantise a model that `repair` has prepared.

    Parameters
    ----------
    batches
        Calibration samples, inputs by name.
    ranges
        A file for the ranges found: read where it is there, written where it is not.

    Raises
    ------
    InputError
        The model is quantised already, its opset knows no channels, or onnxruntime's quantiser fails on it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    refuse_quantised(model)
    if options.per_channel:
        refuse_per_channel(model)
    given: dict[str, Any] = {
        "quant_format": QuantFormat.QDQ,
        "per_channel": options.per_channel,
        "reduce_range": options.reduce_range,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8 if options.signed_weights else QuantType.QUInt8,
        "nodes_to_quantize": None if options.only is None else list(options.only),
        "nodes_to_exclude": list(options.exclude),
        "calibrate_method": getattr(CalibrationMethod, _METHODS[options.calibration]),
        "calibration_cache_path": ranges,
    }
    # Histograms are made of whole activations, of so many batches at a time; for ranges the extremes are enough.
    piece = max(count for count in (1, 2, 3, 4) if len(batches) % count == 0)
    extra: dict[str, Any] = {} if options.calibration == "minmax" else {"CalibStridedMinMax": piece}
    with tempfile.TemporaryDirectory() as folder, quiet():
        # From a file: a model in memory would lose its weights to a file that is gone afterwards.
        source, target = str(Path(folder) / "float.onnx"), str(Path(folder) / "static.onnx")
        onnx.save_model(model, source)
        try:
            try:
                quantize_static(source, target, _Reader(batches), extra_options=extra, **given)
            except ValueError:
                # Widening the scales of channels that are nearly 0 fails on products whose bias has several axes.
                extra["QDQDisableWeightAdjustForInt32Bias"] = True
                quantize_static(source, target, _Reader(batches), extra_options=extra, **given)
        except Exception as error:  # its own kinds of error
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"onnxruntime's quantiser fails on it: {reason}") from None
        return onnx.load(target)


class _Reader:
    """Hands batches to the quantiser, one after another."""

    def __init__(self, batches: Sequence[Mapping[str, Array]]) -> None:
        self._batches = batches
        self.rewind()

    def __len__(self) -> int:
        return len(self._batches)

    def rewind(self) -> None:
        """Begin anew."""
        self._left: Iterator[Mapping[str, Array]] = iter(self._batches)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None at the end."""
        batch = next(self._left, None)
        return None if batch is None else dict(batch)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with some of the batches alone."""
        self._left = iter(self._batches[start_index:end_index])
