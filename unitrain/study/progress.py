"""How a study tells what it is doing; a display fills this in."""

from __future__ import annotations

from collections.abc import Callable

from unitrain.train.events import Observer


class Progress:
    """Says nothing; a display overrides what it shows."""

    def begin(self, stage: str, total: int) -> None:
        """Begin a stage of so many steps."""

    def tell(self, message: str) -> None:
        """Say what is being done within the stage."""

    def step(self) -> None:
        """Finish a step."""

    def at(self, done: int) -> None:
        """Say how many steps are done."""

    def within(self, what: str, total: int) -> Callable[[int], None]:
        """Begin a part of a step; return what is to be told how much of it is done, ``total`` at its end."""
        return lambda done: None

    def training(self) -> Observer:
        """Return what shows a training within a step."""
        return Observer()

    def close(self) -> None:
        """Give the screen back."""
