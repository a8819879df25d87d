"""Pooling over windows and over whole images or sequences, channel last."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.conv import split_padding
from unitrain.backends.torch.registry import Made, channels_first, channels_last, implements
from unitrain.graph.graph import Node
from unitrain.spec.layers.pool import (
    AveragePool1d,
    AveragePool2d,
    GlobalAveragePool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
)
from unitrain.spec.layers.window import PadAmounts


class MaxPool(torch.nn.Module):
    """Largest element of each window; padding is minus infinity."""

    def __init__(self, layer: MaxPool1d | MaxPool2d, pads: PadAmounts) -> None:
        super().__init__()
        self.axes = layer.axes
        self.options = {"stride": layer.strides, "dilation": layer.dilation}
        self.kernel_size = layer.kernel_size
        self.padding, self.before = split_padding(pads)
        # torch pads by half a window at most.
        if any(2 * pad > window for pad, window in zip(self.padding, layer.kernel_size, strict=True)):
            self.before = tuple(amount for pair in reversed(pads) for amount in pair)
            self.padding = (0,) * self.axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, *spatial, channel]``."""
        first = channels_first(x)
        if self.before:
            first = functional.pad(first, self.before, value=float("-inf"))
        pool = functional.max_pool1d if self.axes == 1 else functional.max_pool2d
        return channels_last(pool(first, self.kernel_size, padding=self.padding, **self.options))  # type: ignore[arg-type]  # options hold tuples of ints


class AveragePool(torch.nn.Module):
    """Mean of each window over the elements that are there."""

    counts: torch.Tensor

    def __init__(self, layer: AveragePool1d | AveragePool2d, node: Node, settings: Settings) -> None:
        super().__init__()
        self.kernel_size, self.strides, self.dilation = layer.kernel_size, layer.strides, layer.dilation
        spatial = node.input_shapes[0][:-1]
        pads = layer.pads(node.input_shapes[0])
        self.before = tuple(amount for pair in reversed(pads) for amount in pair)
        self.outputs = node.output_shape[:-1]
        ones = np.pad(np.ones(spatial), pads)
        counts = sum(ones[index] for index in self._taps())
        self.register_buffer(
            "counts",
            torch.as_tensor(np.asarray(counts)[..., None], dtype=getattr(torch, settings.precision)),
            persistent=False,
        )

    def _taps(self) -> list[tuple[slice, ...]]:
        """Return, for each element of the window, the slice of the padded input that all windows see there."""
        return [
            tuple(
                slice(tap * spread, tap * spread + (count - 1) * stride + 1, stride)
                for tap, spread, count, stride in zip(taps, self.dilation, self.outputs, self.strides, strict=True)
            )
            for taps in np.ndindex(*self.kernel_size)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, *spatial, channel]``."""
        if any(self.before):
            x = functional.pad(x, (0, 0, *self.before))
        if len(self.kernel_size) == 2 and self.dilation == (1, 1):
            pooled = functional.avg_pool2d(channels_first(x), self.kernel_size, self.strides, divisor_override=1)
            return channels_last(pooled) / self.counts
        views = [x[(slice(None), *index)] for index in self._taps()]
        return torch.stack(views).sum(dim=0) / self.counts


@implements(MaxPool1d, MaxPool2d)
def max_pool(layer: MaxPool1d | MaxPool2d, node: Node, settings: Settings) -> Made:
    """torch's max pooling gives the gradient to the first of equals."""
    return Made(MaxPool(layer, layer.pads(node.input_shapes[0])), {})


@implements(AveragePool1d, AveragePool2d)
def average_pool(layer: AveragePool1d | AveragePool2d, node: Node, settings: Settings) -> Made:
    """Sums, divided by how many elements of each window are not padding."""
    return Made(AveragePool(layer, node, settings), {})


class GlobalPool(torch.nn.Module):
    """Mean or largest element over all axes but batch and channel."""

    def __init__(self, mean: bool, keep_axes: bool) -> None:
        super().__init__()
        self.mean, self.keep_axes = mean, keep_axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool ``[batch, *spatial, channel]``."""
        flat = x.flatten(1, -2)
        # max(dim) gives the gradient to one element, the first; amax would share it out.
        pooled = flat.mean(dim=1) if self.mean else flat.max(dim=1).values
        return pooled.reshape(len(x), *(1,) * (x.ndim - 2), -1) if self.keep_axes else pooled


@implements(GlobalAveragePool, GlobalMaxPool)
def global_pool(layer: GlobalAveragePool | GlobalMaxPool, node: Node, settings: Settings) -> Made:
    """One pass over the flattened positions."""
    return Made(GlobalPool(isinstance(layer, GlobalAveragePool), layer.keep_axes), {})
