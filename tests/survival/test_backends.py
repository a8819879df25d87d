"""Resume and determinism on every backend: the same bits on one, the trajectory verdict for all six ordered pairs."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from survival.runs import RECIPE, differences

from unitrain.train import plan
from unitrain.train.fit import fit, resume
from unitrain.train.recipe import load_recipe
from unitrain.train.run_folder import RunFolder
from unitrain.verify.growth import inherited_growth
from unitrain.verify.trajectory import DRIFT
from unitrain.verify.verdict import judge
from unitrain.weights.initialize import initialize

BACKENDS = ("numpy", "keras", "torch")
STEPS = 100
# As in the recipe, but long enough for 100 updates, and stopped by nothing else.
LONG = ["training.epochs=30", "training.early_stopping=null", "training.keep_best=null"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "iris.yaml").write_text(RECIPE)
    return folder


def go(place: Path, name: str, backend: str, steps: int, *more: str) -> Path:
    """Train from the start for a number of updates, once for all tests."""
    if not (place / name).exists():
        overrides = [*LONG, f"training.max_steps={steps}", *more]
        fit(place / "iris.yaml", backend=backend, out=place / name, overrides=overrides)
    return place / name


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(BACKENDS, 2)))
def test_half_on_one_backend_and_half_on_another_is_a_run_on_one(place, first, second):
    """Weights, running statistics and every optimizer slot after 50 steps on A and 50 on B, against 100 in float64."""
    half = go(place, f"half-{first}", first, STEPS // 2)
    changed = place / f"{first}-{second}"
    shutil.copytree(half, changed)
    end = resume(changed, backend=second, overrides=[f"training.max_steps={STEPS}"]).end
    assert end.updates == STEPS
    reference = go(place, "float64", "numpy", STEPS, "training.precision=float64")
    yardstick = go(place, "float32", "numpy", STEPS)
    found, right, rounded = (RunFolder(path).checkpoints.newest() for path in (changed, reference, yardstick))
    graph = load_recipe(place / "iris.yaml").graph
    start = initialize(graph, 0)
    growth = DRIFT * max(inherited_growth(graph, 15, training=True).values())
    for name in graph.parameters:
        changes = [one.weights[name].astype(np.float64) - start[name] for one in (found, right, rounded)]
        assert np.abs(changes[1]).max() > 0.01, name
        verdict = judge(changes[0].astype(np.float32), changes[1], changes[2], growth=growth)
        assert verdict.passed, f"{name}: {verdict}"
    assert found.slots.keys() == right.slots.keys() >= {"ema"}
    for slot, arrays in right.slots.items():
        for name, array in arrays.items():
            verdict = judge(found.slots[slot][name], array, rounded.slots[slot][name], growth=growth)
            assert verdict.passed, f"{slot} of {name}: {verdict}"
    counters = [(one.state.batches, one.state.updates, one.state.epoch, one.state.batch) for one in (found, right)]
    assert counters[0] == counters[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_how_fast_the_machine_is_changes_no_bit(place, backend, monkeypatch):
    """The length of a block of steps follows the clock, and with it where sums over an epoch are cut."""
    changes = ["training.checkpoint_steps=null", "training.epochs=4"]
    runs = []
    for length in (1, 3, 100):
        monkeypatch.setattr(
            plan.BlockLength, "observe", lambda self, *_, length=length: setattr(self, "length", length)
        )
        runs.append(place / f"blocks-{backend}-{length}")
        fit(place / "iris.yaml", backend=backend, out=runs[-1], overrides=changes)
    assert differences(runs[0], runs[1]) == []
    assert differences(runs[0], runs[2]) == []


def test_a_slot_that_is_not_taken_up_would_be_seen(place):
    """The verdict of the pairs fails when the second half begins with an empty optimizer: it can fail."""
    half = go(place, "half-numpy", "numpy", STEPS // 2)
    shutil.copytree(half, place / "forgotten")
    folder = RunFolder(place / "forgotten")
    newest = folder.checkpoints.newest()
    for arrays in newest.slots.values():
        for array in arrays.values():
            array[...] = 0
    newest.save(folder.checkpoints.file(newest.state.batches))
    resume(folder.path, overrides=[f"training.max_steps={STEPS}"])
    right = RunFolder(go(place, "float64", "numpy", STEPS, "training.precision=float64")).checkpoints.newest()
    rounded = RunFolder(go(place, "float32", "numpy", STEPS)).checkpoints.newest()
    graph = load_recipe(place / "iris.yaml").graph
    growth = DRIFT * max(inherited_growth(graph, 15, training=True).values())
    found = folder.checkpoints.newest().weights["hidden.kernel"]
    start = initialize(graph, 0)["hidden.kernel"]
    changes = [w.astype(np.float64) - start for w in (found, *(c.weights["hidden.kernel"] for c in (right, rounded)))]
    assert not judge(changes[0].astype(np.float32), changes[1], changes[2], growth=growth).passed


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_runs_are_the_same_and_so_is_one_broken_off_within_an_epoch(place, backend):
    whole, again, parts = (place / f"{name}-{backend}" for name in ("whole", "again", "parts"))
    fit(place / "iris.yaml", backend=backend, out=whole, overrides=["training.epochs=6"])
    fit(place / "iris.yaml", backend=backend, out=again, overrides=["training.epochs=6"])
    assert differences(whole, again) == []
    fit(place / "iris.yaml", backend=backend, out=parts, overrides=["training.epochs=6", "training.max_steps=10"])
    stopped = RunFolder(parts).checkpoints.newest()
    assert stopped is not None
    assert stopped.state.batch > 0
    resume(parts, overrides=["training.max_steps=null"])
    assert differences(whole, parts) == []
