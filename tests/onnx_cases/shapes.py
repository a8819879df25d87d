"""Layers that move elements, and those that join inputs. The case is one sample, so that all its axes can be named."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx_cases.node_case import NodeCase, NotApplicable, Outputs, Translator
from onnx_cases.windows import channels_first, channels_last


def flatten(case: NodeCase) -> Outputs:
    """The axes before ``axis`` are the batch."""
    x = case.numbers(0)
    axis = case.attributes.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return [case.apply({"type": "flatten"}, x.reshape(prod(x.shape[:axis]), *x.shape[axis:])).output]


def reshape(case: NodeCase) -> Outputs:
    """A 0 in the wanted shape keeps that axis."""
    x, wanted = case.numbers(0), case.integers(1)
    if not case.attributes.get("allowzero", 0):
        wanted = [x.shape[axis] if extent == 0 else extent for axis, extent in enumerate(wanted)]
    return [case.apply({"type": "reshape", "shape": wanted}, x[None]).output[0]]


def squeeze(case: NodeCase) -> Outputs:
    x = case.numbers(0)
    axes = [axis % x.ndim for axis in case.integers(1)]
    shape = [extent for axis, extent in enumerate(x.shape) if axis not in axes]
    return [case.apply({"type": "reshape", "shape": shape}, x[None]).output[0]]


def unsqueeze(case: NodeCase) -> Outputs:
    x, given = case.numbers(0), case.integers(1)
    rank = x.ndim + len(given)
    axes, extents = {axis % rank for axis in given}, iter(x.shape)
    shape = [1 if axis in axes else next(extents) for axis in range(rank)]
    return [case.apply({"type": "reshape", "shape": shape}, x[None]).output[0]]


def transpose(case: NodeCase) -> Outputs:
    x = case.numbers(0)
    axes = case.attributes.get("perm", list(range(x.ndim))[::-1])
    return [case.apply({"type": "permute", "axes": list(axes)}, x[None]).output[0]]


def pad(case: NodeCase) -> Outputs:
    x, stated, value = case.numbers(0), case.integers(1), case.given(2)
    mode = case.attributes.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise NotApplicable(f"mode {mode}")
    if min(stated) < 0:
        raise NotApplicable("negative pads crop; ours add")
    axes = case.integers(3) if case.given(3) is not None else list(range(x.ndim))
    amounts = [[0, 0] for _ in range(x.ndim)]
    for place, axis in enumerate(axes):
        amounts[axis] = [stated[place], stated[place + len(axes)]]
    fields = {"type": "padding", "amounts": amounts, "mode": mode, "value": 0.0 if value is None else float(value)}
    return [case.apply(fields, x[None]).output[0]]


def resize(case: NodeCase) -> Outputs:
    """Ours enlarge by whole factors: nearest repeats each pixel, bilinear has half-pixel centres."""
    x, mode = case.numbers(0), case.attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise NotApplicable(f"{mode} interpolation")
    transformation = case.attributes.get("coordinate_transformation_mode", "half_pixel")
    if transformation == "tf_crop_and_resize":
        raise NotApplicable("tf_crop_and_resize: ours do not crop")
    # Upsample, the elder operator, has its scales second, where Resize has the region; Resize's sizes come fourth.
    scales = case.given(1 if case.operator == "Upsample" else 2)
    sizes = np.shape(case.outputs[0])
    axes = list(case.attributes.get("axes", range(x.ndim)))
    if scales is None:
        scales = np.array([sizes[axis] / x.shape[axis] for axis in axes])
    stated = [1.0] * x.ndim
    for axis, scale in zip(axes, scales, strict=True):
        stated[axis] = float(scale)
    if any(scale < 1 or scale != int(scale) for scale in stated):
        raise NotApplicable("a factor that is no whole number; ours repeat pixels")
    factors = [int(scale) for scale in stated]
    if factors[:2] != [1, 1] or x.ndim != 4:
        raise NotApplicable("resizes batch or channel, or is not 2-D")
    if mode == "linear" and transformation not in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        raise NotApplicable(f"linear with {transformation}: ours has half-pixel centres")
    if mode == "nearest" and not all(_repeats(case, *pair) for pair in zip(x.shape, factors, strict=True)):
        raise NotApplicable("nearest with a rounding that shifts pixels; ours repeats them")
    fields = {
        "type": "upsample2d",
        "factor": factors[2:],
        "interpolation": "nearest" if mode == "nearest" else "bilinear",
    }
    return [channels_first(case.apply(fields, channels_last(x)).output)]


def resize_to(case: NodeCase) -> Outputs:
    """Ours go to any size, with half-pixel centres; what is enlarged by whole factors is `resize`'s too."""
    x, mode = case.numbers(0), case.attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear") or case.attributes.get("antialias", 0):
        raise NotApplicable(f"{mode} interpolation" + " with antialiasing" * case.attributes.get("antialias", 0))
    transformation = case.attributes.get("coordinate_transformation_mode", "half_pixel")
    sizes = np.shape(case.outputs[0])
    if x.ndim != 4 or sizes[:2] != x.shape[:2]:
        raise NotApplicable("resizes batch or channel, or is not 2-D")
    scales = case.given(2)
    axes = list(case.attributes.get("axes", range(x.ndim)))
    if scales is not None:
        for axis, scale in zip(axes, scales, strict=True):
            if not np.isclose(x.shape[axis] * float(scale), sizes[axis]):
                raise NotApplicable("a factor that is not the ratio of the sizes")
    same = transformation in ("half_pixel", "half_pixel_symmetric")
    same |= transformation == "pytorch_half_pixel" and min(sizes[2:]) > 1
    if mode == "linear" and not same:
        raise NotApplicable(f"linear with {transformation}: ours has half-pixel centres")
    if mode == "nearest":
        if not same:
            raise NotApplicable(f"nearest with {transformation}: ours has half-pixel centres")
        rounding = case.attributes.get("nearest_mode", "round_prefer_floor")
        for size, outputs in zip(x.shape[2:], sizes[2:], strict=True):
            place = (np.arange(outputs) + 0.5) * size / outputs
            up = np.ceil(place) - 1 if rounding == "round_prefer_floor" else np.floor(place)
            if rounding in ("floor", "ceil") or not np.array_equal(up, np.floor(place)):
                raise NotApplicable(f"nearest with {rounding}: ours is floor((i + 1/2) * in / out)")
    fields = {
        "type": "resize",
        "size": list(sizes[2:]),
        "interpolation": "nearest" if mode == "nearest" else "bilinear",
    }
    return [channels_first(case.apply(fields, channels_last(x)).output)]


def depth_to_space(case: NodeCase) -> Outputs:
    """In ONNX's other mode, depth-column-row, the channels are brought into our order first."""
    x, factor = channels_last(case.numbers(0)), case.attributes["blocksize"]
    if case.attributes.get("mode", "DCR") == "DCR":
        x = x.reshape(*x.shape[:-1], factor**2, -1).swapaxes(-1, -2).reshape(x.shape)
    return [channels_first(case.apply({"type": "pixel_shuffle", "factor": factor}, x).output)]


def space_to_depth(case: NodeCase) -> Outputs:
    """In ONNX's mode depth-column-row, its default, the channels are brought into that order behind."""
    factor = case.attributes["blocksize"]
    fields = {"type": "pixel_unshuffle", "factor": factor}
    y = case.apply(fields, channels_last(case.numbers(0))).output
    if case.attributes.get("mode", "DCR") == "DCR":
        y = y.reshape(*y.shape[:-1], -1, factor**2).swapaxes(-1, -2).reshape(y.shape)
    return [channels_first(y)]


def _repeats(case: NodeCase, size: int, factor: int) -> bool:
    """Tell whether ONNX's rules for nearest (the operator's text, x_original and nearest_mode) repeat each pixel."""
    upsample = case.operator == "Upsample"  # asymmetric and floor, by its definition
    transformation = "asymmetric" if upsample else case.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if upsample else case.attributes.get("nearest_mode", "round_prefer_floor")
    resized = np.arange(size * factor)
    if transformation == "asymmetric":
        place = resized / factor
    elif transformation == "align_corners":
        place = resized * (size - 1) / max(size * factor - 1, 1)
    else:
        place = (resized + 0.5) / factor - 0.5
    chosen = {
        "floor": np.floor(place),
        "ceil": np.ceil(place),
        "round_prefer_floor": np.ceil(place - 0.5),
        "round_prefer_ceil": np.floor(place + 0.5),
    }[rounding]
    return np.array_equal(np.clip(chosen, 0, size - 1), resized // factor)


def concatenate(case: NodeCase) -> Outputs:
    inputs = [case.numbers(position)[None] for position in range(len(case.inputs))]
    axis = case.attributes["axis"]
    return [case.apply({"type": "concatenate", "axis": axis}, *inputs).output[0]]


def joined(kind: str) -> Translator:
    """Make a translator for a sum or product; inputs of fewer axes get axes of size 1 in front."""

    def elementwise(case: NodeCase) -> Outputs:
        inputs = [case.numbers(position) for position in range(len(case.inputs))]
        if len(inputs) < 2:
            raise NotApplicable("one input: ours join two or more")
        rank = max(x.ndim for x in inputs)
        return [
            case.apply({"type": kind}, *(x.reshape(1, *(1,) * (rank - x.ndim), *x.shape) for x in inputs)).output[0]
        ]

    return elementwise
