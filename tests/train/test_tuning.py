"""Which form of a program is taken: by its time, where its numbers agree; and what is kept of it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitrain.backends import load_backend
from unitrain.backends.contract import Batchable, Candidate, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.execution import ExecutionSpec
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam
from unitrain.train.losses import make_loss
from unitrain.train.plan import Batches
from unitrain.train.tuner import Trial, Tuner
from unitrain.train.tuning import best, choose, try_all
from unitrain.train.tuning_cache import KnownTrials, describe
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

TUNED = ExecutionSpec(mode="tuned", seconds=0.05)
SETTINGS = Settings(deterministic=False, seed=3)


class Forms:
    """NumPy with forms that a test plants: what happens in a block of steps."""

    name, trains, precisions = "numpy", True, ("float32", "float64")

    def __init__(self, first_seconds: float = 0.0, **planted: Any) -> None:
        self.planted, self.first_seconds = planted, first_seconds
        self.compiled: list[str | None] = []

    def candidates(self, graph: Any, settings: Settings) -> tuple[Candidate, ...]:
        others = (Candidate(name, f"planted {name}", self.first_seconds) for name in self.planted)
        return (Candidate("standard", "as it is"), *others)

    def compile(self, graph: Any, weights: Any, settings: Settings, rule: TrainingRule | None = None) -> Any:
        self.compiled.append(settings.execution)
        program: Any = load_backend("numpy").compile(graph, weights, replace(settings, execution=None), rule)
        plant = self.planted.get(settings.execution or "")
        if plant is not None:
            right = program.run_steps
            program.run_steps = lambda placed, plan: plant(program, right, placed, plan)
        elif self.planted:
            right = program.run_steps
            program.run_steps = lambda placed, plan: slowly(program, right, placed, plan)
        return program


def slowly(program: Any, right: Any, placed: Any, plan: Any) -> Any:
    time.sleep(0.002 * len(plan))
    return right(placed, plan)


def faster(program: Any, right: Any, placed: Any, plan: Any) -> Any:
    return right(placed, plan)


def slower(program: Any, right: Any, placed: Any, plan: Any) -> Any:
    time.sleep(0.006 * len(plan))
    return right(placed, plan)


def wrong(program: Any, right: Any, placed: Any, plan: Any) -> Any:
    """Fast, and of a batch it leaves out the last sample."""
    return right(placed, replace(plan, indices=plan.indices[:, :-1]))


def broken(program: Any, right: Any, placed: Any, plan: Any) -> Any:
    raise RuntimeError("no compiler\nat all")


def make_tuner(backend: Any, steps: int = 1000, settings: Settings = SETTINGS, dropout: bool = False) -> Tuner:
    layers: list[dict[str, Any]] = [
        {"type": "dense", "units": 8, "activation": "relu"},
        *([{"type": "dropout", "rate": 0.5}] if dropout else []),
        {"type": "dense", "name": "y", "units": 3},
    ]
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [5]}}, "layers": layers}))
    generator = np.random.default_rng(0)
    data = Batchable(
        {"x": generator.normal(size=(50, 5)).astype(np.float32)}, {"y": generator.integers(0, 3, 50).astype(np.int32)}
    )
    update = Update(Adam(lr=0.01), {name: parameter.decay for name, parameter in graph.parameters.items()})
    rule = TrainingRule({"y": (1.0, make_loss(CrossEntropy()))}, [], update)
    return Tuner(backend, graph, initialize(graph, 0), settings, rule, update, data, Batches(50, 8), steps)


def test_the_faster_form_is_taken(tmp_path: Path) -> None:
    choice = choose(TUNED, make_tuner(Forms(slower=slower, faster=faster)), KnownTrials(tmp_path))
    assert choice.candidate == "faster"
    standard, slow, fast = choice.trials
    assert [standard.candidate, slow.candidate, fast.candidate] == ["standard", "slower", "faster"]
    # The standard form sleeps 2 ms a step, the slower one 6; both cannot take less.
    assert standard.step_seconds is not None
    assert standard.step_seconds >= 0.002
    assert slow.step_seconds is not None
    assert slow.step_seconds >= 0.006
    assert "as fast as standard" in choice.lines()[0]


@pytest.mark.parametrize("dropout", [False, True])
def test_a_form_with_other_numbers_is_never_taken(tmp_path: Path, dropout: bool) -> None:
    choice = choose(TUNED, make_tuner(Forms(wrong=wrong), dropout=dropout), KnownTrials(tmp_path))
    assert choice.candidate == "standard"
    assert "other numbers after 3 steps" in choice.trials[1].refused


def test_a_form_that_raises_is_a_row_with_its_reason(tmp_path: Path) -> None:
    choice = choose(TUNED, make_tuner(Forms(broken=broken, faster=faster)), KnownTrials(tmp_path))
    assert choice.candidate == "faster"
    assert "no compiler" in {trial.candidate: trial.refused for trial in choice.trials}["broken"]


def test_what_costs_more_than_the_run_is_not_tried_until_a_longer_run_comes(tmp_path: Path) -> None:
    backend = Forms(first_seconds=0.5, faster=faster)
    choice = choose(TUNED, make_tuner(backend, steps=100), KnownTrials(tmp_path))
    assert choice.candidate == "standard"
    assert "faster" not in backend.compiled
    assert "too short" in choice.trials[1].refused
    assert choose(TUNED, make_tuner(backend, steps=5000), KnownTrials(tmp_path)).candidate == "faster"


def test_the_cost_before_the_first_step_counts() -> None:
    trials = [
        Trial(candidate="a", what="", first_seconds=0.0, step_seconds=0.01),
        Trial(candidate="b", what="", first_seconds=5.0, step_seconds=0.005),
        Trial(candidate="c", what="", refused="cannot"),
        Trial(candidate="d", what="", first_seconds=0.0, step_seconds=0.0099),
    ]
    assert best(trials, 100) == "a"
    # 1 % of the time is within the noise; 5 s are paid back after 1,000 steps, and worth it after a few more.
    assert best(trials, 1000) == "a"
    assert best(trials, 1200) == "b"


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (ExecutionSpec(mode="fixed"), SETTINGS),
        (ExecutionSpec(mode="auto"), replace(SETTINGS, deterministic=True)),
        (ExecutionSpec(mode="auto"), SETTINGS),
    ],
    ids=["fixed", "deterministic", "short"],
)
def test_where_the_standard_form_is_taken_untried(tmp_path: Path, spec: ExecutionSpec, settings: Settings) -> None:
    backend = Forms(faster=faster)
    choice = choose(spec, make_tuner(backend, settings=settings), KnownTrials(tmp_path))
    assert (choice.candidate, choice.lines()) == ("standard", ())
    assert "faster" not in backend.compiled


def test_long_runs_are_tuned_unasked(tmp_path: Path) -> None:
    """2 ms a step, 60 s of them."""
    assert (
        choose(ExecutionSpec(seconds=0.05), make_tuner(Forms(f=faster), 40_000), KnownTrials(tmp_path)).candidate == "f"
    )


def test_a_named_form_is_taken_and_an_unknown_one_refused(tmp_path: Path) -> None:
    tuner = make_tuner(Forms(faster=faster))
    assert choose(ExecutionSpec(candidate="faster"), tuner, KnownTrials(tmp_path)).candidate == "faster"
    with pytest.raises(InputError) as caught:
        choose(ExecutionSpec(candidate="fastr"), tuner, KnownTrials(tmp_path))
    assert "did you mean 'faster'?" in str(caught.value)
    assert "standard, faster" in str(caught.value)


def test_what_was_found_is_not_tried_again(tmp_path: Path) -> None:
    first = choose(TUNED, make_tuner(Forms(faster=faster)), KnownTrials(tmp_path))
    backend = Forms(faster=faster)
    again = choose(TUNED, make_tuner(backend), KnownTrials(tmp_path))
    assert backend.compiled == []
    assert (again.candidate, again.trials, again.seconds) == (first.candidate, first.trials, None)
    assert KnownTrials(tmp_path).clear() == 1
    assert KnownTrials(tmp_path).load(make_tuner(Forms(faster=faster))) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'[{"candidate": 3}]', b"\xff\xfe"])
def test_a_spoilt_file_is_written_anew(tmp_path: Path, content: bytes) -> None:
    known, tuner = KnownTrials(tmp_path), make_tuner(Forms(faster=faster))
    try_all(TUNED, tuner, known)
    (file,) = known.folder.iterdir()
    file.write_bytes(content)
    assert known.load(tuner) is None
    assert choose(TUNED, tuner, known).candidate == "faster"
    assert known.load(tuner) is not None


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert choose(TUNED, make_tuner(Forms(faster=faster)), KnownTrials(blocked)).candidate == "faster"


def test_writers_side_by_side_leave_a_whole_file(tmp_path: Path) -> None:
    known, tuner = KnownTrials(tmp_path), make_tuner(Forms(faster=faster))
    trials = try_all(TUNED, tuner, known).trials
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: known.store(tuner, trials), range(40)))
        assert known.load(tuner) == trials
    assert len(list(known.folder.iterdir())) == 1


def test_what_speed_depends_on_makes_another_key() -> None:
    tuner = make_tuner(Forms(faster=faster))
    key = describe(tuner)
    assert describe(make_tuner(Forms(faster=faster), settings=replace(SETTINGS, seed=9))) == key
    others = [
        make_tuner(Forms(faster=faster), settings=replace(SETTINGS, precision="float64")),
        make_tuner(Forms(faster=faster), settings=replace(SETTINGS, device="cuda:0")),
        make_tuner(Forms(faster=faster), dropout=True),
        replace(tuner, batches=Batches(50, 16)),
        replace(tuner, update=tuner.update, rule=replace(tuner.rule, updater=Update(Adam(clip_norm=1.0), {}))),
    ]
    assert len({key, *map(describe, others)}) == 1 + len(others)


@pytest.mark.parametrize("backend", ["numpy", "keras", "torch"])
def test_every_form_of_a_backend_computes_the_same(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that are there, compiled ones too, on a model that every form takes."""
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("unitrain.backends.numpy.candidates.allowed_threads", lambda: 2)
    trials = make_tuner(load_backend(backend), steps=10**6).trials(0.0)
    expected = {
        "numpy": {"shards", "whole", "one-thread"},
        "keras": {"graph", "xla"},
        "torch": {"eager", "one-thread", "compiled"},
    }[backend]
    found = {trial.candidate: trial.refused for trial in trials}
    if backend == "torch" and "compiled" not in found:
        expected.remove("compiled")  # there is no C++ compiler here
    assert found == dict.fromkeys(expected, "")


def test_a_resumed_run_goes_on_in_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unitrain.train.fit import fit, resume

    monkeypatch.setattr("unitrain.backends.numpy.candidates.allowed_threads", lambda: 2)
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=generator.normal(size=(40, 5)), y=generator.integers(0, 3, 40))
    (tmp_path / "r.yaml").write_text(
        """
model: {inputs: {x: {shape: [5]}}, layers: [{type: dense, name: y, units: 3}]}
data: {source: {type: npz, file: d.npz, inputs: {x: x}, targets: {y: y}}}
loss: cross_entropy
optimizer: {type: adam}
training: {epochs: 1, batch_size: 8}
execution: {candidate: whole}
""",
        encoding="utf-8",
    )
    folder = fit(tmp_path / "r.yaml", out=tmp_path / "run").folder
    assert folder.read_json(folder.environment)["execution"] == "whole"
    resume(folder.path, overrides=["training.epochs=2"])
    environment = folder.read_json(folder.environment)
    assert environment["resumed"][-1]["execution"] == "whole"
    # torch has no form of this name: it takes its own standard one.
    resume(folder.path, backend="torch", overrides=["training.epochs=3"])
    assert folder.read_json(folder.environment)["resumed"][-1]["execution"] == "eager"
