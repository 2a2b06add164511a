"""Which rows are shown before which, drawn as published."""

from __future__ import annotations

import numpy as np
import pytest

from lozo_bench.engine import Draws, InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.icl import InContext


def make(**options):
    return InContext(InPlace({}), Draws(0), **options)


def test_every_row_is_shown_others_under_the_published_seeds():
    """Spec lozo_mezo 2.7: the first five seeds under seed 0."""
    pool = list(range(100))
    shown = list(make(demonstrations=3).shown(pool, 5))
    for rows, seed in zip(shown, (2732, 9845, 3264, 4859, 9225), strict=True):
        assert rows == np.random.RandomState(seed).permutation(100)[:3].tolist()


def test_fixed_sets_are_the_same_for_all_rows():
    shown = list(make(demonstrations=4, sets="fixed", seed=7).shown(list("abcdefgh"), 3))
    assert shown[0] == shown[1] == shown[2]
    other = make(demonstrations=4, sets="fixed", seed=8)
    assert shown[0] != next(other.shown("abcdefgh", 1))


def test_a_pool_of_fewer_rows_is_shown_whole():
    assert sorted(next(make(demonstrations=32).shown("abc", 1))) == ["a", "b", "c"]


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()
    list(make().shown(list(range(50)), 4))
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"demonstrations": 0}, "demonstrations: given 0"),
        ({"seed": -1}, "seed: given -1"),
        ({"calibrate_shown": True}, "calibrate_shown: given True; allowed: false"),
    ],
)
def test_options_are_checked(options, told):
    with pytest.raises(UserError, match=told):
        make(**options)
