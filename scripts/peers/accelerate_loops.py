"""An epoch of Accelerate: its documentation's loop, with a ``DataLoader`` in the same process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from torch_loops import LR, make_model


def make_epoch(name: str, images: np.ndarray, classes: np.ndarray, batch: int) -> Callable[[], None]:
    """Return an epoch with fused Adam; the loss is summed on the device and read once."""
    accelerator = Accelerator(cpu=True)
    model = make_model(name)
    data = torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(classes, dtype=torch.int64))
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.Adam(model.parameters(), lr=LR, fused=True),
        torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, drop_last=True),
    )

    def epoch() -> None:
        total = torch.zeros(())
        for x, y in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            total += loss.detach()
        assert np.isfinite(total.item())

    return epoch
