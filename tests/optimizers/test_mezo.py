"""MeZO against its two-line definition."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlaceScore
from lozo_bench.optimizers import mezo
from lozo_bench.optimizers.mezo import Mezo

SHAPES = {"w": (3, 4), "b": (3,), "v": (2, 2, 2)}


def linear():
    g = Draws(9).normal("g", 0, SHAPES, dtype=torch.float64)
    X = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    return X, g, lambda: sum((g[name] * X[name]).sum() for name in X)


def test_two_steps_by_hand():
    X, g, loss = linear()
    optimizer = Mezo(X, Draws(0), lr=0.5, eps=1e-3)
    wanted = {name: torch.zeros_like(x) for name, x in X.items()}
    for t in (0, 1):
        c = optimizer.step(InPlaceScore(X, loss)).scalars["projected_grad"]
        z = Draws(0).normal("z", t, SHAPES, dtype=torch.float64)
        assert c == pytest.approx(float(sum((g[n] * z[n]).sum() for n in z)), rel=1e-9)
        wanted = {name: x - 0.5 * c * z[name] for name, x in wanted.items()}
    torch.testing.assert_close(X, wanted)


def test_drawing_in_small_groups_changes_nothing(monkeypatch):
    """Memory stays at one group's z; the values do not depend on the grouping."""
    ends = []
    for limit in (1_000_000, 1):
        monkeypatch.setattr(mezo, "_GROUP_ELEMENTS", limit)
        X, _, loss = linear()
        Mezo(X, Draws(0), lr=0.5, eps=1e-3).step(InPlaceScore(X, loss))
        ends.append(X)
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
