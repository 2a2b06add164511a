"""`ZO` makes zeroth-order steps in a loop of one's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lozo_bench import ZO
from lozo_bench.engine import Draws, InPlace, MicroBatch, Score
from lozo_bench.errors import UserError
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.mezo import Mezo


@pytest.fixture
def regression():
    """A linear model in float64, and a loss on 16 rows."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(16, n, generator=generator, dtype=torch.float64) for n in (6, 3))
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64) / 3
    return model, lambda: ((model(x) - y) ** 2).mean()


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(Lozo, {"lr": 1e-2, "nu": 5}), (Mezo, {"lr": 1e-2, "eps": 1e-3})],
)
def test_the_loss_falls(regression, optimizer, options):
    model, loss = regression
    before = loss().item()
    zo = ZO(model, optimizer, **options)
    losses = [zo.step(loss) for _ in range(300)]
    zo.flush()
    assert losses[0] == pytest.approx(before, rel=1e-3)
    assert loss().item() < 0.7 * before


def test_its_steps_are_those_of_the_optimizer(regression):
    model, loss = regression
    start = {name: x.detach().clone() for name, x in model.named_parameters()}
    zo = ZO(model, lr=1e-2, seed=3)
    found = [zo.step(loss) for _ in range(5)]
    zo.flush()
    ended = [x.detach().clone() for x in model.parameters()]
    X = dict(model.named_parameters())
    with torch.no_grad():
        for name, x in X.items():
            x.copy_(start[name])
        engine, draws = InPlace(X, model), Draws(3)
        lozo = Lozo(engine, draws, lr=1e-2, eps=1e-3, rank=2, nu=50)
        batch = MicroBatch(1, 0, lambda copies: loss().view(1, 1))
        expected = [lozo.step(Score(engine, [batch])).loss for _ in range(5)]
        engine.flush()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(list(X.values()), ended, rtol=1e-10, atol=1e-12)


def test_the_model_in_its_context_has_all_steps(regression):
    model, loss = regression
    zo = ZO(model, lr=1e-2)
    zo.step(loss)
    with zo.applied():
        inside = loss().item()
    zo.flush()
    assert inside == pytest.approx(loss().item(), rel=1e-12)


def test_only_what_requires_a_gradient_moves(regression):
    model, loss = regression
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    zo = ZO(model, lr=1e-2)
    zo.step(loss)
    zo.flush()
    assert torch.equal(model[0].weight, frozen)


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (lambda model: model.train(), {}, "training mode"),
        (lambda model: model.requires_grad_(False), {}, "no parameter"),
        (lambda model: None, {"lrr": 1}, r"no option 'lrr' \(did you mean 'lr'\?\)"),
        (lambda model: None, {"lr": -1}, "lr"),
        (lambda model: None, {"optimizer": AdamW, "lr": 1e-3}, "needs gradients"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(regression, change, options, match):
    model, _ = regression
    change(model)
    with pytest.raises(UserError, match=match):
        ZO(model, **options)


def test_a_loss_that_is_no_tensor_is_refused(regression):
    model, loss = regression
    with pytest.raises(UserError, match="must be a tensor"):
        ZO(model).step(lambda: loss().item())
