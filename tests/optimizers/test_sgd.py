"""SGD with momentum and weight decay against values calculated by hand."""

from __future__ import annotations

import pytest
import torch
from toys import run

from lozo_bench.engine.in_place import InPlace
from lozo_bench.optimizers.sgd import Sgd
from lozo_bench.randomness.draws import Draws


def sgd(start, **options):
    """Return a function that makes steps on w^2 / 2 and returns w after each of them.

    The gradient of this loss is w.
    """
    w = torch.tensor([[start]], dtype=torch.float64, requires_grad=True)
    engine = InPlace({"w": w})
    options = {"lr": 0.1, "max_grad_norm": 1e9, "autocast": None} | options
    optimizer = Sgd(engine, Draws(0), **options)

    def after_each(steps):
        values = []
        for _ in range(steps):
            run(optimizer, engine, lambda: (w**2).sum() / 2, steps=1)
            values.append(w.item())
        return values

    return after_each


def test_without_momentum():
    """w <- 0.9 w."""
    assert sgd(2.0)(3) == pytest.approx([1.8, 1.62, 1.458], rel=1e-14)


def test_with_momentum():
    """M: 2; 0.5 * 2 + 1.8 = 2.8; 0.5 * 2.8 + 1.52 = 2.92. w: 2 - 0.2; - 0.28; - 0.292."""
    assert sgd(2.0, momentum=0.5)(3) == pytest.approx([1.8, 1.52, 1.228], rel=1e-14)


def test_with_momentum_and_decay():
    """g = 1.5 w. M: 3; 1.5 + 2.55 = 4.05; 2.025 + 1.9425 = 3.9675. w: 1.7; 1.295; 0.89825."""
    values = sgd(2.0, momentum=0.5, weight_decay=0.5)(3)
    assert values == pytest.approx([1.7, 1.295, 0.89825], rel=1e-14)
