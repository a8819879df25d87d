"""The processes that check cases beside each other end with the session."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]

SESSION = """\
import os
from pathlib import Path
from unitrain.verify.fuzz import workers

def check(case):
    Path(f"{os.getpid()}.worker").touch()
    return []

if __name__ == "__main__":
    for _ in workers.each_checked(check, 0, 0, 2, workers=2):
        pass
    for found in workers.each_checked(check, 0, 2, 4, workers=2):
        os.kill(os.getpid(), 9)
"""


def test_workers_end_with_a_session_that_is_killed(tmp_path):
    (tmp_path / "session.py").write_text(SESSION)
    done = subprocess.run(
        [sys.executable, "session.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    assert done.returncode == -9
    workers = [int(path.stem) for path in tmp_path.glob("*.worker")]
    assert workers
    deadline = time.monotonic() + 60
    while any(_runs(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_runs(worker) for worker in workers)


def _runs(process: int) -> bool:
    """Tell whether a process is there and not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
