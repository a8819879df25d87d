"""What the fuzzer has found, and has been mended: small models that must pass on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitrain.backends import BACKENDS
from unitrain.verify.session import verify
from unitrain.verify.source import read_subject

CASES = sorted(Path(__file__).parent.glob("*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_it_passes_on_every_backend(path: Path) -> None:
    report = verify(read_subject(path), dict.fromkeys(BACKENDS, "cpu"), steps=12)
    assert report.passed, [str(cause) for cause in report.causes]
    assert set(report.backends) == set(BACKENDS)


def test_there_are_some() -> None:
    assert len(CASES) >= 12
