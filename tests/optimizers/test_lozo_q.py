"""LOZO with q directions per step."""

from __future__ import annotations

import pytest
import torch
from toys import quadratic, run, score, two_layers

from lozo_bench.engine.in_place import InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.lozo_q import LozoQ
from lozo_bench.randomness.draws import Draws

OPTIONS = {"lr": 1e-3, "eps": 1e-3, "rank": 2, "nu": 3}


def test_one_direction_is_lozo_bit_for_bit():
    ends = []
    for optimizer_class, options in ((Lozo, {}), (LozoQ, {"q": 1})):
        engine, loss = two_layers()
        run(optimizer_class(engine, Draws(0), **OPTIONS, **options), engine, loss, steps=7)
        ends.append(engine.X)
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


def test_a_step_is_the_average_over_the_directions():
    g = Draws(9).normal("g", 0, {"w": (3, 4), "b": (3,)}, dtype=torch.float64)
    engine = InPlace({name: torch.zeros_like(x) for name, x in g.items()})
    loss = score(engine, lambda: (g["w"] * engine.X["w"]).sum() + (g["b"] * engine.X["b"]).sum())
    optimizer = LozoQ(engine, Draws(0), lr=0.5, eps=1e-3, rank=2, nu=5, q=3, scale="paper")
    report = optimizer.step(loss)
    P = LozoQ(engine, Draws(0), lr=0.5, eps=1e-3, rank=2, nu=5, q=3).directions.draw(0, count=3)
    V, w, b = P.V["w"], 0, 0
    for i in range(3):
        U, z = P.U["w"][:, 2 * i : 2 * i + 2], P.z["b"][:, i]
        c = float((g["w"] * (U @ V.T)).sum() + (g["b"] * z).sum())
        w, b = w - 0.5 * c * U @ V.T / 2 / 3, b - 0.5 * c * z / 3
    torch.testing.assert_close(engine.X["w"], w)
    torch.testing.assert_close(engine.X["b"], b)
    assert report.forwards == 6


def test_more_directions_give_a_less_noisy_estimate_of_the_projected_gradient():
    def error(q):
        engine, loss = quadratic(12)
        start = engine.X["w"].clone()
        optimizer = LozoQ(engine, Draws(0), lr=1.0, eps=1e-3, rank=1, nu=1, q=q, scale="paper")
        optimizer.step(score(engine, loss))
        target = Draws(100).normal("target", 0, {"w": (12, 12)}, dtype=torch.float64)["w"]
        V = optimizer.directions.V["w"]
        wanted = -target / 12 @ V @ V.T
        return float(((start - engine.X["w"]) - wanted).norm() / wanted.norm())

    assert error(64) < 0.4 * error(1)


def test_zero_directions_are_refused():
    with pytest.raises(UserError, match=r"^q: given 0; allowed: a whole number >= 1"):
        LozoQ(InPlace({}), Draws(0), **OPTIONS, q=0)
