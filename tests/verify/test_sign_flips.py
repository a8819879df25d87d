"""Signs that Lion takes of what rounding alone has left."""

from __future__ import annotations

import numpy as np

from unitrain.spec.optimizers import Adam, Lion
from unitrain.verify.sign_flips import directions, sign_flips, takes_signs
from unitrain.verify.verdict import bound_for

LENGTH = 1e-3


def test_only_lion_steps_by_signs() -> None:
    assert takes_signs(Lion())
    assert not takes_signs(Adam())


def test_directions_are_those_of_the_paper() -> None:
    """Chen et al. 2023, algorithm 2: sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g."""
    generator = np.random.default_rng(0)
    spec = Lion(beta1=0.8, beta2=0.95)
    m, g = generator.normal(size=(2, 7))
    found = directions(spec, {"w": m}, {"w": 0.95 * m + 0.05 * g})
    np.testing.assert_allclose(found["w"], 0.8 * m + 0.2 * g, rtol=1e-12)


def flips(direction: list[float], strayed: float, other_way: list[int]) -> dict[str, int]:
    right = np.array(direction)
    ours = -LENGTH * np.sign(right)
    theirs = ours.copy()
    theirs[other_way] *= -1
    return sign_flips({"w": right}, [{"w": right + strayed}, {"w": right}], {"w": ours}, {"w": theirs}, LENGTH)


def test_a_sign_counts_where_rounding_may_turn_it() -> None:
    within = 1.9 * bound_for(3) * 1e-9
    assert flips([0.5, within, -0.2], 1e-9, [1]) == {"w": 1}
    assert flips([0.5, within, -within], 1e-9, [1, 2]) == {"w": 2}
    assert flips([0.5, within, -0.2], 1e-9, []) == {}


def test_none_counts_where_one_further_from_zero_turned() -> None:
    beyond = 2.1 * bound_for(3) * 1e-9
    assert flips([0.5, beyond, -0.2], 1e-9, [1]) == {}
    assert flips([0.5, 1e-12, -0.2], 1e-9, [0, 1]) == {}


def test_a_zero_that_is_not_one_elsewhere_counts() -> None:
    right, moved = {"w": np.array([0.0, 1.0])}, [{"w": np.array([1e-20, 1.0])}]
    ours, theirs = {"w": np.array([0.0, -LENGTH])}, {"w": np.array([LENGTH, -LENGTH])}
    assert sign_flips(right, moved, ours, theirs, LENGTH) == {"w": 1}
