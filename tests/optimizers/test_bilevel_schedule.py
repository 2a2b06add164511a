"""Which steps of a bilevel run are upper ones, against the released loop."""

from __future__ import annotations

import pytest

from lozo_bench.errors import UserError
from lozo_bench.optimizers.bilevel_schedule import BilevelSchedule


def levels(T, counting, total):
    schedule = BilevelSchedule(T, counting, total)
    return [schedule.is_upper(step) for step in range(1, schedule.steps + 1)]


@pytest.mark.parametrize(
    ("T", "lower", "upper", "ends_on_upper"),
    [(30, 4834, 166, False), (20, 4751, 250, True), (10, 4501, 500, True)],
)
def test_5000_published_steps(T, lower, upper, ends_on_upper):
    found = levels(T, "published", 5000)
    assert (found.count(False), found.count(True), found[-1]) == (lower, upper, ends_on_upper)


@pytest.mark.parametrize("T", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [1, 6, 21])
def test_published_steps_are_those_of_a_loop_that_counts_both_levels(T, total):
    wanted, count = [], 0
    while count < total:
        wanted.append(False)
        count += 1
        if count % T == 0:
            wanted.append(True)
            count += 1
    assert levels(T, "published", total) == wanted


def test_each_cycle_has_T_lower_steps_if_cycles_are_counted():
    assert levels(2, "outer", 3) == [False, False, True] * 3


def test_without_lower_steps_each_step_is_an_upper_one():
    assert levels(0, "published", 3) == [True] * 3


def test_the_first_step_of_each_cycle_is_known():
    schedule = BilevelSchedule(3, "published", 9)
    assert [n for n in range(1, 11) if schedule.begins_cycle(n)] == [1, 5, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((-1, "outer", 3), "inner_steps: given -1"),
        ((2, "both", 3), "step_counting: given 'both'"),
        ((2, "outer", 0), "total_steps: given 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        BilevelSchedule(*options)
