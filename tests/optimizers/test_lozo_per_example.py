"""LOZO with one direction for each example."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.lozo_per_example import LozoPerExample
from lozo_bench.randomness.draws import Draws

SHAPES = {"w": (3, 4), "b": (3,)}
B = 5


def linear(count=B):
    """Return an engine, gradients G_b and the score of examples whose losses are linear in them."""
    G = {
        n: Draws(9).normal(n, 0, {n: (count, *s)}, dtype=torch.float64)[n]
        for n, s in SHAPES.items()
    }
    engine = InPlace({name: torch.zeros(s, dtype=torch.float64) for name, s in SHAPES.items()})

    def losses(copies):
        each = sum((G[n] * engine.X[n]).flatten(1).sum(1) for n in SHAPES)
        return each.expand(copies, count)

    return engine, G, Score(engine, [MicroBatch(count, count, losses)])


def make(engine, **options):
    return LozoPerExample(
        engine, Draws(0), **{"lr": 0.5, "eps": 1e-3, "rank": 2, "nu": 5, **options}
    )


def slopes(P, G):
    for b in range(B):
        U, z = P.U["w"][:, 2 * b : 2 * b + 2], P.z["b"][:, b]
        yield float((G["w"][b] * (U @ P.V["w"].T)).sum() + (G["b"][b] * z).sum()), U, z


def test_each_direction_is_multiplied_by_the_slope_of_its_own_example():
    engine, G, score = linear()
    report = make(engine, scale="paper").step(score)
    P = make(linear()[0]).directions.draw(0, count=B)
    w = sum(-0.5 * c * U @ P.V["w"].T / 2 / B for c, U, _ in slopes(P, G))
    b = sum(-0.5 * c * z / B for c, _, z in slopes(P, G))
    torch.testing.assert_close(engine.X["w"], w)
    torch.testing.assert_close(engine.X["b"], b)
    assert report.forwards == 2


def test_group_weights_are_slopes_divided_by_their_standard_deviation():
    engine, G, score = linear()
    make(engine, weights="group").step(score)
    P = make(linear()[0]).directions.draw(0, count=B)
    delta = torch.tensor([2e-3 * c for c, _, _ in slopes(P, G)], dtype=torch.float64)
    a = delta / (((delta - delta.mean()) ** 2).mean().sqrt() + 1e-8) / 2e-3
    w = sum(-0.5 * float(a[b]) * U @ P.V["w"].T / B for b, (_, U, _) in enumerate(slopes(P, G)))
    torch.testing.assert_close(engine.X["w"], w, rtol=1e-6, atol=1e-9)


def test_a_batch_of_one_is_lozo():
    ends = []
    for optimizer_class in (Lozo, LozoPerExample):
        engine, _, score = linear(count=1)
        optimizer = optimizer_class(engine, Draws(0), lr=0.5, eps=1e-3, rank=2, nu=2)
        for _ in range(5):
            optimizer.step(score)
        engine.flush()
        ends.append(engine.X)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)


def test_the_batch_size_may_change_between_steps():
    engine, _, score = linear()
    optimizer = make(engine)
    optimizer.step(score)
    smaller = Score(engine, [MicroBatch(2, 2, lambda copies: score.parts[0].losses(copies)[:, :2])])
    assert optimizer.step(smaller).loss == pytest.approx(
        float(smaller.parts[0].losses(1).mean()), rel=2
    )


def test_a_batch_of_one_is_treated_as_plain():
    """A single slope has a standard deviation of 0; dividing by it would destroy the weights."""
    ends = []
    for weights in ("plain", "group"):
        engine, _, score = linear(count=1)
        make(engine, weights=weights).step(score)
        ends.append(engine.X)
    torch.testing.assert_close(ends[0], ends[1])
