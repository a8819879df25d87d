"""Normalisations: channels move to the end, and the axes to normalise become the layer's last ones."""

from __future__ import annotations

from math import prod
from typing import Any

from onnx_cases.node_case import NodeCase, Outputs
from onnx_cases.windows import channels_first, channels_last


def batch_norm(case: NodeCase) -> Outputs:
    x, scale, bias, mean, variance = (case.numbers(position) for position in range(5))
    training = bool(case.attributes.get("training_mode", 0))
    fields = {
        "type": "batch_norm",
        "epsilon": case.attributes.get("epsilon", 1e-5),
        "momentum": case.attributes.get("momentum", 0.9),
    }
    weights = {"scale": scale, "bias": bias, "running_mean": mean, "running_variance": variance}
    done = (case.train if training else case.apply)(fields, channels_last(x), **weights)
    running = [done.updated("running_mean"), done.updated("running_variance")] if training else []
    return [channels_first(done.output), *running]


def layer_norm(case: NodeCase) -> Outputs:
    """The case is one sample, so that even its first axis can be normalised; the mean and spread used stay inside."""
    x, scale, bias = case.numbers(0), case.numbers(1), case.given(2)
    axes = x.ndim - case.attributes.get("axis", -1) % x.ndim
    fields = {
        "type": "layer_norm",
        "axes": axes,
        "epsilon": case.attributes.get("epsilon", 1e-5),
        "use_bias": bias is not None,
    }
    weights = {"scale": scale} if bias is None else {"scale": scale, "bias": bias}
    y = case.apply(fields, x[None], **weights).output[0]
    return [y, *[None] * (len(case.outputs) - 1)]


def rms_norm(case: NodeCase) -> Outputs:
    """The axes to normalise are laid out as one channel axis, those before as the batch."""
    x, scale = case.numbers(0), case.numbers(1)
    axis = case.attributes.get("axis", -1) % x.ndim
    fields = {"type": "rms_norm", "epsilon": case.attributes.get("epsilon", 1e-5)}
    flat = x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))
    return [case.apply(fields, flat, scale=scale.ravel()).output.reshape(x.shape)]


def group_norm(case: NodeCase) -> Outputs:
    x, scale, bias = (case.numbers(position) for position in range(3))
    fields: dict[str, Any] = {
        "type": "group_norm",
        "groups": case.attributes["num_groups"],
        "epsilon": case.attributes.get("epsilon", 1e-5),
    }
    return [channels_first(case.apply(fields, channels_last(x), scale=scale, bias=bias).output)]


def instance_norm(case: NodeCase) -> Outputs:
    x, scale, bias = (case.numbers(position) for position in range(3))
    fields = {"type": "instance_norm", "epsilon": case.attributes.get("epsilon", 1e-5)}
    return [channels_first(case.apply(fields, channels_last(x), scale=scale, bias=bias).output)]
