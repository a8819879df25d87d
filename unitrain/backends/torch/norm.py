"""Normalisation, channel last: torch's own modules, with the pinned running statistics."""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unitrain.backends.contract import Settings
from unitrain.backends.precision import HALF
from unitrain.backends.torch.registry import Made, Slot, implements
from unitrain.backends.torch.runtime import widened
from unitrain.backends.torch.statistics import TracksStatistics
from unitrain.backends.torch.window import channels_first, channels_last
from unitrain.graph.node import Node
from unitrain.spec.layers.norm import BatchNorm, GroupedNorm, GroupNorm, InstanceNorm, LayerNorm, RmsNorm


class ChannelsLastBatchNorm(TracksStatistics, _BatchNorm):
    """Batch norm over the last axis, mixed in before ``nn.BatchNorm1d``, ``2d`` or ``3d``.

    As in torch ``momentum`` is the fraction of the *new* value; unlike torch's the running variance is the biased one.
    """

    rectifies = takes_first = True

    def forward(self, x: torch.Tensor, *, rectify: bool = False, first: bool = False) -> torch.Tensor:
        """Normalise ``[batch, ..., channel]``; for ``rectify`` and ``first`` see `way.Step`."""
        x = x if first else channels_first(x)
        if self.training:
            y = self._train(x)
        else:
            y = functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        y = y.relu_() if rectify else y
        return y if first else channels_last(y)

    def _train(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``[batch, channel, ...]`` by the statistics of the batch."""
        mean, variance = torch.zeros_like(self._statistic("mean")), torch.zeros_like(self._statistic("var"))
        count = x.numel() // x.shape[1]
        y: torch.Tensor
        if count == 1:
            # torch refuses a single value; the meaning is clear: it is its own mean, its variance is 0.
            mean.copy_(x.detach().flatten())
            y = channels_last((x - x) * self.eps**-0.5)
            y = y if self.weight is None else y * self.weight
            y = channels_first(y if self.bias is None else y + self.bias)
        else:
            # With momentum 1 these receive the batch's own mean and unbiased variance.
            y = functional.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            variance = variance * ((count - 1) / count)
        self.found(mean, variance)
        return y

    @torch.no_grad()
    def take_over(self, first: torch.Tensor, second: torch.Tensor, keep: torch.Tensor | None = None) -> None:
        """Move the running statistics towards a batch's, unless the flag ``keep`` on the device is down."""
        tracked = self._buffer("num_batches_tracked").add_(1 if keep is None else keep)
        # Torch's meaning of no momentum: the average over all batches so far.
        new = 1.0 / float(tracked) if self.momentum is None else self.momentum
        for name, value in (("mean", first), ("var", second)):
            running = self._statistic(name)
            if keep is None:
                running.mul_(1.0 - new).add_(value, alpha=new)
            else:
                moved = (running * (1.0 - new)).add_(value, alpha=new)
                running.copy_(torch.where(keep, moved, running))

    def averages(self) -> tuple[list[torch.Tensor], float, torch.Tensor] | None:
        """Return the running statistics and how they move, unless as the average over all batches so far."""
        if self.momentum is None:
            return None
        return [self._statistic("mean"), self._statistic("var")], self.momentum, self._buffer("num_batches_tracked")

    def _statistic(self, name: str) -> torch.Tensor:
        return self._buffer(f"running_{name}")

    def _buffer(self, name: str) -> torch.Tensor:
        """Return a buffer of its own; ``get_buffer`` looks for modules first, which takes longer than what is done."""
        found = self._buffers[name]
        assert found is not None
        return found


class ChannelsLastBatchNorm1d(ChannelsLastBatchNorm, torch.nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over ``[batch, channel]`` or ``[batch, length, channel]``."""


class ChannelsLastBatchNorm2d(ChannelsLastBatchNorm, torch.nn.BatchNorm2d):
    """``nn.BatchNorm2d`` over ``[batch, height, width, channel]``."""


class ChannelsLastBatchNorm3d(ChannelsLastBatchNorm, torch.nn.BatchNorm3d):
    """``nn.BatchNorm3d`` over ``[batch, depth, height, width, channel]``, and more axes."""


class ChannelsLastGroupNorm(torch.nn.GroupNorm):
    """``nn.GroupNorm`` over groups of the last axis and all positions.

    In 16 bits it computes in float32, as torch's autocast has it: torch's own rounds mean and spread to 16 bits for the
    backward pass, and where the gradient is small beside them its error was up to 44 times the expected one.

    Notes
    -----
    On the CPU torch 2.13 is given what its kernels bear. In channels-last order the variance is mean(x^2) - mean(x)^2,
    which is 74 times less exact where a mean is 7 times the spread, and the backward pass of an input without gradient
    writes through a null pointer: so the input is brought into channels-first order. Without a scale the gradient by
    the bias raises an error: so there is always one, of ones. A group of one number is refused, by a check that is
    left out.
    """

    ones: torch.Tensor

    def __init__(self, groups: int, channels: int, epsilon: float) -> None:
        super().__init__(groups, channels, epsilon)
        self.register_buffer("ones", torch.ones(channels), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``[batch, ..., channel]``."""
        scale = widened(self.ones if self.weight is None else self.weight)
        bias = None if self.bias is None else widened(self.bias)
        first = channels_first(widened(x))
        # With three axes there is no channels-last order.
        rows = (first.flatten(2) if first.ndim > 2 else first).contiguous()
        y = torch.group_norm(rows, self.num_groups, scale, bias, self.eps, torch.backends.cudnn.enabled)
        return channels_last(y.reshape(first.shape)).to(x.dtype)


class WideLayerNorm(torch.nn.LayerNorm):
    """``nn.LayerNorm`` of numbers of 16 bits, computed in float32 as torch's autocast has it.

    torch's own rounds mean and spread to 16 bits for the backward pass, and adds up the gradients of scale and bias in
    16 bits: over 16,000 positions their error was 700 times the expected one.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last axes."""
        wide, scale, bias = (None if one is None else widened(one) for one in (x, self.weight, self.bias))
        assert wide is not None
        return functional.layer_norm(wide, self.normalized_shape, scale, bias, self.eps).to(x.dtype)


class WideRmsNorm(torch.nn.RMSNorm):
    """``nn.RMSNorm`` of numbers of 16 bits, computed in float32: torch warns of a scale of another type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last axis."""
        scale = None if self.weight is None else widened(self.weight)
        return functional.rms_norm(widened(x), self.normalized_shape, scale, self.eps).to(x.dtype)


def _norm(module: torch.nn.Module, layer: BatchNorm | LayerNorm | GroupedNorm | RmsNorm) -> dict[str, Slot]:
    """Take away ``weight`` or ``bias`` where the spec has none, and return where the others are."""
    slots = {}
    for local, attribute, used in (("scale", "weight", layer.use_scale), ("bias", "bias", layer.use_bias)):
        if used:
            slots[local] = Slot(attribute)
        elif attribute in module._parameters:
            module.register_parameter(attribute, None)
    return slots


@implements(BatchNorm)
def batch_norm(layer: BatchNorm, node: Node, settings: Settings) -> Made:
    """Scale, bias and running statistics under torch's names."""
    kinds = (ChannelsLastBatchNorm1d, ChannelsLastBatchNorm1d, ChannelsLastBatchNorm2d, ChannelsLastBatchNorm3d)
    shape = node.input_shapes[0]
    kind = kinds[min(len(shape), len(kinds)) - 1]
    module = kind(shape[-1], layer.epsilon, 1.0 - layer.momentum)
    statistics = {"running_mean": Slot("running_mean"), "running_variance": Slot("running_var")}
    return Made(module, {**_norm(module, layer), **statistics})


@implements(GroupNorm, InstanceNorm)
def group_norm(layer: GroupNorm | InstanceNorm, node: Node, settings: Settings) -> Made:
    """torch's group norm over a channel-first view."""
    channels = node.input_shapes[0][-1]
    module = ChannelsLastGroupNorm(layer.groups_of(channels), channels, layer.epsilon)
    return Made(module, _norm(module, layer))


@implements(LayerNorm)
def layer_norm(layer: LayerNorm, node: Node, settings: Settings) -> Made:
    """torch's own ``nn.LayerNorm``, over the last axes."""
    kind = WideLayerNorm if settings.precision in HALF else torch.nn.LayerNorm
    module = kind(node.input_shapes[0][-layer.axes :], layer.epsilon)
    return Made(module, _norm(module, layer))


@implements(RmsNorm)
def rms_norm(layer: RmsNorm, node: Node, settings: Settings) -> Made:
    """torch's own ``nn.RMSNorm``."""
    kind = WideRmsNorm if settings.precision in HALF else torch.nn.RMSNorm
    module = kind(node.input_shapes[0][-1:], layer.epsilon)
    return Made(module, _norm(module, layer))
