"""An epoch of Lightning: bare, and with its bar and log."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable

import lightning
import numpy as np
import torch
from torch_loops import LR, make_model


class Classifier(lightning.LightningModule):
    """A model with cross-entropy; with ``logs`` the loss and the accuracy of each step are logged."""

    def __init__(self, name: str, logs: bool) -> None:
        super().__init__()
        self.model = make_model(name)
        self.logs = logs

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss."""
        x, y = batch
        logits = self.model(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        if self.logs:
            self.log("loss", loss, prog_bar=True)
            self.log("accuracy", (logits.argmax(-1) == y).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Fused Adam."""
        return torch.optim.Adam(self.parameters(), lr=LR, fused=True)


def make_epoch(name: str, images: np.ndarray, classes: np.ndarray, batch: int, *, bare: bool) -> Callable[[], None]:
    """Return an epoch of ``Trainer.fit``, with a ``DataLoader`` in the same process.

    One trainer goes on from epoch to epoch, so that making it is not timed, as it is not for the others. Bare is
    without bar, log, checkpoints and accuracy, which ours computes nevertheless. The bar is drawn for nobody.
    """
    data = torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(classes, dtype=torch.int64))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, drop_last=True)
    folder = tempfile.mkdtemp()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        max_epochs=0,
        accelerator="cpu",
        default_root_dir=folder,
        enable_progress_bar=not bare,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False if bare else lightning.pytorch.loggers.CSVLogger(folder),
    )
    model = Classifier(name, logs=not bare)

    def epoch() -> None:
        before = trainer.global_step
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # advice on workers, of which data in memory needs none
            trainer.fit(model, loader)
        assert trainer.global_step - before == len(loader)

    return epoch
