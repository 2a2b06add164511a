"""Adafactor against the paper's algorithms 4 and 5 on one tensor."""

from __future__ import annotations

import pytest
import torch
from toys import run

from lozo_bench.engine.in_place import InPlace
from lozo_bench.optimizers.adafactor import Adafactor
from lozo_bench.randomness.draws import Draws


def rms(x):
    return float(x.square().mean().sqrt())


def papers_trajectory(w, target, steps, lr, clip, relative):
    """Return w after these steps of algorithm 4 (matrices) or 5 on |w - target|^2 / 2."""
    R = C = V = 0.0
    for t in range(1, steps + 1):
        g = w - target
        kept = 1 - t**-0.8
        square = g**2 + 1e-30
        if w.ndim == 2:
            R = kept * R + (1 - kept) * square.sum(1, keepdim=True)
            C = kept * C + (1 - kept) * square.sum(0, keepdim=True)
            V = R @ C / R.sum()
        else:
            V = kept * V + (1 - kept) * square
        update = g / V.sqrt()
        update = update / max(1.0, rms(update) / clip)
        w = w - lr * (max(1e-3, rms(w)) if relative else 1.0) * update
    return w


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (5,)])
def test_a_trajectory_equals_the_papers(shape, relative):
    start, target = (
        Draws(seed).normal("w", 0, {"w": shape}, dtype=torch.float64)["w"] for seed in (1, 2)
    )
    w = start.clone().requires_grad_()
    engine = InPlace({"w": w})
    options = {"lr": 0.03, "clip_threshold": 0.7, "scale_parameter": relative, "autocast": None}
    optimizer = Adafactor(engine, Draws(0), **options)
    run(optimizer, engine, lambda: ((w - target) ** 2).sum() / 2, steps=4)
    wanted = papers_trajectory(start, target, 4, 0.03, 0.7, relative)
    torch.testing.assert_close(w.detach(), wanted, rtol=1e-12, atol=1e-12)


def test_lr_is_used_as_given():
    """The first update of a vector is the gradient's sign times lr, even for weights of 0."""
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    engine = InPlace({"w": w})
    optimizer = Adafactor(engine, Draws(0), lr=0.25, autocast=None)
    signed = torch.tensor([1.0, -5.0, 0.1])
    run(optimizer, engine, lambda: (w * signed).sum(), steps=1)
    assert w.tolist() == pytest.approx([-0.25, 0.25, -0.25], rel=1e-12)


def test_the_second_moment_of_a_matrix_is_a_row_and_a_column():
    w = torch.ones(30, 20, dtype=torch.float64, requires_grad=True)
    engine = InPlace({"w": w})
    optimizer = Adafactor(engine, Draws(0), lr=0.1, autocast=None)
    run(optimizer, engine, lambda: (w**2).sum(), steps=2)
    (state,) = optimizer.moments.state.values()
    assert sum(x.numel() for x in state.values() if torch.is_tensor(x) and x.ndim) == 50
