"""MeZO against its two-line definition."""

from __future__ import annotations

import pytest
import torch
from toys import score

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlace
from lozo_bench.optimizers.mezo import Mezo

SHAPES = {"w": (3, 4), "b": (3,), "v": (2, 2, 2)}


def linear():
    g = Draws(9).normal("g", 0, SHAPES, dtype=torch.float64)
    X = InPlace({name: torch.zeros(s, dtype=torch.float64) for name, s in SHAPES.items()})
    return X, g, lambda: sum((g[name] * X.X[name]).sum() for name in SHAPES)


def test_two_steps_by_hand():
    X, g, loss = linear()
    optimizer = Mezo(X, Draws(0), lr=0.5, eps=1e-3)
    wanted = {name: torch.zeros_like(x) for name, x in X.X.items()}
    for t in (0, 1):
        c = optimizer.step(score(X, loss)).scalars["projected_grad"]
        z = Draws(0).normal("z", t, SHAPES, dtype=torch.float64)
        assert c == pytest.approx(float(sum((g[n] * z[n]).sum() for n in z)), rel=1e-9)
        wanted = {name: x - 0.5 * c * z[name] for name, x in wanted.items()}
    torch.testing.assert_close(X.X, wanted)
