"""LOZO with a direction for every example."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Part, Score
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.lozo_per_example import LozoPerExample

SHAPES = {"w": (3, 4), "b": (3,)}
B = 5


def linear(count=B):
    """Examples whose losses are linear with gradients G_b, so that every slope is known."""
    G = {
        n: Draws(9).normal(n, 0, {n: (count, *s)}, dtype=torch.float64)[n]
        for n, s in SHAPES.items()
    }
    X = InPlace({name: torch.zeros(s, dtype=torch.float64) for name, s in SHAPES.items()})

    def losses(copies):
        each = sum((G[n] * X.X[n]).flatten(1).sum(1) for n in SHAPES)
        return each.expand(copies, count)

    return X, G, Score(X, [Part(count, count, losses)])


def make(X, **options):
    return LozoPerExample(X, Draws(0), **{"lr": 0.5, "eps": 1e-3, "rank": 2, "nu": 5, **options})


def slopes(P, G):
    for b in range(B):
        U, z = P.U["w"][:, 2 * b : 2 * b + 2], P.z["b"][:, b]
        yield float((G["w"][b] * (U @ P.V["w"].T)).sum() + (G["b"][b] * z).sum()), U, z


def test_each_example_is_moved_by_its_own_slope_along_its_own_direction():
    X, G, score = linear()
    report = make(X, scale="paper").step(score)
    P = make(linear()[0]).directions.draw(0, count=B)
    w = sum(-0.5 * c * U @ P.V["w"].T / 2 / B for c, U, _ in slopes(P, G))
    b = sum(-0.5 * c * z / B for c, _, z in slopes(P, G))
    torch.testing.assert_close(X.X["w"], w)
    torch.testing.assert_close(X.X["b"], b)
    assert report.forwards == 2


def test_group_weights_are_slopes_over_their_spread():
    X, G, score = linear()
    make(X, weights="group").step(score)
    P = make(linear()[0]).directions.draw(0, count=B)
    delta = torch.tensor([2e-3 * c for c, _, _ in slopes(P, G)], dtype=torch.float64)
    a = delta / (((delta - delta.mean()) ** 2).mean().sqrt() + 1e-8) / 2e-3
    w = sum(-0.5 * float(a[b]) * U @ P.V["w"].T / B for b, (_, U, _) in enumerate(slopes(P, G)))
    torch.testing.assert_close(X.X["w"], w, rtol=1e-6, atol=1e-9)


def test_a_batch_of_one_is_lozo():
    ends = []
    for optimizer_class in (Lozo, LozoPerExample):
        X, _, score = linear(count=1)
        optimizer = optimizer_class(X, Draws(0), lr=0.5, eps=1e-3, rank=2, nu=2)
        for _ in range(5):
            optimizer.step(score)
        X.settle()
        ends.append(X.X)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)


def test_batches_of_any_size_may_follow_each_other():
    X, _, score = linear()
    optimizer = make(X)
    optimizer.step(score)
    smaller = Score(X, [Part(2, 2, lambda copies: score.parts[0].losses(copies)[:, :2])])
    assert optimizer.step(smaller).loss == pytest.approx(
        float(smaller.parts[0].losses(1).mean()), rel=2
    )


def test_a_group_of_one_counts_as_plain():
    """Its slopes have no spread; divided by nothing, they would wreck the weights."""
    ends = []
    for weights in ("plain", "group"):
        X, _, score = linear(count=1)
        make(X, weights=weights).step(score)
        ends.append(X.X)
    torch.testing.assert_close(ends[0], ends[1])
