"""An epoch of skorch, without its printed lines and its validation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch_loops import LR, make_model


def make_epoch(name: str, images: np.ndarray, classes: np.ndarray, batch: int) -> Callable[[], None]:
    """Return an epoch of ``partial_fit`` with fused Adam, all else as it comes."""
    net = NeuralNetClassifier(
        make_model(name),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=LR,
        batch_size=batch,
        iterator_train__shuffle=True,
        max_epochs=1,
        train_split=None,
        verbose=0,
    ).initialize()
    y = classes.astype(np.int64)

    def epoch() -> None:
        net.partial_fit(images, y)
        assert np.isfinite(net.history[-1]["train_loss"])

    return epoch
