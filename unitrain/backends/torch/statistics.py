"""Modules that find statistics of the batch in training, such as batch norm."""

from __future__ import annotations

import torch


class TracksStatistics(torch.nn.Module):
    """A module with statistics that move in training.

    ``pending`` decides what happens to what a batch gives: None takes it over at once, as torch's own modules do; a
    list collects it for a program that takes it over when the step is applied.
    """

    pending: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def found(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Take over two statistics, or leave them to the program."""
        if self.pending is None:
            self.take_over(first, second)
        else:
            self.pending.append((first, second))

    def take_over(self, first: torch.Tensor, second: torch.Tensor, keep: torch.Tensor | None = None) -> None:
        """Move the running statistics, unless the flag ``keep`` on the device is down."""
        raise NotImplementedError
