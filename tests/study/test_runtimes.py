"""Other runtimes: torch.compile is a row where there is a compiler, and its reason where there is none."""

from __future__ import annotations

import json

import pytest
import torch._inductor.config

from unitrain.cli.main import main


@pytest.fixture
def studied(run, tmp_path, capsys):
    """Return a function that studies the run beside torch.compile and gives that row."""

    def study() -> dict:
        options = ["--variants", "torch-compiled", "--rounds", "5", "--out", str(tmp_path / "s"), "--json"]
        with pytest.raises(SystemExit) as caught:
            main(["study", str(run), *options])
        assert not caught.value.code
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [row["name"] for row in rows] == ["fp32", "torch-compiled"]
        return rows[1]

    return study


@pytest.fixture(autouse=True)
def no_kernels_of_earlier_tests(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))


def test_without_a_compiler_the_row_says_so(studied):
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        row = studied()
    assert row["failure"].startswith(
        "torch.compile does not work here: InductorError: InvalidCxxCompiler: No working C++"
    )
    assert row["latency"] == {}


def test_compiled_it_computes_what_the_float_model_does(studied):
    row = studied()
    assert row["failure"] == ""
    assert row["gates"] == {"runs": "ok", "agrees": "ok"}
    assert set(row["latency"]) == {"single stream", "offline"}
