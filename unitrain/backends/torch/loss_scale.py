"""What a loss scale asks of gradients: to be divided by it, and to be found finite, without reading them."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def unscaled(gradients: Sequence[torch.Tensor], scale: float) -> list[torch.Tensor]:
    """Divide gradients by the loss scale, a power of two: exact, but for what lies below float32."""
    return list(torch._foreach_mul(list(gradients), 1.0 / scale))


def all_finite(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return whether no number of the gradients is NaN or infinite: a flag on their device."""
    filled = [gradient for gradient in gradients if gradient.numel()]
    if not filled:
        return torch.ones((), dtype=torch.bool, device=gradients[0].device if gradients else None)
    return torch.isfinite(torch.stack(torch._foreach_norm(filled, float("inf")))).all()
