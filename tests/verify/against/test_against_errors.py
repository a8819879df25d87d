"""What a user can get wrong: the file, the attribute, the model, the map. Each error says where and what."""

from __future__ import annotations

import pytest
from torch import nn
from verify.against.against_specs import against, image, subject

from unitrain.backends.torch.foreign import wrap
from unitrain.spec.errors import InputError
from unitrain.spec.yaml import parse_yaml, read_yaml
from unitrain.verify.against import against_report, load_foreign

TWO = (
    {"type": "dense", "name": "first", "units": 4, "activation": "relu"},
    {"type": "dense", "name": "second", "units": 4},
)


def two():
    return subject({"x": {"shape": [4]}}, *TWO)


def failed(function, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def written(folder, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


def test_text_that_names_nothing():
    for text in ("mine", "mine.py", "mine.txt:model", "mine.py:not a name"):
        assert "path.py:make_model or model.onnx" in failed(load_foreign, text)


def test_a_file_that_is_missing_has_its_neighbours_for_a_hint(tmp_path):
    written(tmp_path, "")
    text = failed(load_foreign, f"{tmp_path}/mime.py:make")
    assert "no such file" in text
    assert "did you mean 'mine.py'?" in text


def test_an_attribute_that_is_missing(tmp_path):
    path = written(tmp_path, "import os\ndef make_model():\n    return None\n")
    text = failed(load_foreign, f"{path}:make_modle")
    assert "has no 'make_modle'" in text
    assert "allowed: make_model\n" in text
    assert "did you mean 'make_model'?" in text


@pytest.mark.parametrize(
    ("code", "line", "words"),
    [
        ("x = 1\ny = nothing\ndef make(): pass\n", 2, "NameError: name 'nothing'"),
        ("def make():\n    a = 1\n    return a / 0\n", 3, "ZeroDivisionError"),
        ("def make(:\n", 1, "SyntaxError"),
        ("def make(size):\n    pass\n", None, "TypeError"),
        ("import sys\nsys.exit(3)\n", None, "ends the program"),
    ],
)
def test_what_the_users_code_raises_is_told_with_its_line(tmp_path, code, line, words):
    path = written(tmp_path, code)
    text = failed(load_foreign, f"{path}:make")
    assert words in text
    assert "Traceback" not in text
    assert text.startswith(f"{path}:{line}: " if line else f"{path}: ")


def test_something_else_than_a_model(tmp_path):
    path = written(tmp_path, "def make():\n    return [1, 2]\n")
    text = failed(load_foreign, f"{path}:make")
    assert "found:   list" in text
    assert "torch.nn.Module or a keras.Model" in text


def test_a_model_object_does_as_well_as_a_function(tmp_path):
    path = written(tmp_path, "import helper\nmodel = helper.model\ndef make():\n    return model\n")
    (tmp_path / "helper.py").write_text("from torch import nn\nmodel = nn.Linear(3, 2)\n")
    assert load_foreign(f"{path}:model").label == "torch model"
    assert load_foreign(f"{path}:make").label == "torch model"


def test_an_error_in_the_forward_pass_has_the_users_line(tmp_path):
    code = (
        "from torch import nn\n"
        "class Model(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a = nn.Linear(5, 4)\n"
        "    def forward(self, x):\n"
        "        return self.a(x)\n"
    )
    path = written(tmp_path, code)
    text = failed(against_report, two(), f"{path}:Model")
    assert f"{path}:7: the model does not run on the spec's inputs: RuntimeError" in text
    assert "x [16, 4]" in text


def test_weights_that_do_not_match_up_are_named_on_both_sides():
    text = failed(against, two(), wrap(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))))
    assert "second.bias [4]" in text
    assert "--write-map" in text
    text = failed(against, two(), wrap(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4))))
    assert "first.kernel [4, 4]" in text
    assert "0.weight [5, 4]" in text


def test_parameters_that_the_spec_has_not_fail():
    layers = ({**TWO[0], "use_bias": False}, TWO[1])
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    nn.init.zeros_(model[0].bias)
    report = against(subject({"x": {"shape": [4]}}, *layers), wrap(model))
    assert not report.passed
    assert any("0.bias" in cause.diagnosis for cause in report.causes)


def exchanged() -> nn.Module:
    """Two layers of one shape, of which the second one is made first."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.a = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.b(self.a(x).relu())

    return Model()


def test_the_order_of_use_decides_and_not_the_order_of_making(tmp_path):
    model = exchanged()
    assert against(two(), wrap(model), write_map=tmp_path / "map.yaml").passed
    written_map = read_yaml(tmp_path / "map.yaml").data
    assert written_map["first.kernel"] == {"name": "a.weight", "transpose": [1, 0]}
    assert written_map["second.bias"] == "b.bias"
    # What was written is read again.
    assert against(two(), wrap(model), weight_map=read_yaml(tmp_path / "map.yaml")).passed


def test_a_map_settles_what_cannot_be_guessed():
    """The names say the contrary of the order: by name the layers are exchanged, by the map they are not."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.first(self.second(x).relu())

    model = Model()
    report = against(two(), wrap(model))
    assert not report.passed
    assert "mapped the wrong way round" in report.causes[0].diagnosis
    names = {"first": "second", "second": "first"}
    lines = [
        f"{ours}.{a}: {theirs}.{b}"
        for ours, theirs in names.items()
        for a, b in (("kernel", "weight"), ("bias", "bias"))
    ]
    assert against(two(), wrap(model), weight_map=parse_yaml("\n".join(lines))).passed


def test_a_wrong_transpose_is_the_users_choice_and_fails():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    report = against(two(), wrap(model), weight_map=parse_yaml("first.kernel: {name: 0.weight, transpose: [0, 1]}"))
    assert [cause.part for cause in report.causes] == ["first"]
    assert "transposed" in report.causes[0].diagnosis


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("frist.kernel: 0.weight", "did you mean 'first.kernel'?"),
        ("first.kernel: 0.wieght", "did you mean '0.weight'?"),
        ("first.kernel: [0.weight]", "must be a name, or {name: ..., transpose: [...]}"),
        ("first.kernel: {name: 0.weight, turn: 1}", "must be a name"),
        ("first.kernel: {name: 0.weight, transpose: [0, 2]}", "the shapes do not fit"),
        ("first.kernel: 0.bias", "the shapes do not fit"),
    ],
)
def test_mistakes_in_a_map_have_their_line(line, words):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    text = failed(against, two(), wrap(model), weight_map=parse_yaml(f"# a map\n{line}", "map.yaml"))
    assert text.startswith("map.yaml:2: ")
    assert words in text


def test_a_layout_that_is_stated_is_not_guessed():
    spec = subject(image(5, 5, 3), {"type": "conv2d", "name": "c", "filters": 2, "kernel_size": 3})
    model = wrap(nn.Conv2d(3, 2, 3))
    assert against(spec, model, layout="nchw").passed
    assert "does not run" in failed(against, spec, model, layout="nhwc")
