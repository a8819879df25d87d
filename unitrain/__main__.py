"""``python -m unitrain`` is the command ``unitrain``."""

from __future__ import annotations

from unitrain.cli.main import main

if __name__ == "__main__":
    main()
