"""Conservative steps: the best of three candidates."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from toys import module_and_engine, score, two_layers

from lozo_bench.optimizers.zo_conservative import ZoConservative
from lozo_bench.randomness.draws import Draws


def test_the_batchs_loss_never_rises_even_if_lr_is_sometimes_far_too_large():
    engine, loss = two_layers()
    optimizer = ZoConservative(engine, Draws(0), lr=1e-1, eps=1e-3)
    losses, directions = [float(loss())], set()
    for t in range(20):
        optimizer.lr = (1e-1, 1e-2)[t % 2]
        report = optimizer.step(score(engine, loss))
        engine.flush()
        losses.append(float(loss()))
        directions.add(report.scalars["direction"])
        assert report.loss == pytest.approx(losses[-2], rel=1e-12)
        assert report.forwards == 5
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(losses))
    assert losses[-1] < losses[0]
    assert directions >= {0.0, 1.0}


@pytest.mark.parametrize(
    ("lr", "away", "direction"),
    [(0.1, lambda u: u, 1.0), (2.0, lambda u: -u, -1.0), (2.0, lambda u: u**2, 0.0)],
)
def test_each_of_the_three_candidates_is_taken_where_it_is_best(lr, away, direction):
    """The loss is x near 0, and ``away(x)`` farther from 0."""
    module, engine = module_and_engine({"w": torch.zeros(1, dtype=torch.float64)})

    def loss():
        x = module.w.sum()
        return torch.where(x.abs() < 0.01, x, away(x))

    z = float(Draws(0).normal("z", 0, {"w": (1,)}, dtype=torch.float64)["w"])
    report = ZoConservative(engine, Draws(0), lr=lr, eps=1e-3).step(score(engine, loss))
    engine.flush()
    assert report.scalars["direction"] == direction
    assert float(module.w.sum()) == pytest.approx(-direction * lr * z**2, abs=1e-12)
    assert math.isfinite(report.loss)
