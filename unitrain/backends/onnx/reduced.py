"""Smaller forms of a file that need no samples: dynamic int8, weights of 8 and 4 bits, 16-bit floats."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import onnx
from onnx import ModelProto

from unitrain.backends.onnx.anatomy import anatomy
from unitrain.backends.onnx.repair import gemm_to_matmul, quiet, refuse_quantised
from unitrain.spec.errors import InputError

# Dynamic convolutions become ConvInteger, which is several times slower than float.
DYNAMIC = ("MatMul", "Gemm", "LSTM", "Attention")
BLOCK = 32


def dynamic_int8(model: ModelProto, *, convolutions: bool = False) -> ModelProto:
    """Quantise weights now and activations at each call.

    Raises
    ------
    InputError
        The model is quantised already, or has nothing that is quantised so.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    refuse_quantised(model)
    wanted = (*DYNAMIC, "Conv") if convolutions else DYNAMIC
    _require(model, wanted, "dynamic int8")
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "dynamic.onnx"
        onnx.save_model(model, str(source))
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=list(wanted),
            weight_type=QuantType.QUInt8 if convolutions else QuantType.QInt8,
            # Branches and loops too, of which other quantisers know nothing.
            extra_options={"EnableSubgraph": True},
        )
        return onnx.load(str(target))


def weights_only(model: ModelProto, bits: Literal[4, 8]) -> ModelProto:
    """Store the weights of matrix products in 8 or 4 bits, in blocks of `BLOCK`; products in int8 (accuracy level 4).

    Raises
    ------
    InputError
        The model is quantised already, or has no matrix product with constant weights.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    refuse_quantised(model)
    rewritten, _ = gemm_to_matmul(model)
    _require(rewritten, ("MatMul",), f"weights of {bits} bits")
    with quiet():
        quantizer = MatMulNBitsQuantizer(rewritten, bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4)
        quantizer.process()
    done: ModelProto = quantizer.model.model
    if not anatomy(done).operators.get("MatMulNBits"):
        raise InputError("none of its matrix products has constant weights of two axes")
    return done


def half(model: ModelProto) -> ModelProto:
    """Compute in float16; inputs and outputs stay float32. Raises `InputError` when it cannot be converted."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = ModelProto()
    copied.CopyFrom(model)
    try:
        with quiet():
            converted: ModelProto = convert_float_to_float16(copied, keep_io_types=True, disable_shape_infer=False)
    except Exception as error:  # its own kinds of error
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"onnxruntime's converter cannot write it in float16: {reason}") from None
    return converted


def _require(model: ModelProto, operators: tuple[str, ...], what: str) -> None:
    products = anatomy(model).products
    if not set(operators) & products.keys():
        listed = ", ".join(f"{count} {name}" for name, count in products.items()) or "no products at all"
        raise InputError(f"{what} is for {', '.join(operators)}; the model has {listed}")
