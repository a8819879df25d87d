"""The original: LeNet with batch norm and average pooling, as one writes it in torch."""

from __future__ import annotations

import torch
from torch import nn


class LeNet(nn.Module):
    """Grey images [batch, 1, 28, 28] to logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(400, 120), nn.ReLU(), nn.Dropout(0.25), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.classifier(torch.flatten(self.features(x), 1))


def make_model() -> nn.Module:
    """Build the model with weights that are the same each time; a real one would load its file here."""
    torch.manual_seed(0)
    model = LeNet()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor += 0.2 * torch.rand_like(tensor)  # as after some training: no bias is zero
    return model
