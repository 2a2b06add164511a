"""Directional derivatives of whole models by forward-mode differentiation."""

from __future__ import annotations

import pytest
import torch
from models import MAKERS, VOCABULARY, model

from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws


@pytest.mark.parametrize("kind", MAKERS)
def test_the_directional_derivative_equals_the_gradient_times_v(kind):
    net = model(kind)
    X = dict(net.named_parameters())
    tokens = (torch.arange(14) * 7 % (VOCABULARY - 5) + 3).view(2, 7)

    def losses(copies):
        return net(tokens).logits.log_softmax(-1)[:, -1, 5].view(1, 2)

    engine, v = InPlace(X, net), Gaussian(Draws(0), 0, "v")
    score = Score(engine, [MicroBatch(2, 14, losses)])
    loss, slope = score.slope(v)
    value = losses(1).mean()
    torch.autograd.backward(value)
    shapes = {name: tuple(x.shape) for name, x in X.items()}
    direction = Draws(0).normal("v", 0, shapes, dtype=torch.float64)
    wanted = sum((x.grad * direction[n]).sum() for n, x in X.items() if x.grad is not None)
    assert loss == pytest.approx(float(value.detach()), rel=1e-12)
    assert slope == pytest.approx(float(wanted), rel=1e-8)
    assert dict(net.named_parameters()).keys() == X.keys()


def test_a_loss_without_a_derivative_is_refused():
    net = torch.nn.Linear(2, 1)
    engine = InPlace(dict(net.named_parameters()), net)
    step = MicroBatch(1, 1, lambda copies: torch.ones(1, 1))
    with pytest.raises(UserError, match=r"^objective: it has no derivative"):
        Score(engine, [step]).slope(Gaussian(Draws(0), 0))
