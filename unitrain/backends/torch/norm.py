"""Normalisation, channel last."""

from __future__ import annotations

import torch
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Made, Slot, channels_first, channels_last, implements
from unitrain.graph.graph import Node
from unitrain.spec.layers.norm import BatchNorm, GroupNorm, LayerNorm, RmsNorm


class _Affine(torch.nn.Module):
    """Holds ``weight`` and ``bias`` where used, under torch's names."""

    weight: torch.nn.Parameter | None
    bias: torch.nn.Parameter | None

    def __init__(self, shape: tuple[int, ...], scale: bool, bias: bool) -> None:
        super().__init__()
        self.register_parameter("weight", torch.nn.Parameter(torch.ones(shape)) if scale else None)
        self.register_parameter("bias", torch.nn.Parameter(torch.zeros(shape)) if bias else None)

    def slots(self) -> dict[str, Slot]:
        """Return where scale and bias are."""
        table = {"scale": "weight", "bias": "bias"}
        return {local: Slot(attribute) for local, attribute in table.items() if getattr(self, attribute) is not None}


class ChannelsLastBatchNorm(_Affine):
    """Batch norm over the last axis with *biased* running variance; ``momentum`` is the fraction kept.

    ``pending`` decides what happens to the batch's statistics in training: None takes them over at once, as
    torch's own modules do; a list collects them for a program that takes them over when the step is applied.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, layer: BatchNorm, channels: int) -> None:
        super().__init__((channels,), layer.use_scale, layer.use_bias)
        self.epsilon, self.momentum = layer.epsilon, layer.momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.pending: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``[batch, ..., channel]``."""
        flat = channels_first(x) if x.ndim > 2 else x
        if not self.training:
            y = functional.batch_norm(
                flat, self.running_mean, self.running_var, self.weight, self.bias, eps=self.epsilon
            )
        else:
            y = self._train(flat, x.numel() // x.shape[-1])
        return channels_last(y) if x.ndim > 2 else y

    def _train(self, x: torch.Tensor, count: int) -> torch.Tensor:
        if count == 1:
            # torch refuses a single value; the meaning is clear: it is its own mean, its variance is 0.
            mean, variance = x.detach().flatten(), torch.zeros_like(self.running_var)
            y = (x - x) * (self.epsilon**-0.5 * (1.0 if self.weight is None else self.weight.view_as(x)))
            y = y if self.bias is None else y + self.bias.view_as(x)
        else:
            # With momentum 1 the buffers receive the batch's own mean and unbiased variance.
            mean, variance = torch.empty_like(self.running_mean), torch.empty_like(self.running_var)
            mean.zero_()
            variance.zero_()
            y = functional.batch_norm(
                x, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.epsilon
            )
            variance = variance * ((count - 1) / count)
        if self.pending is None:
            self.take_over(mean, variance)
        else:
            self.pending.append((mean, variance))
        return y

    @torch.no_grad()
    def take_over(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics towards a batch's."""
        self.running_mean.mul_(self.momentum).add_(mean, alpha=1.0 - self.momentum)
        self.running_var.mul_(self.momentum).add_(variance, alpha=1.0 - self.momentum)


class ChannelsLastGroupNorm(_Affine):
    """Group norm over groups of the last axis and all positions."""

    def __init__(self, layer: GroupNorm, channels: int) -> None:
        super().__init__((channels,), layer.use_scale, layer.use_bias)
        self.groups, self.epsilon = layer.groups, layer.epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``[batch, ..., channel]``."""
        if x.ndim == 2:
            return functional.group_norm(x, self.groups, self.weight, self.bias, self.epsilon)
        return channels_last(
            functional.group_norm(channels_first(x), self.groups, self.weight, self.bias, self.epsilon)
        )


class LastAxesNorm(_Affine):
    """Layer norm or RMS norm over the last axes."""

    def __init__(self, layer: LayerNorm | RmsNorm, shape: tuple[int, ...]) -> None:
        super().__init__(shape, layer.use_scale, layer.use_bias)
        self.shape, self.epsilon, self.centred = shape, layer.epsilon, isinstance(layer, LayerNorm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``[batch, ..., *shape]``."""
        if self.centred:
            return functional.layer_norm(x, self.shape, self.weight, self.bias, self.epsilon)
        return functional.rms_norm(x, self.shape, self.weight, self.epsilon)


@implements(BatchNorm)
def batch_norm(layer: BatchNorm, node: Node, settings: Settings) -> Made:
    """Scale, bias and running statistics under torch's names."""
    module = ChannelsLastBatchNorm(layer, node.input_shapes[0][-1])
    statistics = {"running_mean": Slot("running_mean"), "running_variance": Slot("running_var")}
    return Made(module, {**module.slots(), **statistics})


@implements(GroupNorm)
def group_norm(layer: GroupNorm, node: Node, settings: Settings) -> Made:
    """torch's group norm over a channel-first view."""
    module = ChannelsLastGroupNorm(layer, node.input_shapes[0][-1])
    return Made(module, module.slots())


@implements(LayerNorm, RmsNorm)
def last_axes_norm(layer: LayerNorm | RmsNorm, node: Node, settings: Settings) -> Made:
    """torch's own functions."""
    axes = layer.axes if isinstance(layer, LayerNorm) else 1
    module = LastAxesNorm(layer, node.input_shapes[0][-axes:])
    return Made(module, module.slots())
