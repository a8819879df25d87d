"""Pooling over windows and over whole images or sequences."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, model_validator

from unitrain.spec.layers.base import LayerSpec, Pair, Shape, ShapeError, Triple, show_shape
from unitrain.spec.layers.conv import Padding1d, Padding2d, Padding3d, Single, WindowedLayer


def _stride_may_be_left_out(schema: dict[str, Any]) -> None:
    schema["required"].remove("strides")


class _Pool(WindowedLayer):
    model_config = ConfigDict(json_schema_extra=_stride_may_be_left_out)

    @model_validator(mode="before")
    @classmethod
    def _stride_is_the_window(cls, data: Any) -> Any:
        """Let the stride default to the window, as pooling nearly always has it."""
        if isinstance(data, dict) and data.get("strides") is None and "kernel_size" in data:
            return {**data, "strides": data["kernel_size"]}
        return data

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(*positions, channel)``."""
        positions = self.positions(inputs[0])
        pads = self.pads(inputs[0])
        for axis, (count, size) in enumerate(zip(positions, inputs[0], strict=False)):
            for index in range(count):
                start = index * self.strides[axis] - pads[axis][0]
                taps = (start + tap * self.dilation[axis] for tap in range(self.kernel_size[axis]))
                if not any(0 <= place < size for place in taps):
                    raise ShapeError(
                        f"has a window that lies in the padding alone, with nothing to pool: {show_shape(inputs[0])}"
                    )
        return (*positions, inputs[0][-1])


class _Pool1d(_Pool):
    kernel_size: Single
    strides: Single
    dilation: Single = (1,)
    padding: Padding1d = "valid"


class _Pool2d(_Pool):
    kernel_size: Pair
    strides: Pair
    dilation: Pair = (1, 1)
    padding: Padding2d = "valid"


class _Pool3d(_Pool):
    kernel_size: Triple
    strides: Triple
    dilation: Triple = (1, 1, 1)
    padding: Padding3d = "valid"


class MaxPool1d(_Pool1d):
    """Largest element of each window; padding never wins, and of equals the first gets the gradient."""

    type: Literal["max_pool1d"] = "max_pool1d"


class MaxPool2d(_Pool2d):
    """Largest element of each window; padding never wins, and of equals the first (by rows) gets the gradient."""

    type: Literal["max_pool2d"] = "max_pool2d"


class MaxPool3d(_Pool3d):
    """Largest element of each window; padding never wins, and of equals the first (by rows) gets the gradient."""

    type: Literal["max_pool3d"] = "max_pool3d"


class AveragePool1d(_Pool1d):
    """Mean of each window; padding is not counted."""

    type: Literal["average_pool1d"] = "average_pool1d"


class AveragePool2d(_Pool2d):
    """Mean of each window; padding is not counted."""

    type: Literal["average_pool2d"] = "average_pool2d"


class AveragePool3d(_Pool3d):
    """Mean of each window; padding is not counted."""

    type: Literal["average_pool3d"] = "average_pool3d"


class _GlobalPool(LayerSpec):
    keep_axes: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        """``(channel,)``, or ``(1, ..., channel)`` with ``keep_axes``."""
        shape = inputs[0]
        if len(shape) < 2:
            raise ShapeError(f"needs spatial axes before the channel, and got {show_shape(shape)}")
        return (*(1,) * (len(shape) - 1), shape[-1]) if self.keep_axes else shape[-1:]


class GlobalAveragePool(_GlobalPool):
    """Mean over all axes but batch and channel."""

    type: Literal["global_average_pool"] = "global_average_pool"


class GlobalMaxPool(_GlobalPool):
    """Largest element over all axes but batch and channel; of equals the first gets the gradient."""

    type: Literal["global_max_pool"] = "global_max_pool"
