"""``python -m unitrain`` is the command ``unitrain``."""

from __future__ import annotations

from unitrain.cli.main import command

if __name__ == "__main__":
    command()
