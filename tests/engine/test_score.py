"""Losses of a batch, whole or in parts."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import NonFiniteLossError, Part, Score, checked


def part(values):
    return Part(len(values), 1, lambda copies: torch.tensor([values] * copies))


def test_the_loss_of_a_batch_is_the_mean_over_the_examples_of_all_its_parts():
    score = Score(InPlace({}), [part([1.0, 2.0, 3.0]), part([10.0])])
    assert score.examples == 4
    assert float(score.loss()) == pytest.approx(4.0)


def test_parts_change_nothing_about_a_gradient():
    x = torch.ones(4, requires_grad=True)
    whole = Score(InPlace({}), [Part(4, 1, lambda copies: (x**2)[None])])
    halves = [Part(2, 1, lambda copies, at=at: (x[at : at + 2] ** 2)[None]) for at in (0, 2)]
    whole.loss().backward()
    wanted, x.grad = x.grad, None
    Score(InPlace({}), halves).loss().backward()
    torch.testing.assert_close(x.grad, wanted)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_example_makes_a_bad_loss(bad):
    with pytest.raises(NonFiniteLossError, match=r"the losses of this step are 1\.5, (nan|inf)"):
        checked(torch.tensor([[1.0, 2.0], [1.0, bad]]))


def test_zero_is_a_loss():
    losses = torch.zeros(2, 3)
    assert checked(losses) is losses
