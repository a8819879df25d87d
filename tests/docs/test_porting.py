"""The worked example of a port: the original passes, the port fails at its norms, mended it passes."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from unitrain.cli.main import app

PORTING = Path(__file__).parents[2] / "docs" / "porting"


def test_the_original_its_port_and_the_mended_port():
    words = ["verify", str(PORTING / "lenet.yaml"), "--json"]
    for model in ("lenet_torch.py:make_model", "lenet_keras.py:make_model", "lenet_keras.py:make_mended"):
        words += ["--against", str(PORTING / model)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [report["passed"] for report in reports] == [True, False, True]
    causes = reports[1]["causes"]
    assert [cause["part"] for cause in causes] == ["norm1", "norm2"]
    assert all("epsilon=0.001, the spec says 1e-05" in cause["text"] for cause in causes)
    # What the page shows of the output is what the command prints.
    page = (PORTING.parent / "porting.md").read_text(encoding="utf-8")
    assert " ".join(causes[0]["text"].split()) in " ".join(page.split())
    assert "lenet_torch.py" in page


def test_options_that_do_not_go_together():
    runner = CliRunner()
    spec = str(PORTING / "lenet.yaml")
    model = ["--against", str(PORTING / "lenet_torch.py:make_model")]
    for words, message in (
        ([spec, "--weights", "map.yaml"], "--weights needs --against"),
        ([spec, *model, "--backends", "torch"], "--backends does not go with --against"),
        ([spec, spec, *model], "--against takes one model"),
        ([spec, *model, "--layout", "nwhc"], "unknown layout 'nwhc'"),
    ):
        done = runner.invoke(app, ["verify", *words])
        assert message in str(done.exception), words
