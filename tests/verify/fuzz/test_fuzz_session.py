"""Sessions of fuzzing: resumed they end as uninterrupted ones, and are bounded in time; failures are written down."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from unitrain.spec.errors import InputError
from unitrain.spec.yaml import read_yaml
from unitrain.verify.fuzz.case import VerifyCase, read_case
from unitrain.verify.fuzz.check import Failure
from unitrain.verify.fuzz.generate import draw_case
from unitrain.verify.fuzz.session import FuzzResult, Progress, run_fuzz, version

COUNT = 14


def _kinds(case: VerifyCase) -> set[str]:
    return {node.layer.type for node in case.graph().nodes}


def _check(case: VerifyCase) -> list[Failure]:
    """A planted fault: every depthwise convolution and every softmax fails, in two ways."""
    found = [
        Failure(f"torch forward {kind}", f"torch {kind}: planted") for kind in sorted(_kinds(case)) if "depth" in kind
    ]
    return found + ([Failure("keras step softmax", "keras softmax: planted")] if "softmax" in _kinds(case) else [])


def _same(first: FuzzResult, second: FuzzResult) -> bool:
    plain = [{key: value for key, value in one.to_plain().items() if key != "seconds"} for one in (first, second)]
    return plain[0] == plain[1]


def test_failures_are_shrunk_and_written(tmp_path: Path) -> None:
    result = run_fuzz(COUNT, 1, None, tmp_path / "fuzz", _check, command="unitrain verify {file} --backends torch")
    assert result.complete
    assert not result.passed
    assert result.coverage.cases == COUNT
    for found in result.failures:
        file = tmp_path / "fuzz" / found.file
        case = read_case(read_yaml(file))
        # The same kind of failure as the drawn case had first, and nothing beside it.
        assert [failure.kind for failure in _check(case)] == [found.kind]
        # One layer is left, whose activation is a node of its own.
        assert len(read_yaml(file).data["layers"]) == 1
        assert len(case.graph().nodes) == found.layers[1] <= 2
        head = file.read_text(encoding="utf-8").splitlines()[:3]
        assert head[0] == f"# {found.message}"
        assert head[2] == f"#   unitrain verify {file} --backends torch"
    assert f"{COUNT} of {COUNT} cases of seed 1, {len(result.failures)} failed" in result.lines()[0]


def test_a_resumed_session_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = run_fuzz(COUNT, 1, None, tmp_path / "whole", _check)
    parts = [run_fuzz(count, 1, None, tmp_path / "parts", _check) for count in (4, 5, COUNT)]
    assert [part.done for part in parts] == [4, 5, COUNT]
    assert _same(whole, parts[-1])
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {
        path.name for path in (tmp_path / "parts").iterdir()
    }
    # Once it is complete nothing is checked again.
    assert _same(run_fuzz(COUNT, 1, None, tmp_path / "parts", lambda case: 1 / 0), whole)


def _dies(case: VerifyCase) -> list[Failure]:
    """`_check`, in which the fourth case ends its process, as a crash of a framework does."""
    if case == draw_case(1, 3):
        os._exit(1)
    return _check(case)


def test_several_workers_find_the_same_and_outlive_a_crash(tmp_path: Path) -> None:
    alone = run_fuzz(3, 1, None, tmp_path / "alone", _check)
    beside = run_fuzz(4, 1, None, tmp_path / "beside", _dies, workers=2)
    assert beside.complete
    assert len(alone.failures) >= 1
    assert beside.failures[:-1] == alone.failures
    died = beside.failures[-1]
    assert (died.number, died.kind, died.layers[0]) == (3, "died", died.layers[1])
    assert read_case(read_yaml(tmp_path / "beside" / died.file)) == draw_case(1, 3)


def test_a_session_that_is_broken_off_loses_one_case(tmp_path: Path) -> None:
    calls = []

    def stopped(case: VerifyCase) -> list[Failure]:
        calls.append(case)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return []

    with pytest.raises(KeyboardInterrupt):
        run_fuzz(8, 2, None, tmp_path, stopped)
    result = run_fuzz(8, 2, None, tmp_path, stopped)
    assert result.complete
    assert calls[3] == calls[4]
    assert len(calls) == 9
    assert result.coverage.cases == 8


def test_a_check_that_raises_is_a_failure(tmp_path: Path) -> None:
    def check(case: VerifyCase) -> list[Failure]:
        if "dense" in _kinds(case):
            raise RuntimeError("shapes\ndo not fit")
        return []

    result = run_fuzz(30, 1, None, tmp_path, check)
    assert {found.kind for found in result.failures} == {"error RuntimeError"}
    assert result.failures[0].message == "RuntimeError: shapes do not fit"
    assert all(_kinds(read_case(read_yaml(tmp_path / found.file))) == {"dense"} for found in result.failures)


def test_a_session_is_bounded_in_time_and_goes_on(tmp_path: Path) -> None:
    def slow(case: VerifyCase) -> list[Failure]:
        time.sleep(0.02)
        return []

    started = time.monotonic()
    first = run_fuzz(10_000, 1, 0.5 / 60.0, tmp_path, slow)
    assert time.monotonic() - started < 10.0
    assert 0 < first.done < 10_000
    assert not first.complete
    second = run_fuzz(10_000, 1, 0.3 / 60.0, tmp_path, slow)
    assert second.done > first.done
    assert second.seconds > first.seconds
    assert second.coverage.cases == second.done


def test_no_time_at_all_checks_nothing(tmp_path: Path) -> None:
    assert run_fuzz(5, 1, 0.0, tmp_path, _check).done == 0


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[Progress] = []
    result = run_fuzz(COUNT, 1, None, tmp_path, _check, told.append)
    assert told[-1].done == COUNT
    assert told[-1].failures == len(result.failures)
    assert any("shrinking" in progress.doing for progress in told)
    assert [progress.seconds for progress in told] == sorted(progress.seconds for progress in told)


def test_the_caller_may_say_what_the_same_failure_is(tmp_path: Path) -> None:
    asked: list[str] = []

    def again(case: VerifyCase, failure: Failure) -> bool:
        asked.append(failure.kind)
        return False

    result = run_fuzz(COUNT, 1, None, tmp_path, _check, again=again, tries=20)
    assert len(asked) == 20 * len(result.failures)
    assert set(asked) == {found.kind for found in result.failures}
    assert all(found.layers[0] == found.layers[1] for found in result.failures)


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    run_fuzz(1, 1, None, tmp_path / "one", _check)
    with pytest.raises(InputError, match="another seed") as caught:
        run_fuzz(1, 2, None, tmp_path / "one", _check)
    assert (caught.value.problems[0].found, caught.value.problems[0].allowed) == ("1", "2")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="something other"):
        run_fuzz(1, 1, None, tmp_path / "other", _check)
    for text in (
        "{",
        "[]",
        '{"version": "1"}',
        '{"version": "1", "seed": 1, "done": 1, "seconds": 0, "failures": [3]}',
    ):
        (tmp_path / "one" / "state.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="not the state"):
            run_fuzz(1, 1, None, tmp_path / "one", _check)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="something other"):
        run_fuzz(1, 1, None, tmp_path / "file", _check)


def test_a_session_of_another_version_is_refused(tmp_path: Path) -> None:
    run_fuzz(1, 1, None, tmp_path, _check)
    state = tmp_path / "state.json"
    state.write_text(state.read_text(encoding="utf-8").replace(version(), "0-abc"), encoding="utf-8")
    with pytest.raises(InputError, match="another version") as caught:
        run_fuzz(1, 1, None, tmp_path, _check)
    assert caught.value.problems[0].found == "0-abc"


def test_shrinking_goes_on_where_time_was_up(tmp_path: Path) -> None:
    seed = next(seed for seed in range(100) if _check(draw_case(seed, 0)))
    whole = run_fuzz(1, seed, None, tmp_path / "whole", _check)
    calls = 0

    def slow(case: VerifyCase) -> list[Failure]:
        # The case fails, three simpler ones are tried, and then time is up.
        nonlocal calls
        calls += 1
        time.sleep(0.4 if calls > 3 else 0.0)
        return _check(case)

    first = run_fuzz(1, seed, 0.4 / 60.0, tmp_path / "parts", slow)
    assert [found.finished for found in first.failures] == [False]
    assert "so far" in "\n".join(first.lines())
    second = run_fuzz(1, seed, None, tmp_path / "parts", _check)
    assert _same(second, whole)
    assert _written(tmp_path / "parts") == _written(tmp_path / "whole")


def _written(folder: Path) -> list[VerifyCase]:
    return [read_case(read_yaml(path)) for path in sorted(folder.glob("failure-*.yaml"))]
