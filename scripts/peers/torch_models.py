"""The models of a careful torch user, as the books have them: channels first, fused kernels for sequences."""

from __future__ import annotations

import torch
from torch import nn


def make_model(name: str) -> nn.Module:
    """Return one of the models that are compared."""
    if name == "tiny":
        return nn.Sequential(nn.Linear(784, 10))
    if name == "mlp":
        return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    if name == "lenet":
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip
    if name == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip
    return {"resnet20": ResNet20, "lstm": Lstm, "transformer": Transformer}[name]()


class ResNet20(nn.Sequential):
    """The residual network for 32 x 32 images of He et al. 2015, section 4.2, with projection shortcuts."""

    def __init__(self) -> None:
        widths, blocks = [16] * 3 + [32] * 3 + [64] * 3, []
        for before, width in zip([16, *widths], widths, strict=False):
            blocks.append(Residual(before, width))
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), *blocks,
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        stride = 1 if before == width else 2
        self.branch = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(nn.Conv2d(before, width, 1, 2, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, channel, height, width]``."""
        return torch.relu_(self.branch(x) + self.shortcut(x))


class Lstm(nn.Module):
    """Embedding, torch's fused LSTM, and a classifier on the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(1000, 64), nn.LSTM(64, 128, batch_first=True)
        self.logits = nn.Linear(128, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[batch, length]`` to ``[batch, class]``."""
        _, (last, _) = self.lstm(self.embedding(tokens))
        return self.logits(last[0])


class Transformer(nn.Module):
    """A causal pre-norm transformer whose mean over the positions is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(1000, 128), nn.Parameter(0.02 * torch.randn(64, 128))
        self.layers = nn.Sequential(TransformerLayer(), TransformerLayer())
        self.norm, self.logits = nn.LayerNorm(128), nn.Linear(128, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[batch, length]`` to ``[batch, class]``."""
        return self.logits(self.norm(self.layers(self.embedding(tokens) + self.position)).mean(1))


class TransformerLayer(nn.Module):
    """Queries, keys and values by one product, and torch's fused attention, as in nanoGPT."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(128), nn.LayerNorm(128)
        self.attend, self.project = nn.Linear(128, 3 * 128), nn.Linear(128, 128)
        self.feed_forward = nn.Sequential(nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[batch, length, width]``."""
        batch, length, width = x.shape
        query, key, value = self.attend(self.norm1(x)).view(batch, length, 3, 4, width // 4).unbind(2)
        heads = (part.transpose(1, 2) for part in (query, key, value))
        seen = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.feed_forward(self.norm2(x))
