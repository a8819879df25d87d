"""The loops that a careful torch user writes by hand: data in memory as one tensor, fused Adam, no waiting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch_models import make_model

LR = 1e-3


def make_epoch(
    name: str,
    images: np.ndarray,
    classes: np.ndarray,
    batch: int,
    *,
    channels_last: bool = False,
    device: str = "cpu",
) -> Callable[[], None]:
    """Return an epoch: shuffled batches by index, loss and accuracy summed on the device, read once at the end.

    Parameters
    ----------
    images
        ``[samples, features]``, ``[samples, height, width, channel]``, which becomes channels first, or tokens
        ``[samples, length]``.
    classes
        ``[samples]``.
    channels_last
        Whether model and images lie in memory channels last.
    device
        Where all lies.
    """
    model, x, y = _prepared(name, images, classes, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)

    def epoch() -> None:
        order = torch.randperm(len(x), device=device)
        total, right = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
        for start in range(0, len(x) - batch + 1, batch):
            rows = order[start : start + batch]
            target = y[rows]
            optimizer.zero_grad(set_to_none=True)
            logits = model(x[rows])
            loss = nn.functional.cross_entropy(logits, target)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                total += loss
                right += (logits.argmax(-1) == target).sum()
        assert np.isfinite(total.item())
        assert right.item() >= 0

    return epoch


def make_graphed_epoch(
    name: str, images: np.ndarray, classes: np.ndarray, batch: int, *, device: str = "cuda"
) -> Callable[[], None]:
    """Return the same epoch with its step recorded once as a CUDA graph, and replayed; arguments as of `make_epoch`.

    Notes
    -----
    Warmed up on a side stream and captured whole, as torch's notes on CUDA graphs have it ("Whole-network capture").
    """
    model, x, y = _prepared(name, images, classes, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True, capturable=True)
    rows = torch.zeros(batch, dtype=torch.int64, device=device)
    total, right = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)

    def step() -> None:
        target = y[rows]
        optimizer.zero_grad(set_to_none=True)
        logits = model(x[rows])
        loss = nn.functional.cross_entropy(logits, target)
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())
        right.add_((logits.detach().argmax(-1) == target).sum())

    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()

    def epoch() -> None:
        order = torch.randperm(len(x), device=device)
        total.zero_()
        right.zero_()
        for start in range(0, len(x) - batch + 1, batch):
            rows.copy_(order[start : start + batch])
            graph.replay()
        assert np.isfinite(total.item())

    return epoch


def _prepared(
    name: str, images: np.ndarray, classes: np.ndarray, device: str
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    x = torch.tensor(images if images.ndim == 2 else images.transpose(0, 3, 1, 2).copy())
    x = x if x.is_floating_point() else x.long()
    return make_model(name).to(device), x.to(device), torch.tensor(classes, dtype=torch.int64, device=device)
