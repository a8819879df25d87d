"""Where the time of a run went: spans nest and cover the run, costs add up, and what was planted is named."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from unitrain.backends.numpy.registry import IMPLEMENTATIONS
from unitrain.cli.main import app
from unitrain.spans import Recorder, Span, active, covered_seconds, own_seconds, process_seconds, recording, span
from unitrain.spec.layers.activation import Tanh
from unitrain.train.fit import fit
from unitrain.train.profile import FIRST_BLOCK, WATCHED, summarize
from unitrain.train.profile_files import trace

RECIPE = """\
name: iris
model:
  inputs: {features: {shape: [4]}}
  layers:
    - {type: dense, name: hidden, units: 16}
    - {type: tanh, name: bend}
    - {type: dense, name: species, units: 3}
data: {source: iris}
loss: cross_entropy
optimizer: {type: adam, lr: 0.01}
metrics: [accuracy]
training: {epochs: 12, batch_size: 16}
"""
BACKENDS = ("numpy", "keras", "torch")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "iris.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module", params=BACKENDS)
def recorded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "iris.yaml").write_text(RECIPE)
    with recording() as recorder:
        fit(folder / "iris.yaml", backend=request.param, out=folder / "run")
    return request.param, recorder, summarize(recorder)


@st.composite
def nested(draw):
    """Spans of two threads that lie beside or inside one another, on a grid of whole seconds."""
    found = []

    def fill(start, end, thread, depth):
        at = start
        while at < end and depth < 4:
            first = draw(st.integers(at, end))
            last = draw(st.integers(first, end))
            if last == first:
                return
            found.append(Span(f"{first}-{last}", float(first), float(last - first), thread))
            fill(first, last, thread, depth + 1)
            at = last

    for thread in (1, 2):
        fill(0, draw(st.integers(0, 9)), thread, 0)
    return draw(st.permutations(found))


@settings(max_examples=200, deadline=None)
@given(nested())
def test_every_second_belongs_to_the_innermost_span(spans):
    own = own_seconds(spans)
    for thread in (1, 2):
        busy = 0.0
        for second in range(9):
            inside = [
                index
                for index, one in enumerate(spans)
                if one.thread == thread and one.start <= second and second + 1 <= one.end
            ]
            busy += bool(inside)
        total = sum(value for value, one in zip(own, spans, strict=True) if one.thread == thread)
        assert total == pytest.approx(busy)
    for index, one in enumerate(spans):
        inner = [
            other
            for number, other in enumerate(spans)
            if number != index and other.thread == one.thread and one.start <= other.start and other.end <= one.end
        ]
        if len({(other.start, other.end) for other in inner} | {(one.start, one.end)}) == len(inner) + 1:
            assert own[index] == pytest.approx(one.seconds - covered_seconds(inner))


def test_spans_that_overlap_are_not_counted_twice():
    spans = [Span("a", 0.0, 2.0, 1), Span("b", 1.0, 3.0, 1)]
    assert sum(own_seconds(spans)) == pytest.approx(4.0)
    assert covered_seconds(spans) == pytest.approx(4.0)


def test_without_a_recorder_a_span_is_nothing():
    assert active() is None
    assert span("a") is span("b")
    with recording() as recorder, span("outer"):

        def elsewhere():
            with span("other"):
                pass

        worker = threading.Thread(target=elsewhere)
        worker.start()
        worker.join()
        with pytest.raises(ValueError, match="told"), span("broken"):
            raise ValueError("told")
        with pytest.raises(RuntimeError), recording():
            pass
    assert [one.name for one in recorder.spans] == ["other", "broken", "outer"]
    assert [one.thread == recorder.main for one in recorder.spans] == [False, True, True]
    assert active() is None


def test_the_age_of_the_process_grows_with_the_clock():
    age, start = process_seconds(), time.perf_counter()
    time.sleep(0.1)
    if age:
        assert process_seconds() - age == pytest.approx(time.perf_counter() - start, abs=0.03)


def test_a_run_is_covered_and_its_phases_nest(recorded):
    _, recorder, profile = recorded
    seconds = {phase.name: phase.seconds for phase in profile.phases}
    spans = [one for one in recorder.spans if one.thread == recorder.main and one.kind == "phase"]
    assert seconds["elsewhere"] == pytest.approx(profile.seconds - covered_seconds(spans), abs=1e-6)
    assert sum(phase.share for phase in profile.phases) == pytest.approx(1.0)
    own = [one for one in recorder.spans if one.thread == recorder.main and one.kind == "phase"]
    assert {"read data", "build program", FIRST_BLOCK, WATCHED, "evaluation", "checkpoint", "write report"} <= {
        one.name for one in own
    }
    for one, two in itertools.combinations(own, 2):
        apart = one.end <= two.start or two.end <= one.start
        inside = (one.start <= two.start and two.end <= one.end) or (two.start <= one.start and one.end <= two.end)
        assert apart or inside, (one, two)
    assert all(recorder.started <= one.start and one.end <= recorder.ended for one in own)


def test_operators_of_a_step_add_up_to_no_more_than_the_step(recorded):
    backend, recorder, profile = recorded
    watched = sum(one.seconds for one in recorder.spans if one.name == WATCHED)
    operators = [one for one in recorder.spans if one.kind == "operator"]
    assert operators
    assert covered_seconds(operators) <= 1.02 * watched
    assert 0.05 < sum(operator.share for operator in profile.operators) <= 1.0
    assert all(operator.seconds >= 0 for operator in profile.operators)
    assert sum(operator.seconds for operator in profile.operators) <= profile.step_seconds * 1.0001
    layers = {operator.layer for operator in profile.operators}
    assert {"hidden", "bend", "species"} <= layers
    assert any("backward" in operator.name and operator.layer == "hidden" for operator in profile.operators), backend


def test_operators_lie_within_the_blocks_that_were_watched(recorded):
    _, recorder, _ = recorded
    blocks = [one for one in recorder.spans if one.name == WATCHED]
    operators = [one for one in recorder.spans if one.kind == "operator"]
    around = [
        any(block.start - 0.01 <= one.start and one.end <= block.end + 0.01 for block in blocks) for one in operators
    ]
    assert sum(around) >= 0.99 * len(operators)


def test_the_trace_is_in_the_trace_event_format(recorded):
    _, recorder, _ = recorded
    plain = json.loads(json.dumps(trace(recorder)))
    events = plain["traceEvents"]
    assert plain["displayTimeUnit"] in ("ms", "ns")
    threads = {event["tid"] for event in events if event["ph"] == "M" and event["name"] == "thread_name"}
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) + sum(event["ph"] == "M" for event in events) == len(events)
    for event in complete:
        assert isinstance(event["name"], str)
        assert event["cat"] in ("phase", "operator", "launch")
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        assert event["tid"] in threads
        assert isinstance(event["pid"], int)
    starts = [event["ts"] for event in complete]
    assert starts == sorted(starts)


def test_layers_that_changed_places_keep_their_names(tmp_path):
    path = tmp_path / "digits.yaml"
    path.write_text(
        "name: digits\n"
        "model:\n"
        "  inputs: {image: {shape: [8, 8, 1]}}\n"
        "  layers:\n"
        "    - {type: conv2d, name: conv, filters: 4, kernel_size: 3, activation: relu}\n"
        "    - {type: max_pool2d, name: pool, kernel_size: 2}\n"
        "    - {type: flatten, name: flat}\n"
        "    - {type: dense, name: logits, units: 10}\n"
        "data: {source: digits}\nloss: cross_entropy\noptimizer: sgd\ntraining: {epochs: 3, batch_size: 64}\n"
    )
    with recording() as recorder:
        fit(path, out=tmp_path / "run")
    named = {one.name for one in recorder.spans if one.kind == "operator"}
    assert {"pool (max_pool2d) backward", "conv_activation (relu) forward"} <= named


def test_a_slow_layer_is_the_lever_on_numpy(recipe, tmp_path, monkeypatch):
    before = IMPLEMENTATIONS[Tanh]

    def slow(*arguments):
        time.sleep(0.02)
        return before(*arguments)

    monkeypatch.setitem(IMPLEMENTATIONS, Tanh, slow)
    with recording() as recorder:
        fit(recipe, out=tmp_path / "run")
    assert "of a step is bend" in summarize(recorder).lever
    assert IMPLEMENTATIONS[Tanh] is slow


def test_a_slow_layer_is_the_lever_on_torch(recipe, tmp_path, monkeypatch):
    import torch

    # On a busy machine what the first run in a process imports would be the lever, or what two threads wait for.
    fit(recipe, backend="torch", out=tmp_path / "first", overrides=["training.epochs=1"])
    before = torch.nn.Tanh.forward

    def slow(*arguments):
        time.sleep(0.1)
        return before(*arguments)

    monkeypatch.setattr(torch.nn.Tanh, "forward", slow)
    with recording() as recorder:
        fit(recipe, backend="torch", out=tmp_path / "run", overrides=["training.epochs=8"])
    assert "of a step is bend" in summarize(recorder).lever


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wide_layer_is_the_costliest_of_a_step(recipe, tmp_path, backend):
    recipe.write_text(
        RECIPE.replace("name: bend}", "name: bend}\n    - {type: dense, name: wide, units: 40000}")
        .replace("units: 16}", "units: 60}")
        .replace("epochs: 12", "epochs: 4")
    )
    with recording() as recorder:
        fit(recipe, backend=backend, out=tmp_path / "run")
    by_layer: dict[str | None, float] = {}
    for operator in summarize(recorder).operators:
        by_layer[operator.layer] = by_layer.get(operator.layer, 0.0) + operator.share
    by_layer.pop(None, None)
    # Of the known layers; the optimizer and what names no layer have their share of so many parameters too.
    assert max(by_layer, key=by_layer.__getitem__) in ("wide", "species")
    assert by_layer["bend"] < 0.5 * max(by_layer.values())


def test_slow_augmentation_is_data_that_is_waited_for(tmp_path, monkeypatch):
    from unitrain.data.augment import Augmenter

    before = Augmenter.__call__

    def slow(*arguments):
        time.sleep(0.02)
        return before(*arguments)

    monkeypatch.setattr(Augmenter, "__call__", slow)
    path = tmp_path / "digits.yaml"
    path.write_text(
        "name: digits\n"
        "model:\n"
        "  inputs: {image: {shape: [8, 8, 1]}}\n"
        "  layers: [{type: flatten}, {type: dense, name: logits, units: 10}]\n"
        "data: {source: digits, augment: [{type: shift, height: 1, width: 1}]}\n"
        "loss: cross_entropy\noptimizer: sgd\ntraining: {epochs: 4, batch_size: 64}\n"
    )
    with recording() as recorder:
        fit(path, out=tmp_path / "run")
    profile = summarize(recorder)
    assert profile.waited > 0.5
    assert "of the training time for data" in profile.lever


def test_planted_phases_are_named():
    recorder = Recorder(started=0.0, ended=10.0, main=1, backend="keras")
    recorder.spans = [Span("import framework", 0.0, 6.0, 1), Span(FIRST_BLOCK, 6.0, 2.0, 1)]
    recorder.steps = {FIRST_BLOCK: 4}
    profile = summarize(recorder)
    assert profile.lever == "60 % of the run was importing tensorflow"
    assert profile.step_seconds is None
    assert profile.phases[-1].name == "elsewhere"
    assert profile.phases[-1].seconds == pytest.approx(2.0)


def test_one_block_of_steps_is_not_said_to_be_tracing():
    recorder = Recorder(started=0.0, ended=10.0, main=1, backend="numpy")
    recorder.spans = [Span(FIRST_BLOCK, 1.0, 9.0, 1)]
    recorder.steps = {FIRST_BLOCK: 4}
    assert summarize(recorder).lever == "90 % of the run was its only block of steps"
    # With a second one it is known what its steps take: 4 of a second each.
    recorder.spans += [Span("training steps", 6.0, 1.0, 1)]
    recorder.spans[0] = Span(FIRST_BLOCK, 0.0, 6.0, 1)
    recorder.steps["training steps"] = 1
    profile = summarize(recorder)
    assert profile.step_seconds == pytest.approx(1.0)
    assert profile.lever == "30 % of the run was between the parts that are known"


def test_time_side_by_side_is_counted_once():
    recorder = Recorder(started=0.0, ended=10.0, main=1, backend="numpy")
    recorder.spans = [
        Span(FIRST_BLOCK, 0.0, 1.0, 1),
        Span(WATCHED, 1.0, 8.0, 1),
        # Two threads, 8 s busy in 6 s of the clock: each operator counts for 3 / 4 of its seconds.
        Span("a", 1.0, 4.0, 1, "operator", "one"),
        Span("b", 3.0, 4.0, 2, "operator", "two"),
    ]
    recorder.steps = {FIRST_BLOCK: 1, WATCHED: 8}
    profile = summarize(recorder)
    assert {operator.layer: operator.share for operator in profile.operators} == pytest.approx(
        {"one": 3 / 8, "two": 3 / 8}
    )
    assert sum(operator.seconds for operator in profile.operators) == pytest.approx(6 / 8)


def test_the_command_prints_and_writes(recipe, tmp_path):
    result = CliRunner().invoke(app, ["fit", str(recipe), "--out", str(tmp_path / "run"), "--profile"])
    assert result.exit_code == 0, result.output
    assert "the whole run" in result.output
    assert "A step on numpy takes" in result.output
    assert json.loads((tmp_path / "run/profile/trace.json").read_text())["traceEvents"]
    summary = json.loads((tmp_path / "run/profile/summary.json").read_text())
    assert summary["lever"][1:] in result.output
    assert summary["steps"] == 12 * 7
    resumed = CliRunner().invoke(
        app, ["fit", "--resume", str(tmp_path / "run"), "--epochs", "14", "--profile", "--json"]
    )
    assert resumed.exit_code == 0, resumed.output
    events = [json.loads(line) for line in resumed.output.splitlines()]
    (told,) = [event for event in events if event["event"] == "profile"]
    assert told["steps"] == 2 * 7


def test_a_rehearsal_has_no_profile(recipe):
    from unitrain.spec.errors import InputError

    result = CliRunner().invoke(app, ["fit", str(recipe), "--dry-run", "--profile"])
    assert isinstance(result.exception, InputError)
    assert "--profile" in str(result.exception)


def test_without_it_nothing_of_it_is_imported(recipe, tmp_path):
    code = (
        "import sys\n"
        "from unitrain.train.fit import fit\n"
        f"fit({str(recipe)!r}, out={str(tmp_path / 'run')!r})\n"
        "print([name for name in sys.modules if name.endswith('.profile') and name.startswith('unitrain')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
