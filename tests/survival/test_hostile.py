"""Hostile input, the short form: changed files of every kind, and what an attacker would make by hand.

The long form is that of scripts/soak.
"""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from survival import hostile, sources
from survival.hostile import BYTES, KINDS, SECONDS, cases
from survival.runs import RECIPE, ROOT

from unitrain.cli.main import main
from unitrain.data import files
from unitrain.train.fit import fit

SHORT = 40


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_changed_files_end_in_success_or_in_a_clear_error(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)  # no reports, which take most of the time
    (tmp_path / "place").mkdir()
    assert list(cases(kind, SHORT, 12, tmp_path / "place")) == []


def test_the_fuzzer_sees_what_ends_badly(tmp_path, monkeypatch):
    """A bug, a file outside and a hang, planted: each is found."""
    kind = next(kind for kind in KINDS if kind.name == "csv")

    def bug(arguments):
        raise RuntimeError("planted")

    def outside(arguments):
        Path("../outside").write_text("")
        return 0, ""

    def hang(arguments):
        time.sleep(60)

    monkeypatch.setattr(hostile, "SECONDS", 0.2)
    for number, (planted, expected) in enumerate([(bug, "planted"), (outside, "outside"), (hang, "took more")]):
        monkeypatch.setattr(hostile, "_command", planted)
        folder = tmp_path / str(number) / "inner"
        folder.mkdir(parents=True)
        kind.make(folder)
        assert expected in str(hostile.trouble(kind, folder))


def refused(capsys, *arguments: str) -> str:
    """See that a command line is refused in time; return what it says."""
    started = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    said = capsys.readouterr().err
    assert caught.value.code == 2, said
    assert "Traceback" not in said
    assert time.monotonic() - started < SECONDS
    return said


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "inner"
    place.mkdir()
    (place / "iris.yaml").write_text(RECIPE)
    monkeypatch.chdir(place)
    return place


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return os.makedirs, ("pwned", 0o777, True)


@pytest.mark.parametrize("source", ["npz", "npy"])
@pytest.mark.parametrize("stream", ["auto", "always"])
def test_python_objects_in_arrays_are_refused_and_never_unpickled(folder, capsys, source, stream):
    x = np.empty(20, dtype=object)
    x[:] = [Payload() for _ in range(20)]
    y = np.zeros(20, np.int64)
    if source == "npz":
        np.savez("data.npz", x=x, y=y)
        text = "{type: npz, file: data.npz, inputs: {features: x}, targets: {y: y}}"
    else:
        np.save("x.npy", x)
        np.save("y.npy", y)
        text = "{type: npy, inputs: {features: x.npy}, targets: {y: y.npy}}"
    recipe = hostile.TABLE.replace("SOURCE, ", f"{text}, stream: {stream}, ")
    (folder / "recipe.yaml").write_text(recipe)
    assert "Python objects" in refused(capsys, "fit", "recipe.yaml")
    assert not (folder / "pwned").exists()
    pickle.loads(pickle.dumps(x))  # the payload works where somebody unpickles
    assert (folder / "pwned").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: !!python/object/apply:os.mkdir [pwned]", "tags"),
        ("x: !!python/name:os.system", "tags"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)),
            "too many values",
        ),
        ("a: &a [*a]", "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "9" * 4000, "too long"),
    ],
    ids=["apply", "name", "anchors", "recursion", "depth", "digits"],
)
def test_yaml_builds_nothing_and_does_not_explode(folder, capsys, text, expected):
    (folder / "evil.yaml").write_text(text)
    for verb in ("fit", "check"):
        with pytest.raises(SystemExit) as caught:
            main([verb, "evil.yaml"])
        assert caught.value.code in (1, 2)
        printed = capsys.readouterr()
        assert expected in printed.err + printed.out
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/b", "..", ".", "a\\b", "", "a\nb", "x" * 300])
def test_a_name_leads_to_no_other_folder(folder, capsys, name):
    before = sorted(folder.parent.rglob("*"))
    said = refused(capsys, "fit", "iris.yaml", "--set", f"name={name!r}" if name else "name=''")
    assert "name" in said
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize("link", [".lock", "metrics.jsonl", "checkpoints", "recipe.yaml", "weights.safetensors"])
def test_a_run_folder_with_a_symbolic_link_is_not_written(folder, capsys, link):
    run = fit("iris.yaml", out="run", overrides=["training.max_steps=5"]).folder
    outside = folder.parent / "outside"
    (run.path / link).rename(outside)
    (run.path / link).symlink_to(outside)
    content = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    assert "symbolic link" in refused(capsys, "fit", "--resume", "run", "--set", "training.max_steps=null")
    assert content == {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}


def test_what_unpacks_to_too_much_is_refused_before_it_is(folder, capsys, monkeypatch):
    """Bombs at a thousandth of their size: the same rule with a smaller bound."""
    import pyarrow as pa
    import pyarrow.parquet

    monkeypatch.setattr(files, "_BOMB_BYTES", 2**20)
    rows = 2**18
    np.savez_compressed("data.npz", x=np.zeros((rows, 2)), y=np.zeros(rows, np.int64))
    pyarrow.parquet.write_table(pa.table({"a": np.zeros(rows), "kind": np.zeros(rows, np.int8)}), "data.parquet")
    Path("images").write_bytes(gzip.compress(struct.pack(">4BIII", 0, 0, 8, 3, rows, 4, 4) + bytes(16 * rows)))
    Path("labels").write_bytes(gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, rows) + bytes(rows)))
    for source, text in {
        "{type: npz, file: data.npz, inputs: {features: x}, targets: {y: y}}": hostile.TABLE,
        "{type: table, file: data.parquet, target: kind}": hostile.TABLE,
        "{type: idx, images: images, labels: labels}": hostile.IMAGES,
    }.items():
        (folder / "recipe.yaml").write_text(text.replace("SOURCE", source))
        assert "unpacks to too much" in refused(capsys, "fit", "recipe.yaml")


@pytest.mark.parametrize(
    ("make", "place"),
    [(hostile._png, "pictures/no/changed.png"), (sources.masks, "masks/03.png")],
    ids=["picture", "mask"],
)
def test_a_picture_that_declares_900_million_pixels_is_refused(folder, capsys, make, place):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    make(folder)
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / place).write_bytes(picture)
    assert "decompression bomb" in refused(capsys, "fit", "recipe.yaml")


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "./../secret"])
def test_onnx_data_outside_the_model_s_folder_are_not_read(folder, capsys, location):
    import onnx

    hostile._onnx(folder)
    model = onnx.load("model.onnx")
    tensor = model.graph.initializer[0]
    (folder.parent / "secret").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    Path("model.onnx").write_bytes(model.SerializeToString())
    assert "model.onnx" in refused(capsys, "verify", "run", "--against", "model.onnx", "-q")


@pytest.mark.parametrize(
    "override",
    [
        "model.layers.0.units=1000000000000",
        "model.layers.0={type: embedding, name: hidden, rows: 100000000000, units: 64}",
        "model.inputs.features.shape=[1000000000000]",
        "model.inputs.features.shape=[1000000, 1000000, 1000000]",
        "seed=1e400",
    ],
)
def test_giant_shapes_and_numbers_are_refused_without_taking_memory(folder, capsys, override):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refused(capsys, "fit", "iris.yaml", "--set", override)
    assert "--set" in said or "memory" in said or "shape" in said
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES // 4


def test_a_recipe_runs_no_python_file(folder, capsys):
    (folder / "evil.py").write_text("import os; os.mkdir('pwned')")
    refused(capsys, "fit", "iris.yaml", "--set", "model=evil.py")
    refused(capsys, "fit", "iris.yaml", "--set", "model={file: 'evil.py:make'}")
    assert not (folder / "pwned").exists()


def test_nothing_is_reported_to_the_makers_of_onnxruntime(tmp_path):
    """It would leave a device's number and what waits to be sent in the user's cache, as without the switch it does."""
    reports = {}
    for switched, code in ((False, "import onnxruntime"), (True, "import unitrain.backends.onnx, onnxruntime")):
        home = tmp_path / str(switched)
        home.mkdir()
        # Little else, for variables of a continuous integration keep it quiet too.
        surroundings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home)}
        subprocess.run([sys.executable, "-c", code], env=surroundings, check=True, timeout=120)
        reports[switched] = [path.name for path in home.rglob("*") if path.is_file()]
    assert reports[True] == []
    assert reports[False] != []
