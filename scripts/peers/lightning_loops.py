"""An epoch of Lightning over the tiny model: bare, and with its bar and log."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import lightning
import numpy as np
import torch
from torch_loops import LR, make_model


class Classifier(lightning.LightningModule):
    """A model with cross-entropy and accuracy."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = make_model(name)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss, and log it with the accuracy."""
        x, y = batch
        logits = self.model(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        self.log("loss", loss, prog_bar=True)
        self.log("accuracy", (logits.argmax(-1) == y).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Fused Adam."""
        return torch.optim.Adam(self.parameters(), lr=LR, fused=True)


def make_epoch(name: str, images: np.ndarray, classes: np.ndarray, batch: int, *, bare: bool) -> Callable[[], None]:
    """Return an epoch of ``Trainer.fit``, with a ``DataLoader`` in the same process."""
    data = torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(classes, dtype=torch.int64))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, drop_last=True)
    folder = tempfile.mkdtemp()

    def epoch() -> None:
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=folder,
            enable_progress_bar=not bare,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=False if bare else lightning.pytorch.loggers.CSVLogger(folder),
        )
        trainer.fit(Classifier(name), loader)

    return epoch
