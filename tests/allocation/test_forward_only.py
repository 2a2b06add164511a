"""The forward-only proxy is compared with gradients, and its sign patterns with their formula."""

from __future__ import annotations

import pytest
import torch
from gated_models import part, stack

from lozo_bench.allocation.forward_only import ForwardOnly, _patterns
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Score
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws


def scored(B=0.0, number=0, seed=0, **options):
    """Return the scores of a stack's modules on two batches, and the stack."""
    tuned = stack(B=B)
    engine = InPlace(tuned.X, tuned.model, tuned.extras)
    batches = [Score(engine, [part(tuned.model, i)]) for i in (1, 2)]
    proxy = ForwardOnly(**{"eps": 1e-4} | options)
    found = proxy.scores(tuned.gates.modules, batches, Draws(seed), number)
    engine.flush()
    return found, tuned


def slopes(tuned, step, seed=0):
    """Return the derivative along z_i of each module, by a backward pass."""
    loss = torch.cat([part(tuned.model, i).losses(1) for i in (1, 2)]).mean()
    names = list(tuned.X)
    gradients = dict(zip(names, torch.autograd.grad(loss, list(tuned.X.values())), strict=True))
    shapes = {name: tuple(x.shape) for name, x in tuned.X.items()}
    z = Draws(seed).normal("allocation/z", step, shapes, dtype=torch.float64)
    return torch.stack(
        [sum((gradients[n] * z[n]).sum() for n in m.names) for m in tuned.gates.modules]
    )


@pytest.mark.parametrize("B", [0.0, 0.5])
def test_each_score_is_the_slope_along_the_modules_own_direction(B):
    found, tuned = scored(B)
    expected = slopes(tuned, 0).abs()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
    assert (found > 0).all()  # also from B = 0
    several, _ = scored(B, number=2, directions=3)
    squares = torch.stack([slopes(tuned, step) for step in (6, 7, 8)]).square()
    torch.testing.assert_close(several, squares.mean(0).sqrt(), rtol=1e-5, atol=1e-9)


def test_all_patterns_of_signs_give_the_scores_of_the_other_form():
    each, _ = scored(0.5)
    signs, _ = scored(0.5, form="signs", patterns=8)
    torch.testing.assert_close(signs, each, rtol=1e-4, atol=1e-8)
    fewer, _ = scored(0.5, form="signs", patterns=3)
    assert not torch.allclose(fewer, each, rtol=0.01)


def test_patterns_are_rows_of_a_hadamard_matrix_and_their_error_is_as_it_says():
    signs = _patterns(99, 48, Draws(0), 0)
    assert signs.shape == (64, 48)
    torch.testing.assert_close(signs.T @ signs, 64 * torch.eye(48, dtype=torch.float64))
    c = torch.arange(1.0, 13.0, dtype=torch.float64)
    found = [_patterns(4, 12, Draws(0), step) for step in range(2000)]
    errors = torch.stack([(s * (s @ c)[:, None]).mean(0) - c for s in found])
    M, K = 16, 4
    expected = (M - K) / (K * (M - 1)) * (c.square().sum() - c.square())
    torch.testing.assert_close(errors.square().mean(0), expected, rtol=0.1, atol=0)
    assert float(errors.mean(0).abs().max()) < 0.1 * float(expected.max()) ** 0.5


def test_the_weights_are_as_before_and_options_are_checked():
    before = {n: x.detach().clone() for n, x in stack(B=0.5).X.items()}
    _, tuned = scored(0.5, form="signs")
    torch.testing.assert_close(dict(tuned.X), before, rtol=0, atol=1e-14)
    for options in ({"eps": 0.0}, {"eps": 1.0, "patterns": 0}, {"eps": 1.0, "directions": 0}):
        with pytest.raises(UserError, match=r": given 0"):
            ForwardOnly(**options)
