"""Charts of a study: which points are drawn, and how those that lie on one another are named."""

from __future__ import annotations

from unitrain.report.study_figures import Point, labels, near_baseline


def point(name: str, cost: float, quality: float) -> Point:
    return Point(name, (cost,) * 3, (quality,) * 3)


POINTS = [point("fp32", 1.0, 93.0), point("int8", 0.4, 92.9), point("qat", 0.401, 93.0), point("sparse", 0.99, 10.8)]


def test_what_is_far_off_is_left_out_and_named():
    shown, far = near_baseline(POINTS, less_is_better=False)
    assert [item.name for item in shown] == ["fp32", "int8", "qat"]
    assert [item.name for item in far] == ["sparse"]
    errors = [point("fp32", 1.0, 0.5), point("int8", 0.4, 0.9), point("sparse", 1.0, 1.1)]
    assert [item.name for item in near_baseline(errors, less_is_better=True)[1]] == ["sparse"]
    # Without a float model there is nothing to be far from.
    assert near_baseline(POINTS[1:], less_is_better=False) == (POINTS[1:], [])


def test_points_that_lie_on_one_another_share_a_label():
    assert labels([*POINTS[:3], point("pruned", 0.2, 90.0)]) == [
        ("pruned", (0.2, 90.0)),
        ("int8, qat", (0.4, 92.9)),
        ("fp32", (1.0, 93.0)),
    ]
    assert labels([]) == []
