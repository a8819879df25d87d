"""Rounding to the levels of integers, with the gradient straight through."""

from __future__ import annotations

import numpy as np

from unitrain.backends.numpy.registry import Array, Context, Gradients, Parameters, Result, implements
from unitrain.spec.layers.quantize import FakeQuantize
from unitrain.weights.quantize import grid, settled_grid


@implements(FakeQuantize)
def fake_quantize(layer: FakeQuantize, context: Context, parameters: Parameters, x: Array) -> Result:
    """``y = (clip(round(x / s) + z) - z) s``; dx = dy where that was not clipped, else 0.

    By a learned s: ds = factor sum(dy (round(v) - v)) with v = x / s, and sum(dy level) where it was clipped.
    """
    least, most = layer.levels
    if context.training and layer.range == "moving_average":
        moved = moved_range(layer, parameters, x)
        for name, value in moved.items():
            context.update(name, value)
        scale, zero = grid(layer, *moved.values())
    else:
        scale, zero = settled_grid(layer, parameters, x.dtype)
    level = np.rint(x / scale) + zero
    inside = (level >= least) & (level <= most)
    levels = np.clip(level, least, most) - zero

    def backward(dy: Array) -> Gradients:
        gradients = {}
        if layer.range == "learned":
            by_scale = (dy * (levels - np.where(inside, x / scale, 0))).reshape(-1, x.shape[-1]).sum(axis=0)
            total = by_scale if layer.per_channel else by_scale.sum(keepdims=True)
            gradients["scale"] = total * np.sign(parameters["scale"]) * layer.gradient_factor(x.shape[1:])
        return (np.where(inside, dy, 0),), gradients

    return levels * scale, backward


def moved_range(layer: FakeQuantize, parameters: Parameters, x: Array) -> dict[str, Array]:
    """Return ``running_low`` and ``running_high``, moved towards the batch's."""
    rows = x.reshape(-1, x.shape[-1]) if layer.per_channel else x.reshape(-1, 1)
    batch = {"running_low": rows.min(axis=0), "running_high": rows.max(axis=0)}
    empty = (parameters["running_low"] == 0) & (parameters["running_high"] == 0)
    kept = layer.momentum
    return {
        name: np.where(empty, value, kept * parameters[name] + (1 - kept) * value).astype(x.dtype)
        for name, value in batch.items()
    }
