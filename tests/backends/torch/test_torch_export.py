"""``torch.export`` programs: every layer, without a pickled object."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from conformance.cases import CASES, case_graph, case_inputs, case_weights

from unitrain.backends.contract import Settings
from unitrain.backends.numpy import BACKEND as NUMPY
from unitrain.backends.torch import export
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

FIRST = {case.layer.type: case for case in reversed(CASES)}
# A mask takes a way of its own through recurrent layers, and the state of an LSTM another.
FIRST |= {
    case.label: case
    for case in CASES
    if case.layer.type == "lstm" and case.layer.direction == "both" and case.layer.mask and case.input_shapes[2:] == ()
}


@pytest.mark.parametrize("case", FIRST.values(), ids=FIRST)
def test_every_layer_runs_from_the_file_at_any_batch(case, tmp_path):
    graph, weights, inputs = case_graph(case), case_weights(case), case_inputs(case)
    path = tmp_path / "layer.pt2"
    export.write_program(graph, weights, path)
    run = export.load_program(path, graph)
    right = NUMPY.compile(graph, weights, Settings(precision="float64")).predict(inputs)
    for batch in (1, len(next(iter(inputs.values())))):
        found = run({name: array[:batch] for name, array in inputs.items()})
        for name, array in found.items():
            wanted = right[name][:batch]
            assert array.shape == wanted.shape
            assert np.abs(array - wanted).max(initial=0.0) <= 3e-6 * (1 + np.abs(wanted).max(initial=0.0))


def _two_outputs():
    return resolve(
        ModelSpec.model_validate(
            {
                "inputs": {"b": {"shape": [3]}, "a": {"shape": [3]}},
                "layers": [
                    {"type": "dense", "name": "two", "inputs": ["b"], "units": 2},
                    {"type": "dropout", "name": "drop", "inputs": ["a"], "rate": 0.5},
                    {"type": "add", "name": "sum", "inputs": ["drop", "b"]},
                ],
                "outputs": ["two", "sum"],
            }
        )
    )


def test_a_program_is_called_with_inputs_in_order_and_gives_a_dictionary(tmp_path):
    graph = _two_outputs()
    weights = initialize(graph, 0)
    export.write_program(graph, weights, tmp_path / "x.pt2")
    module = torch.export.load(tmp_path / "x.pt2").module()
    b, a = np.arange(24, dtype="float32").reshape(2, 4, 3)
    found = module(torch.from_numpy(b), torch.from_numpy(a))
    assert found.keys() == {"two", "sum"}
    np.testing.assert_array_equal(found["sum"].detach().numpy(), a + b)  # no dropout in inference
    np.testing.assert_allclose(
        found["two"].detach().numpy(), b @ weights["two.kernel"] + weights["two.bias"], rtol=1e-5
    )


def test_the_file_holds_no_pickle_and_one_that_does_is_refused(tmp_path):
    graph = _two_outputs()
    path = tmp_path / "x.pt2"
    export.write_program(graph, initialize(graph, 0), path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            # A pickle of protocol 2 and above begins so; torch's own files are zip archives with one inside.
            assert not archive.read(entry).startswith((b"\x80\x02", b"\x80\x04", b"PK")), entry.filename
        names = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    held = io.BytesIO()
    torch.save((torch.zeros(2),), held)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, held.getvalue() if name.endswith("sample_inputs/model.pt") else content)
    with pytest.raises(InputError, match="pickled"):
        export.load_program(path, graph)


def test_torchs_onnx_exporter_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        export.write_onnx(_two_outputs(), {}, tmp_path / "x.onnx")
    assert "pip install onnxscript" in str(caught.value)
    assert not list(tmp_path.iterdir())
