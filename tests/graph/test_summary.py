"""Counts of `summarise` against counts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitrain.graph.resolve import resolve
from unitrain.graph.summary import Summary, summarise
from unitrain.spec.base import load_spec
from unitrain.spec.model import ModelSpec

MODELS = Path(__file__).resolve().parents[2] / "models"


def _summary(file: str, depth: int | None = None) -> Summary:
    return summarise(resolve(load_spec(ModelSpec, MODELS / file)), depth)


def test_lenet5_layer_by_layer() -> None:
    rows = {row.name: row for row in _summary("lenet5.yaml").rows}
    # kernel area x in x out + out; LeCun et al. 1998 with full connections, on 28 x 28.
    assert {name: row.parameters for name, row in rows.items() if row.parameters} == {
        "conv1": 25 * 6 + 6,
        "conv2": 25 * 6 * 16 + 16,
        "fc1": 400 * 120 + 120,
        "fc2": 120 * 84 + 84,
        "logits": 84 * 10 + 10,
    }
    assert {name: row.macs for name, row in rows.items() if row.macs} == {
        "conv1": 28 * 28 * 25 * 6,
        "conv2": 10 * 10 * 25 * 6 * 16,
        "fc1": 400 * 120,
        "fc2": 120 * 84,
        "logits": 84 * 10,
    }
    assert rows["pool2"].output_shape == (5, 5, 16)
    assert all(row.sequential for row in rows.values())


def test_totals_are_the_sums_of_the_rows_at_every_depth() -> None:
    for depth in (1, 2, 3, None):
        found = _summary("resnet20.yaml", depth)
        # He et al. 2015, table 6: 0.27 million parameters; 16 + 3 x (6 x 16 + ...) counted for this variant below.
        assert sum(row.parameters for row in found.rows) == found.parameters == 272_474
        # Two statistics a channel: 1 + 6 norms of 16, 7 of 32 and 7 of 64 channels, shortcuts included.
        assert sum(row.statistics for row in found.rows) == found.statistics == 2 * (7 * 16 + 7 * 32 + 7 * 64)
        assert sum(row.macs for row in found.rows) == found.macs
        assert sum(row.layers for row in found.rows) == 72
        assert found.weight_bytes() == 4 * (found.parameters + found.statistics)
        assert found.weight_bytes(8) == 2 * found.weight_bytes()


def test_depth_takes_blocks_together() -> None:
    rows = _summary("resnet20.yaml", 1).rows
    assert [row.name for row in rows] == [
        "stem",
        "stem_relu",
        "stage1",
        "down2",
        "stage2",
        "down3",
        "stage3",
        "pool",
        "logits",
    ]
    stage = rows[2]
    assert (stage.type, stage.layers, stage.output_shape) == ("block", 21, (32, 32, 16))
    # Three residual blocks of two convolutions 3 x 3 x 16 x 16 with scale and bias.
    assert stage.parameters == 3 * 2 * (9 * 16 * 16 + 2 * 16)
    assert all(row.sequential for row in rows)


def test_branches_name_what_they_read() -> None:
    rows = {row.name: row for row in _summary("resnet20.yaml").rows}
    add = rows["stage1.0.add"]
    assert not add.sequential
    assert add.inputs == ("stage1.0.second.norm", "stem_relu")


@pytest.fixture
def siamese() -> Summary:
    spec = ModelSpec.model_validate(
        {
            "inputs": {"left": {"shape": [6]}, "right": {"shape": [6]}},
            "layers": [
                {"type": "dense", "name": "tower", "units": 4, "inputs": "left"},
                {"type": "shared", "name": "twin", "layer": "tower", "inputs": "right"},
                {"type": "concatenate", "name": "both", "inputs": ["tower", "twin"]},
            ],
        }
    )
    return summarise(resolve(spec))


def test_shared_weights_count_once_and_their_work_twice(siamese: Summary) -> None:
    tower, twin, both = siamese.rows
    assert (tower.parameters, tower.macs, tower.shared_with) == (6 * 4 + 4, 24, ())
    assert (twin.parameters, twin.macs, twin.shared_with) == (0, 24, ("tower",))
    assert siamese.parameters == 28
    assert siamese.macs == 48
    assert (tower.sequential, twin.sequential, both.sequential) == (False, False, False)
