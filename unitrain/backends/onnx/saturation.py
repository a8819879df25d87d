"""Products of unsigned by signed 8 bits as CPUs without VNNI compute them: sums of two products saturate in 16 bits.

Their instruction ``vpmaddubsw`` multiplies unsigned activations by signed weights and adds neighbouring products, the
first with the second, the third with the fourth, in 16 bits: what lies beyond -32768 to 32767 is cut off. onnxruntime's
kernels for AVX2 and AVX-512 without VNNI are built on it; those for depthwise convolutions and for unsigned weights are
not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, version_converter
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from unitrain.backends.onnx.anatomy import opset

Array = npt.NDArray[Any]

_LEAST, _MOST = -(2**15), 2**15 - 1
_DOMAIN, _OPSET = "unitrain", 19


def saturating_product(a: Array, b: Array) -> Array:
    """Multiply ``[rows, k]`` of uint8 by ``[k, columns]`` of int8; each sum of two neighbouring products saturates.

    Returns
    -------
    array
        ``[rows, columns]`` of int64.
    """
    total = _exact(a, b)
    for first in range(0, len(b) - 1, 2):
        # Only where weights are large enough can a pair saturate at all.
        pair = b[first : first + 2].astype(np.int64)
        ends = 255 * np.clip(pair, 0, None).sum(0), 255 * np.clip(pair, None, 0).sum(0)
        columns = np.flatnonzero((ends[0] > _MOST) | (ends[1] < _LEAST))
        if len(columns):
            sums = a[:, first : first + 2].astype(np.int32) @ pair[:, columns].astype(np.int32)
            total[:, columns] += np.clip(sums, _LEAST, _MOST) - sums
    return total


def is_static(model: ModelProto) -> bool:
    """Tell whether activations are rounded to ranges that are known: what `predictions` computes."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def predictions(model: ModelProto, inputs: Mapping[str, Array], *, saturate: bool) -> dict[str, Array]:
    """Run a statically quantised model by ONNX's own reference, its products in integers of ours.

    Parameters
    ----------
    model
        With ``DequantizeLinear`` before its convolutions and matrix products.
    saturate
        Whether sums of two products saturate, or everything is exact.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    # The reference knows rounding to integers from 19 on.
    copied = version_converter.convert_version(model, max(opset(model), _OPSET))
    makers = {node.output[0]: node for node in copied.graph.node if node.op_type == "DequantizeLinear"}
    for node in copied.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and all(name in makers for name in node.input[:2]):
            _replace(node, makers[node.input[0]], makers[node.input[1]], saturate)
    copied.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    ordered = ONNXModel(copied)
    ordered.topological_sort()
    names = [output.name for output in copied.graph.output]
    found = ReferenceEvaluator(ordered.model, new_ops=[SaturatingProduct]).run(names, dict(inputs))
    return dict(zip(names, map(np.asarray, found), strict=True))


def _replace(node: NodeProto, left: NodeProto, right: NodeProto, saturate: bool) -> None:
    """Let a product read integers, scales and zero points of both operands instead of floats."""
    kind, bias = node.op_type, list(node.input[2:3])
    del node.input[:]
    for side in (left, right):
        node.input.extend([*side.input, *[""] * (3 - len(side.input))])
    node.input.extend(bias)
    node.op_type, node.domain = "SaturatingProduct", _DOMAIN
    node.attribute.extend([helper.make_attribute("kind", kind), helper.make_attribute("saturate", int(saturate))])


class SaturatingProduct(OpRun):
    """A ``Conv``, ``Gemm`` or ``MatMul`` of integers, its result and bias in floats."""

    op_domain = _DOMAIN

    def _run(self, *inputs: Array, kind: str = "", saturate: int = 1, **options: Any) -> tuple[Array]:
        a, a_scale, a_zero, b, b_scale, b_zero, *bias = inputs
        zeros = _zero_point(a_zero), _zero_point(b_zero)
        # A scale for each output channel lies along one axis of the weights; products have it last.
        scale = np.asarray(a_scale, np.float64) * np.asarray(b_scale, np.float64)
        pairs = bool(saturate) and a.dtype == np.uint8 and b.dtype == np.int8
        if kind == "Conv":
            result = _convolution(a, b, zeros, pairs, **options)
        else:
            if options.get("transA"):
                a = a.T
            if options.get("transB"):
                b = b.T
            if b.ndim == 2:
                result = _product(a.reshape(-1, a.shape[-1]), b, zeros, pairs).reshape(*a.shape[:-1], b.shape[-1])
            else:
                # Two activations, both unsigned: nothing saturates.
                result = (a.astype(np.float64) - zeros[0]) @ (b.astype(np.float64) - zeros[1])
        y = result * scale * options.get("alpha", 1.0)
        if bias and bias[0] is not None:
            y = y + options.get("beta", 1.0) * bias[0]
        return (np.moveaxis(y, -1, 1).astype(np.float32) if kind == "Conv" else y.astype(np.float32),)


def _exact(a: Array, b: Array) -> Array:
    # Whole numbers below 2^53 are exact in float64, whose products are fast.
    return np.asarray(a.astype(np.float64) @ b.astype(np.float64), np.int64)


def _zero_point(given: Array | None) -> Array:
    return np.zeros((), np.int64) if given is None else np.asarray(given, np.int64)


def _product(a: Array, b: Array, zeros: tuple[Array, Array], pairs: bool) -> Array:
    """Multiply as kernels do, raw numbers first; what the zero points add is taken off afterwards."""
    total = saturating_product(a, b) if pairs else _exact(a, b)
    left, right = zeros
    rows, columns = a.sum(1, dtype=np.int64), b.sum(0, dtype=np.int64)
    return np.asarray(total - left * columns - rows[:, None] * right + len(b) * left * right)


def _convolution(
    x: Array,
    kernel: Array,
    zeros: tuple[Array, Array],
    pairs: bool,
    *,
    strides: Any = None,
    dilations: Any = None,
    pads: Any = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
    **_: Any,
) -> Array:
    """Convolve ``[n, in, ...]`` with ``[out, in / group, ...]`` to ``[n, ..., out]``; padding is the zero point."""
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    spans = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel.shape[2:], strict=True)]
    pads = _pads(x.shape[2:], spans, strides, pads, auto_pad)
    x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=int(np.max(zeros[0])))
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, x.ndim)))
    chosen = [slice(None), slice(None), *(slice(None, None, step) for step in (*strides, *dilations))]
    # [n, in, places, window] becomes [n, places, window, in]: channels of one place are neighbours.
    windows = np.moveaxis(windows[tuple(chosen)], 1, -1)
    weights = np.moveaxis(kernel, (0, 1), (-1, -2))
    inside, outside = kernel.shape[1], kernel.shape[0] // group
    right = np.broadcast_to(zeros[1], kernel.shape[0])
    results = []
    for number in range(group):
        part = windows[..., number * inside : (number + 1) * inside].reshape(
            -1, inside * int(np.prod(kernel.shape[2:]))
        )
        own = slice(number * outside, (number + 1) * outside)
        held = weights[..., own].reshape(-1, outside)
        # Depthwise kernels have instructions of their own, which sum in 32 bits.
        results.append(_product(part, held, (zeros[0], right[own]), pairs and not (group > 1 and inside == 1)))
    return np.concatenate(results, axis=-1).reshape(*windows.shape[: rank + 1], kernel.shape[0])


def _pads(sizes: Any, spans: Any, strides: Any, pads: Any, auto_pad: str) -> list[tuple[int, int]]:
    """Return how many places are added before and behind along each axis."""
    rank = len(sizes)
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        given = pads or [0] * (2 * rank)
        return list(zip(given[:rank], given[rank:], strict=True))
    found = []
    for size, span, step in zip(sizes, spans, strides, strict=True):
        whole = max((-(-size // step) - 1) * step + span - size, 0)
        few, many = whole // 2, whole - whole // 2
        found.append((few, many) if auto_pad == "SAME_UPPER" else (many, few))
    return found
