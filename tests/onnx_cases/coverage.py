"""Which operators our layers cover, and how many of their cases must pass; the table that the suite prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from textwrap import wrap

from onnx_cases import activations, attention, axes, norms, products, recurrent, shapes, training, windows
from onnx_cases.activations import plain
from onnx_cases.node_case import Outcome, Translator, judge, node_cases
from onnx_cases.shapes import joined

# Operator: how many of its cases must pass at least (those of onnx 1.23), and the ways to express it.
OPERATORS: dict[str, tuple[int, tuple[Translator, ...]]] = {
    "Conv": (6, (windows.conv, windows.depthwise_conv, windows.separable_conv)),
    "ConvTranspose": (9, (windows.conv_transpose,)),
    "MaxPool": (19, (windows.max_pool,)),
    "AveragePool": (16, (windows.average_pool,)),
    "GlobalAveragePool": (2, (windows.global_average_pool,)),
    "GlobalMaxPool": (2, (windows.global_max_pool,)),
    "ReduceMean": (8, (axes.reduced("mean"), windows.reduce_mean)),
    "ReduceMax": (8, (axes.reduced("max"), windows.reduce_max)),
    "ReduceSum": (10, (axes.reduced("sum"),)),
    "Slice": (6, (axes.slice_axes,)),
    "Split": (12, (axes.split,)),
    "GatherND": (3, (axes.gather_nd,)),
    "Sub": (9, (joined("subtract"),)),
    "Div": (3, (axes.quotient,)),
    "Pow": (1, (axes.power,)),
    "Reciprocal": (2, (axes.with_number("power", exponent=-1.0),)),
    "Sqrt": (2, (axes.with_number("power", exponent=0.5),)),
    "Neg": (2, (axes.with_number("scale", factor=-1.0),)),
    "Einsum": (2, (axes.einsum,)),
    "Attention": (9, (attention.attention,)),
    "LSTM": (5, (recurrent.recurrent("lstm"),)),
    "GRU": (2, (recurrent.recurrent("gru"),)),
    "RNN": (6, (recurrent.recurrent("simple_rnn"),)),
    "BatchNormalization": (4, (norms.batch_norm,)),
    "LayerNormalization": (19, (norms.layer_norm,)),
    "GroupNormalization": (2, (norms.group_norm,)),
    "InstanceNormalization": (2, (norms.instance_norm,)),
    "RMSNormalization": (19, (norms.rms_norm,)),
    "Gemm": (10, (products.gemm,)),
    "MatMul": (7, (products.matmul_as_dense, products.matmul_as_conv, products.matmul)),
    "Gather": (3, (products.gather,)),
    "Relu": (1, (plain("relu"),)),
    "Clip": (2, (activations.clip,)),
    "LeakyRelu": (3, (plain("leaky_relu", slope=("alpha", 0.01)),)),
    "PRelu": (2, (activations.prelu,)),
    "Elu": (3, (plain("elu", alpha=("alpha", 1.0)),)),
    "Selu": (1, (activations.selu,)),
    "Gelu": (4, (plain("gelu", approximate=("approximate", "none")),)),
    "Swish": (1, (activations.swish,)),
    "Sigmoid": (2, (plain("sigmoid"),)),
    "HardSigmoid": (3, (activations.hard_sigmoid,)),
    "HardSwish": (1, (plain("hard_swish"),)),
    "Tanh": (2, (plain("tanh"),)),
    "Softplus": (2, (plain("softplus"),)),
    "Softmax": (7, (activations.softmax,)),
    "LogSoftmax": (7, (training.log_softmax_of_losses,)),
    "Dropout": (8, (activations.dropout,)),
    "Identity": (3, (activations.identity,)),
    "Flatten": (9, (shapes.flatten,)),
    "Reshape": (9, (shapes.reshape,)),
    "Squeeze": (2, (shapes.squeeze,)),
    "Unsqueeze": (7, (shapes.unsqueeze,)),
    "Transpose": (7, (shapes.transpose,)),
    "Pad": (5, (shapes.pad,)),
    "Resize": (5, (shapes.resize_to, shapes.resize)),
    "DepthToSpace": (2, (shapes.depth_to_space,)),
    "SpaceToDepth": (4, (shapes.space_to_depth,)),
    "Upsample": (1, (shapes.resize,)),
    "Add": (8, (joined("add"),)),
    "Sum": (2, (joined("add"),)),
    "Mul": (9, (joined("multiply"), activations.layer_scale)),
    "Concat": (12, (shapes.concatenate,)),
    "SoftmaxCrossEntropyLoss": (34, (training.softmax_cross_entropy,)),
    "NegativeLogLikelihoodLoss": (18, (training.negative_log_likelihood,)),
    "Adam": (2, (training.adam,)),
    "Adagrad": (2, (training.adagrad,)),
    "Momentum": (3, (training.momentum,)),
}

# Layers that no case can be expressed in, and why.
WITHOUT_CASES = {
    "conv3d": "the cases of Conv are 2-D",
    "depthwise_conv1d": "the cases of Conv are 2-D",
    "separable_conv1d": "the cases of Conv are 2-D",
    "upsample1d": "the cases of Resize enlarge both axes of an image",
    "patch_embedding": "no case of Conv has windows as large as its strides",
    "squeeze_excite": "ONNX has no such operator",
    "stochastic_depth": "ONNX has no operator that drops samples",
    "stack": "ONNX stacks sequences of tensors alone",
    "shift": "no case of Add has a single number",
    "cosine": "ONNX has no such operator",
    "glu": "ONNX has no such operator",
    "class_token": "no case of Concat puts one row before others",
    "position_embedding": "ONNX has no such operator",
    "sinusoidal_position": "ONNX has no such operator",
    "tied_projection": "the product of a dense layer, whose cases are those of MatMul and Gemm",
    "feature_tokens": "ONNX has no such operator",
    "padding_mask": "a comparison with one number; the cases of Equal compare tensors",
    "length_mask": "ONNX has no such operator",
    "fake_quantize": "the cases of QuantizeLinear give integers, those of DequantizeLinear take them",
    "relu6": "no case of Clip has the limits 0 and 6",
}


@cache
def outcomes(operator: str) -> tuple[Outcome, ...]:
    """Run all cases of an operator."""
    return tuple(judge(case, OPERATORS[operator][1]) for case in node_cases()[operator])


# One case in the table: operator, status, reason.
Row = tuple[str, str, str]


def table(rows: Iterable[Row], width: int = 100) -> list[str]:
    """Lay out how many cases of each operator passed, were not applicable (with reasons), and failed."""
    rows = list(rows)
    totals = Counter(status for _, status, _ in rows)
    lines = [", ".join(f"{totals[status]} {status}" for status in ("passed", "not applicable", "failed"))]
    heading = f"{'operator':<26}{'passed':>7}{'n/a':>5}{'failed':>7}  reasons"
    lines.append(heading)
    indent = heading.index("reasons")
    for operator in dict.fromkeys(operator for operator, _, _ in rows):
        own = [(status, reason) for name, status, reason in rows if name == operator]
        counts = Counter(status for status, _ in own)
        reasons = Counter(reason for status, reason in own if status == "not applicable")
        told = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common()) or ""
        first, *more = wrap(told, width - indent) or [""]
        numbers = f"{counts['passed']:>7}{counts['not applicable']:>5}{counts['failed']:>7}"
        lines.append(f"{operator:<26}{numbers}  {first}".rstrip())
        lines += [" " * indent + line for line in more]
    return lines
