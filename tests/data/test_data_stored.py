"""What a run stored, applied to a user's file: the same arrays that training would have made."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from unitrain.data.load import apply_stored
from unitrain.data.preprocess import Preprocessing
from unitrain.spec.errors import InputError
from unitrain.spec.sources.idx import Idx
from unitrain.spec.sources.table import Table

ALL = {"validation": 0.0, "test": 0.0}
CSV = {"type": "table", "file": "a.csv", "target": "y"}


def through_json(state: Preprocessing) -> Preprocessing:
    return Preprocessing.from_plain(json.loads(json.dumps(state.to_plain())))


def learnt(workshop: Any, **fields: Any) -> Any:
    workshop.write("a.csv", "age,city,y\n20,Rome,no\n30,Oslo,yes\n40,Rome,yes\n")
    return workshop.prepare({"source": CSV, "split": ALL, **fields}, 3)


def test_the_training_file_gives_the_training_arrays(workshop: Any) -> None:
    prepared = learnt(workshop)
    applied = apply_stored(through_json(prepared.preprocessing), "a.csv", workshop.folder, targets="needed")
    np.testing.assert_array_equal(applied.data.inputs["x"], prepared.train.inputs["x"])
    np.testing.assert_array_equal(applied.data.targets["y"], prepared.train.targets["y"])


def test_a_file_without_targets_in_another_order_with_more_columns(workshop: Any) -> None:
    state = through_json(learnt(workshop, numeric="none").preprocessing)
    workshop.write("new.tsv", "city\tnote\tage\nRome\thi\t50\n")
    applied = apply_stored(state, workshop.folder / "new.tsv")
    assert applied.data.inputs["x"].tolist() == [[50, 0, 1]]
    assert not applied.data.targets
    assert applied.origin.name(0).endswith("new.tsv line 2")
    workshop.write("new.csv", "city,age,y\nRome,50,\nOslo,60,\n")
    assert not apply_stored(state, "new.csv", workshop.folder).data.targets
    with pytest.raises(InputError, match="the data has no target 'y'"):
        apply_stored(state, "new.tsv", workshop.folder, targets="needed")


def test_separator_and_missing_words_are_stored(workshop: Any) -> None:
    workshop.write("a.csv", "a;y\n1;k\n-;m\n3;k\n")
    source = {**CSV, "separator": ";", "missing_values": ["-"]}
    spec = {"source": source, "split": ALL, "missing": {"numeric": "mean"}, "numeric": "none"}
    state = through_json(workshop.prepare(spec, 1).preprocessing)
    workshop.write("b.csv", "a;y\n-;k\n7;m\n")
    applied = apply_stored(state, "b.csv", workshop.folder)
    assert applied.data.inputs["x"].tolist() == [[2], [7]]
    assert applied.data.targets["y"].tolist() == [0, 1]
    workshop.write("c.csv", "a,y\n5,k\n")
    other = apply_stored(state, Table(file="c.csv", target=("y",)), workshop.folder)
    assert other.data.inputs["x"].tolist() == [[5]]


def test_dropped_rows_leave_their_numbers(workshop: Any) -> None:
    state = through_json(learnt(workshop, missing={"numeric": "drop_row"}).preprocessing)
    workshop.write("new.csv", "age,city\n20,Rome\n,Rome\n40,Oslo\n")
    applied = apply_stored(state, "new.csv", workshop.folder)
    assert applied.data.rows.tolist() == [0, 2]
    assert applied.origin.name(2).endswith("line 4")
    assert "1 rows without 'age' dropped" in applied.notes[0]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("age,citty\n1,Rome\n", ["no column 'city'", "did you mean 'citty'?"]),
        ("age,city\n1,Rome\n2,Roma\n", ["new.csv:3", "'Roma'", "did you mean 'Rome'?"]),
        ("age,city\n1,Rome\n,Rome\n", ["new.csv:3: column 'age': a missing value"]),
        ("age,city\nold,Rome\n", ["new.csv:2: column 'age': not a number", "'old'"]),
        ("age,city,y\n1,Rome,maybe\n", ["new.csv:2: target 'y'", "'maybe'", "no, yes"]),
        ("age,city,y\n1,Rome,\n2,Rome,no\n", ["new.csv:2: target 'y': a missing value"]),
    ],
)
def test_mistakes_in_a_new_table(workshop: Any, text: str, parts: list[str]) -> None:
    state = through_json(learnt(workshop).preprocessing)
    workshop.write("new.csv", text)
    with pytest.raises(InputError) as caught:
        apply_stored(state, "new.csv", workshop.folder)
    for part in parts:
        assert part in str(caught.value)


def test_sets_with_class_names_take_names_and_codes(workshop: Any) -> None:
    prepared = workshop.prepare({"source": "iris"}, 4)
    names = list(prepared.preprocessing.feature_encoders())
    header = ",".join([*names, "target"])
    workshop.write("b.csv", f"{header}\n5,3,1,0.2,setosa\n6,3,5,2,virginica\n")
    workshop.write("c.csv", f"{header}\n5,3,1,0.2,0\n6,3,5,2,2\n")
    state = through_json(prepared.preprocessing)
    by_name, by_code = (apply_stored(state, file, workshop.folder).data for file in ("b.csv", "c.csv"))
    assert by_name.targets["y"].tolist() == by_code.targets["y"].tolist() == [0, 2]
    np.testing.assert_array_equal(by_name.inputs["x"], by_code.inputs["x"])


def test_pictures_for_a_run_on_digits(workshop: Any) -> None:
    prepared = workshop.prepare({"source": "digits", "pixels": "standardise"}, (8, 8, 1))
    state = through_json(prepared.preprocessing)
    row = int(prepared.train.rows[0])
    import sklearn.datasets

    digit = sklearn.datasets.load_digits().images[row]
    # White is 16 in the set and 255 in a picture: the same digit must come out the same, but for rounding.
    workshop.picture("one.png", np.round(digit * 255 / 16))
    applied = apply_stored(state, "one.png", workshop.folder)
    np.testing.assert_allclose(applied.data.inputs["x"], prepared.train.inputs["x"][:1], atol=0.01)
    np.savez(workshop.folder / "one.npz", image=digit[None])
    applied = apply_stored(state, "one.npz", workshop.folder)
    np.testing.assert_allclose(applied.data.inputs["x"], prepared.train.inputs["x"][:1], atol=1e-6)
    np.save(workshop.folder / "one.npy", digit[None].astype(np.uint8))
    applied = apply_stored(state, "one.npy", workshop.folder)
    np.testing.assert_allclose(applied.data.inputs["x"], prepared.train.inputs["x"][:1], atol=1e-6)


def test_folders_of_pictures_with_and_without_classes(workshop: Any) -> None:
    for number, name in enumerate(("cat", "dog")):
        for index in range(3):
            workshop.picture(f"set/{name}/{index}.png", np.full((4, 4, 3), 90 * number + index))
    source = {"type": "image_folder", "folder": "set"}
    prepared = workshop.prepare({"source": source, "split": ALL}, (4, 4, 3))
    state = through_json(prepared.preprocessing)
    applied = apply_stored(state, "set", workshop.folder, targets="needed")
    np.testing.assert_array_equal(applied.data.inputs["x"], prepared.train.inputs["x"])
    np.testing.assert_array_equal(applied.data.targets["y"], [0, 0, 0, 1, 1, 1])
    plain = apply_stored(state, "set/dog", workshop.folder)
    assert len(plain.data) == 3
    assert not plain.data.targets
    assert plain.origin.name(0).endswith("dog/0.png")
    workshop.picture("big.png", np.full((20, 20), 91))
    big = apply_stored(state, "big.png", workshop.folder)
    np.testing.assert_allclose(big.data.inputs["x"], 91 / 255, rtol=1e-6)
    assert "resized to 4 x 4" in big.notes[0]
    workshop.write("a.csv", "a\n1\n")
    with pytest.raises(InputError, match="has learnt from images"):
        apply_stored(state, "a.csv", workshop.folder)


def test_idx_files_find_their_labels(workshop: Any) -> None:
    images = np.random.default_rng(0).integers(256, size=(6, 3, 3))
    workshop.idx("t-images-idx3-ubyte.gz", images, True)
    workshop.idx("t-labels-idx1-ubyte.gz", [0, 1, 2, 0, 1, 2], True)
    source = {"type": "idx", "images": "t-images-idx3-ubyte.gz", "labels": "t-labels-idx1-ubyte.gz"}
    prepared = workshop.prepare({"source": source, "split": ALL}, (3, 3, 1))
    state = through_json(prepared.preprocessing)
    applied = apply_stored(state, "t-images-idx3-ubyte.gz", workshop.folder, targets="needed")
    np.testing.assert_array_equal(applied.data.inputs["x"], prepared.train.inputs["x"])
    np.testing.assert_array_equal(applied.data.targets["y"], [0, 1, 2, 0, 1, 2])
    again = apply_stored(state, Idx.model_validate(source), workshop.folder)
    np.testing.assert_array_equal(again.data.targets["y"], applied.data.targets["y"])
    workshop.idx("u-images-idx3-ubyte", images[:, :2])
    with pytest.raises(InputError, match="another shape than in training"):
        apply_stored(state, "u-images-idx3-ubyte", workshop.folder)


def test_numbers_are_scaled_as_in_training(workshop: Any) -> None:
    prepared = workshop.prepare({"source": "diabetes", "target_scaling": "standardise"}, 10)
    state = through_json(prepared.preprocessing)
    names = list(state.feature_encoders())
    workshop.write("b.csv", ",".join([*names, "target"]) + "\n" + ",".join(["1"] * 10 + ["150"]) + "\n")
    applied = apply_stored(state, "b.csv", workshop.folder)
    assert state.invert("y", applied.data.targets["y"]) == pytest.approx(150)


def test_unknown_kinds_of_file(workshop: Any) -> None:
    state = learnt(workshop).preprocessing
    workshop.write("a.doc", "x")
    with pytest.raises(InputError, match="files of this kind are not read"):
        apply_stored(state, "a.doc", workshop.folder)
    with pytest.raises(InputError, match="no such file"):
        apply_stored(state, "b.csv", workshop.folder)
    workshop.picture("p.png", np.zeros((4, 4)))
    with pytest.raises(InputError, match="has not learnt from images"):
        apply_stored(state, "p.png", workshop.folder)
    with pytest.raises(InputError, match="not a stored preprocessing"):
        Preprocessing.from_plain({"inputs": {"x": {"shape": "no"}}})


def test_a_recipe_prepared_with_a_stored_state_is_not_fitted_again(workshop: Any) -> None:
    from data_workshop import Input, make_generator

    from unitrain.data.load import prepare
    from unitrain.spec.data import DataSpec

    spec = DataSpec.model_validate({"source": "wine"})
    inputs = {"x": Input((13,))}
    first = prepare(spec, workshop.folder, inputs, ["y"], None, make_generator(0))
    state = through_json(first.preprocessing)
    again = prepare(spec, workshop.folder, inputs, ["y"], None, make_generator(0), state)
    np.testing.assert_array_equal(again.test.inputs["x"], first.test.inputs["x"])
    other = prepare(spec, workshop.folder, inputs, ["y"], None, make_generator(1), state)
    assert other.preprocessing == first.preprocessing
    assert abs(float(other.train.inputs["x"].mean())) > 1e-4
