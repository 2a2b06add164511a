"""The central difference on losses that are known."""

from __future__ import annotations

from lozo_bench.optimizers.estimate import central_difference


def test_it_is_the_mean_and_the_slope_of_the_losses_at_both_sides():
    asked = []

    def losses_along(direction, distances):
        asked.append((direction, distances))
        return [3.0, 1.0]

    assert central_difference(losses_along, "z", 0.25) == (2.0, 4.0)
    assert asked == [("z", (0.25, -0.25))]
