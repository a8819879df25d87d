"""Modules that find statistics of the batch in training, such as batch norm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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

    def averages(self) -> tuple[list[torch.Tensor], float, torch.Tensor] | None:
        """Return two running averages, the share of a batch's in them, and a counter of batches; None for others."""
        return None


Moved = tuple[TracksStatistics, torch.Tensor, torch.Tensor]


@torch.no_grad()
def take_over(moved: Sequence[Moved], keep: torch.Tensor | None = None) -> None:
    """Take over what a step gave to many modules, averages of one share together: a call each is longer than the work.

    Parameters
    ----------
    moved
        Modules, each with the two statistics of a batch.
    keep
        A flag on the device: where it is down nothing moves. None for yes.
    """
    times = Counter(id(module) for module, _, _ in moved)
    together: dict[float, tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]] = {}
    for module, first, second in moved:
        # A shared module moves twice, one move after the other.
        averages = module.averages() if keep is None and times[id(module)] == 1 else None
        if averages is None:
            module.take_over(first, second, keep)
            continue
        running, share, counter = averages
        kept, found, counters = together.setdefault(share, ([], [], []))
        kept += running
        found += [first, second]
        counters.append(counter)
    for share, (kept, found, counters) in together.items():
        torch._foreach_mul_(kept, 1.0 - share)
        torch._foreach_add_(kept, found, alpha=share)
        torch._foreach_add_(counters, 1)
