"""The one writer of files of integers: onnxruntime's quantiser, with ranges that training or calibration gave."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from onnx import ModelProto, helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from unitrain.backends.onnx.repair import quiet


def write_qdq(
    model: ModelProto,
    ranges: TensorsData,
    *,
    per_channel: bool,
    operator_types: Sequence[str],
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    signed_weights: bool = True,
    reduce_range: bool = False,
    tensors: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> ModelProto:
    """Put ``QuantizeLinear`` and ``DequantizeLinear`` around operators, activations in uint8.

    Parameters
    ----------
    model
        A float model with weights among the initializers; changed in place.
    ranges
        Of the activations; one without a range stays in floats.
    per_channel
        A scale for each output channel of a weight, or one for all.
    operator_types, only, exclude
        What is quantised: operators of these types; of them those named, or all if none is; and those that are not.
    signed_weights, reduce_range
        Weights in int8 or uint8; of 7 bits.
    tensors
        Activations that are rounded whoever reads them.
    extra
        The quantiser's own options.
    """
    weight_type = QuantType.QInt8 if signed_weights else QuantType.QUInt8
    with quiet():
        quantizer = _GivenRanges(
            model,
            per_channel,
            reduce_range,
            weight_type,
            QuantType.QUInt8,
            ranges,
            list(only),
            list(exclude),
            list(operator_types),
            dict(extra or {}),
        )
        for name in tensors:
            quantizer.quantize_activation_tensor(name)
        quantizer.quantize_model()
    result: ModelProto = quantizer.model.model
    _keep_in_floats(result, exclude)
    return result


def _keep_in_floats(model: ModelProto, names: Collection[str]) -> None:
    """Let these operators be computed in floats even between others that are not.

    Since 1.21 onnxruntime's optimiser (``WeightBiasQuantization``) quantises the kernel of a product by itself where it
    finds its input dequantised and its result quantised. It does not look through a sum of one.
    """
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in [node for node in model.graph.node if node.name in names]:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and node.input[0] in dequantised:
            held = f"{node.name}.float"
            place = next(number for number, other in enumerate(model.graph.node) if other.name == node.name)
            model.graph.node.insert(place, helper.make_node("Sum", [node.input[0]], [held], name=held))
            node.input[0] = held


class _GivenRanges(QDQQuantizer):  # type: ignore[misc]  # onnxruntime has no types
    """Leaves tensors without a range in floats, which onnxruntime's refuses."""

    def quantize_activation_tensor(self, tensor_name: str) -> None:
        """Mark a tensor that has a range or is a weight."""
        if tensor_name in self.quantization_params or tensor_name in self.initializers:
            super().quantize_activation_tensor(tensor_name)
