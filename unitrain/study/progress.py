"""How a study tells what it is doing; a display fills this in."""

from __future__ import annotations


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

    def close(self) -> None:
        """Give the screen back."""
