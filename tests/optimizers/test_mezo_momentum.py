"""Momentum on MeZO's estimate against its equations."""

from __future__ import annotations

import pytest
import torch
from toys import score

from lozo_bench.engine.in_place import InPlace
from lozo_bench.optimizers.mezo_momentum import MezoMomentum
from lozo_bench.randomness.draws import Draws

SHAPES = {"w": (3, 4), "b": (3,)}


def test_three_steps_follow_the_equations():
    g = Draws(9).normal("g", 0, SHAPES, dtype=torch.float64)
    engine = InPlace({name: torch.ones(s, dtype=torch.float64) for name, s in SHAPES.items()})
    optimizer = MezoMomentum(engine, Draws(0), lr=0.1, eps=1e-3, beta=0.75, weight_decay=0.5)
    wanted = {name: x.clone() for name, x in engine.X.items()}
    M = {name: torch.zeros_like(x) for name, x in engine.X.items()}
    for t in range(3):
        optimizer.step(score(engine, lambda: sum((g[name] * engine.X[name]).sum() for name in g)))
        z = Draws(0).normal("z", t, SHAPES, dtype=torch.float64)
        c = float(sum((g[n] * z[n]).sum() for n in z))
        M = {name: 0.75 * M[name] + c * z[name] for name in M}
        wanted["w"] *= 1 - 0.1 * 0.5
        wanted = {name: x - 0.1 * M[name] for name, x in wanted.items()}
    torch.testing.assert_close(engine.X, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_momentum_buffer_is_float32_unless_the_weights_are_float64(dtype):
    engine = InPlace({"w": torch.ones(4, 4, dtype=dtype)})
    optimizer = MezoMomentum(engine, Draws(0), lr=0.1, eps=1e-1)
    optimizer.step(score(engine, lambda: engine.X["w"].float().sum()))
    assert optimizer.M["w"].dtype == torch.float32
