"""Forward gradients against backpropagation."""

from __future__ import annotations

import pytest
import torch
from toys import score, two_layers

from lozo_bench.optimizers.forward_grad import ForwardGrad
from lozo_bench.randomness.draws import Draws


def test_a_step_is_the_true_slope_times_v():
    engine, loss = two_layers()
    for x in engine.X.values():
        x.requires_grad_()
    torch.autograd.backward(loss())
    shapes = {name: tuple(x.shape) for name, x in engine.X.items()}
    v = Draws(0).normal("v", 0, shapes, dtype=torch.float64)
    slope = float(sum((x.grad * v[name]).sum() for name, x in engine.X.items()))
    wanted = {name: x.detach() - 0.1 * slope * v[name] for name, x in engine.X.items()}
    value = float(loss().detach())
    report = ForwardGrad(engine, Draws(0), lr=0.1).step(score(engine, loss))
    assert report.loss == pytest.approx(value, rel=1e-12)
    assert report.scalars["slope"] == pytest.approx(slope, rel=1e-10)
    assert (report.forwards, report.backwards) == (1, 0)
    torch.testing.assert_close({n: x.detach() for n, x in engine.X.items()}, wanted)
