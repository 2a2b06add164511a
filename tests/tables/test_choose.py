"""`select_points` selects a point of a grid by dev results, per seed or for all seeds."""

from __future__ import annotations

import pytest

from lozo_bench.config.schema import By, Pick
from lozo_bench.errors import UserError
from lozo_bench.tables.choose import DevMetrics, select_points

SEEDS = ["s1", "s2"]


def dev(metric, loss=0.0):
    return DevMetrics(metric, loss)


# "a" is the best for s1 alone; "b" is the best for s2 alone and by the mean.
SEEN = {
    "a": {"s1": dev(0.9, 0.5), "s2": dev(0.2, 0.6)},
    "b": {"s1": dev(0.8, 0.4), "s2": dev(0.8, 0.9)},
}


def test_each_seed_selects_its_own_best_point_or_all_share_one():
    assert select_points(SEEN, SEEDS, Pick.per_seed, By.dev_metric) == {"s1": "a", "s2": "b"}
    assert select_points(SEEN, SEEDS, Pick.overall, By.dev_metric) == {"s1": "b", "s2": "b"}


def test_by_loss_the_lowest_is_selected():
    assert select_points(SEEN, SEEDS, Pick.per_seed, By.dev_loss) == {"s1": "b", "s2": "a"}
    assert select_points(SEEN, SEEDS, Pick.overall, By.dev_loss) == {"s1": "a", "s2": "a"}


def test_the_first_of_equal_points_is_selected():
    tied = {point: {seed: dev(0.5, 1.0) for seed in SEEDS} for point in ("x", "a", "m")}
    for pick in Pick:
        for by in By:
            assert select_points(tied, SEEDS, pick, by) == {"s1": "x", "s2": "x"}


def test_a_point_without_all_seeds_is_not_selected_for_all_of_them():
    seen = {"a": {"s1": dev(1.0)}, "b": {"s1": dev(0.1), "s2": dev(0.1)}}
    assert select_points(seen, SEEDS, Pick.overall, By.dev_metric) == {"s1": "b", "s2": "b"}
    assert select_points(seen, SEEDS, Pick.per_seed, By.dev_metric) == {"s1": "a", "s2": "b"}


def test_a_seed_without_any_run_is_omitted():
    seen = {"a": {"s1": dev(0.3)}, "b": {"s1": dev(0.4)}}
    for pick in Pick:
        assert select_points(seen, SEEDS, pick, By.dev_metric) == {"s1": "b"}
    assert select_points({}, SEEDS, Pick.overall, By.dev_metric) == {}


def test_nothing_is_selected_for_all_seeds_if_no_point_has_them_all():
    seen = {"a": {"s1": dev(0.3)}, "b": {"s2": dev(0.4)}}
    assert select_points(seen, SEEDS, Pick.overall, By.dev_metric) == {}


def test_a_loss_is_never_used_as_a_metric():
    """Runs that evaluate only the loss on their dev rows cannot be selected by a metric."""
    seen = {"a": {"s0": DevMetrics(None, 1.0)}, "b": {"s0": DevMetrics(None, 9.0)}}
    for pick in Pick:
        assert select_points(seen, ["s0"], pick, By.dev_loss) == {"s0": "a"}
        assert select_points({"b": seen["b"]}, ["s0"], pick, By.dev_metric) == {"s0": "b"}
        with pytest.raises(UserError, match=r"^table\.by: given 'dev_metric'; allowed: dev_loss"):
            select_points(seen, ["s0"], pick, By.dev_metric)
