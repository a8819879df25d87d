"""Rounding to the levels of integers, with the gradient straight through."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parametrize

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.backends.torch.runtime import widened
from unitrain.backends.torch.statistics import TracksStatistics
from unitrain.graph.node import Node
from unitrain.spec.layers.base import Parameter
from unitrain.spec.layers.quantize import FakeQuantize
from unitrain.spec.quantizers import KernelQuantizer, kernel_levels


def _no_zeros(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _levels(
    x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, ends: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the level of each number, counted from that of zero, and which lie between the last levels."""
    level = (x / scale).round_().add_(zero)
    held = level.clamp(*ends)
    inside = level == held
    return held.sub_(zero), inside


class _StraightThrough(torch.autograd.Function):
    """Rounding whose gradient goes on as it is between the last levels; a learned step has its own, times a factor.

    Put together from torch's operations it would walk through memory twice as often, and that is what rounding costs.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, ends: tuple[int, int], factor: float
    ) -> torch.Tensor:
        """Round."""
        levels, inside = _levels(x, scale, zero, ends)
        errors: tuple[torch.Tensor, ...] = ()
        if ctx.needs_input_grad[1]:
            errors = ((levels - torch.where(inside, x / scale, 0)).mul_(factor),)
        ctx.save_for_backward(inside, *errors)
        ctx.shape = scale.shape
        return levels.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Let through what was not clipped."""
        inside, *errors = ctx.saved_tensors
        by_scale = (gradients[0] * errors[0]).sum_to_size(ctx.shape) if errors else None
        return torch.where(inside, gradients[0], 0), by_scale, None, None, None


class QuantizedKernel(torch.nn.Module):
    """A parametrization: the weight is computed with as `KernelQuantizer` says; outputs lie along the first axis."""

    def __init__(self, quantizer: KernelQuantizer) -> None:
        super().__init__()
        self.most = kernel_levels(quantizer.bits)[1]
        self.per_channel = quantizer.per_channel

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Round ``[out, ...]``; the gradient goes on as it is."""
        held = widened(weight.detach())
        axes = list(range(1 if self.per_channel else 0, held.ndim))
        scale = _no_zeros(held.abs().amax(axes, keepdim=True) / self.most)
        return (torch.round(held / scale) * scale).to(weight.dtype) + (weight - weight.detach())


def with_quantized_kernels(made: Made, table: dict[str, Parameter]) -> Made:
    """Let a module compute with rounded kernels where the layer's table of parameters says so."""
    slots = dict(made.slots)
    for local, parameter in table.items():
        if parameter.quantizer is not None:
            slot = slots[local]
            parametrize.register_parametrization(made.module, slot.attribute, QuantizedKernel(parameter.quantizer))
            slots[local] = Slot(f"parametrizations.{slot.attribute}.original", slot.layout)
    return Made(made.module, slots)


class Rounding(TracksStatistics):
    """`FakeQuantize` as a module, with what it has of ``scale``, ``running_low`` and ``running_high``."""

    scale: torch.nn.Parameter

    def __init__(self, layer: FakeQuantize, channels: int) -> None:
        super().__init__()
        self.layer = layer
        size = channels if layer.per_channel else 1
        if layer.range == "learned":
            self.scale = torch.nn.Parameter(torch.ones(size))
        elif isinstance(layer.range, tuple):
            for name, number in zip(("low", "high"), layer.range, strict=True):
                self.register_buffer(name, torch.full((1,), number, dtype=torch.float64), persistent=False)
        else:
            self.register_buffer("running_low", torch.zeros(size))
            self.register_buffer("running_high", torch.zeros(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Round ``[batch, ..., channel]``."""
        wide = widened(x)
        scale, zero = self._grid(wide.detach())
        if not torch.is_grad_enabled():
            return _levels(wide, scale, zero, self.layer.levels)[0].mul_(scale).to(x.dtype)
        factor = self.layer.gradient_factor(tuple(x.shape[1:])) if self.layer.range == "learned" else 0.0
        y: torch.Tensor = _StraightThrough.apply(wide, scale, zero, self.layer.levels, factor)  # type: ignore[no-untyped-call]  # torch's
        return y.to(x.dtype)

    def _grid(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.layer.range == "learned":
            scale = _no_zeros(widened(self.scale).abs())
            return scale, torch.zeros_like(scale)
        if isinstance(self.layer.range, tuple):
            low, high = (self.get_buffer(name).to(x.dtype) for name in ("low", "high"))
        elif self.training:
            rows = x.reshape(-1, x.shape[-1] if self.layer.per_channel else 1)
            low, high = self._moved(rows.amin(0), rows.amax(0))
        else:
            low, high = (widened(self.get_buffer(name)) for name in ("running_low", "running_high"))
        low, high = low.clamp(max=0), high.clamp(min=0)
        least, most = self.layer.levels
        if self.layer.symmetric:
            return _no_zeros(torch.maximum(-low, high) / most), torch.zeros_like(low)
        scale = _no_zeros((high - low) / most)
        return scale, torch.round(-low / scale).clamp(least, most)

    def _moved(self, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Move the running range towards the batch's, and return it; a shared layer goes on from where it was moved."""
        held = self.pending[-1] if self.pending else (self.get_buffer("running_low"), self.get_buffer("running_high"))
        running = [widened(number) for number in held]
        empty = (running[0] == 0) & (running[1] == 0)
        kept = self.layer.momentum
        moved = [
            torch.where(empty, value, kept * old + (1 - kept) * value)
            for old, value in zip(running, (low, high), strict=True)
        ]
        self.found(moved[0], moved[1])
        return moved[0], moved[1]

    @torch.no_grad()
    def take_over(self, first: torch.Tensor, second: torch.Tensor, keep: torch.Tensor | None = None) -> None:
        """Take over a moved range, unless the flag ``keep`` on the device is down."""
        for name, value in (("running_low", first), ("running_high", second)):
            running = self.get_buffer(name)
            running.copy_(value if keep is None else torch.where(keep, value, running))

    def extra_repr(self) -> str:
        """Show bits and range."""
        return f"bits={self.layer.bits}, range={self.layer.range!r}, symmetric={self.layer.symmetric}"


@implements(FakeQuantize)
def fake_quantize(layer: FakeQuantize, node: Node, settings: Settings) -> Made:
    """torch has the operation, but no module with the pinned range."""
    module = Rounding(layer, node.input_shapes[0][-1])
    return Made(module, {local: Slot(local) for local in layer.parameters(*node.input_shapes)})
