"""Runs killed by SIGKILL, at random instants and before every write: they go on to the same bits.

The long forms are those of scripts/soak.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from survival.runs import ROOT, environment


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--kills", "20", "--seed", "3"], "kills at random instants"),
        (["--writes", "-1", "--epochs", "1"], "killed before each of"),
    ],
    ids=["random", "writes"],
)
def test_killed_runs_go_on_to_the_same_bits(tmp_path: Path, options: list[str], expected: str) -> None:
    command = [sys.executable, ROOT / "tests" / "survival" / "killing.py", tmp_path, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert expected in done.stdout
    count = int("".join(filter(str.isdigit, done.stdout.partition(" in ")[0])))
    assert count >= 20
