"""Which rows are shown before which, drawn as published."""

from __future__ import annotations

import numpy as np

from lozo_bench.config.schema import EvaluationConfig, Sets
from lozo_bench.tasks.shots import demonstrations


def shown(pool, rows, shots=32, **options):
    return list(demonstrations(EvaluationConfig(shots=shots, **options), pool, rows))


def test_each_row_is_shown_its_own_demonstrations_under_the_published_seeds():
    """The first five numbers below 10,000 that numpy's RandomState(0) draws."""
    found = shown(list(range(100)), 5, shots=3)
    for rows, seed in zip(found, (2732, 9845, 3264, 4859, 9225), strict=True):
        assert rows == np.random.RandomState(seed).permutation(100)[:3].tolist()


def test_fixed_sets_are_the_same_for_all_rows():
    found = shown(list("abcdefgh"), 3, shots=4, sets=Sets.fixed, seed=7)
    assert found[0] == found[1] == found[2]
    assert found[0] != shown(list("abcdefgh"), 1, shots=4, sets=Sets.fixed, seed=8)[0]


def test_a_pool_of_fewer_rows_is_shown_whole():
    assert sorted(shown("abc", 1)[0]) == ["a", "b", "c"]


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()
    shown(list(range(50)), 4)
    assert np.array_equal(np.random.get_state()[1], before)
