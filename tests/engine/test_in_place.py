"""Moving weights and moving them back."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlaceScore, LowRank, NonFiniteLossError, decay, move


def weights(dtype=torch.float64):
    drawn = Draws(0).normal("W", 0, {"w": (6, 5), "conv": (4, 3, 2), "b": (5,)}, dtype=dtype)
    return {name: 0.02 * x for name, x in drawn.items()}


def direction(dtype=torch.float64):
    shapes = {"U": (6, 2), "V": (5, 2), "Uc": (4, 2), "Vc": (6, 2), "b": (5,)}
    f = Draws(1).normal("P", 0, shapes, dtype=dtype)
    return [("w", LowRank(f["U"], f["V"])), ("conv", LowRank(f["Uc"], f["Vc"])), ("b", f["b"])]


def test_a_low_rank_step_is_the_product_of_its_factors():
    X, P = weights(), direction()
    before = {name: x.clone() for name, x in X.items()}
    move(X, P, 0.5)
    (_, w), (_, conv), (_, b) = P
    torch.testing.assert_close(X["w"], before["w"] + 0.5 * w.U @ w.V.T)
    torch.testing.assert_close(X["conv"], before["conv"] + 0.5 * (conv.U @ conv.V.T).view(4, 3, 2))
    torch.testing.assert_close(X["b"], before["b"] + 0.5 * b)


def test_losses_are_taken_at_the_places_asked_for():
    X, P = weights(), direction()
    expected = []
    for k in (0.3, -0.3, 2.0):
        moved = {name: x.clone() for name, x in X.items()}
        move(moved, P, k)
        expected.append(float(sum((x**2).sum() for x in moved.values())))
    score = InPlaceScore(X, lambda: sum((x**2).sum() for x in X.values()))
    assert score(P, (0.3, -0.3, 2.0)) == pytest.approx(expected, rel=1e-12)


def test_a2_weights_are_back_in_place_after_scoring():
    """A2 of the spec: after +1, -2, +1 the weights agree to 1e-8 rms in float32."""
    X, P = weights(torch.float32), direction(torch.float32)
    before = {name: x.clone() for name, x in X.items()}
    InPlaceScore(X, lambda: X["w"].sum())(P, (+1e-3, -1e-3))
    for name, x in X.items():
        assert (x - before[name]).square().mean().sqrt() < 1e-8


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_is_refused_with_the_weights_back_in_place(bad):
    X, P = weights(), direction()
    before = {name: x.clone() for name, x in X.items()}
    losses = iter([1.0, bad])
    with pytest.raises(NonFiniteLossError, match=str(bad)):
        InPlaceScore(X, lambda: torch.tensor(next(losses)))(P, (+1e-3, -1e-3))
    for name, x in X.items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=1e-15)


def test_a_loss_of_zero_is_a_loss():
    score = InPlaceScore(weights(), lambda: torch.tensor(0.0))
    assert score(direction(), (1e-3, -1e-3)) == [0.0, 0.0]


def test_decay_shrinks_matrices_and_spares_vectors():
    X = weights()
    before = {name: x.clone() for name, x in X.items()}
    decay(X, 0.25)
    assert torch.equal(X["w"], before["w"] * 0.75)
    assert torch.equal(X["conv"], before["conv"] * 0.75)
    assert torch.equal(X["b"], before["b"])


def test_weights_moved_while_scoring_can_be_trained_afterwards():
    """Moved under inference_mode they would be inference tensors, which autograd refuses."""
    X = {"w": torch.ones(2, 2, requires_grad=True)}
    score = InPlaceScore(X, lambda: (X["w"] ** 2).sum())
    score([("w", torch.ones(2, 2))], (0.1, -0.1))
    score.loss().backward()
    torch.testing.assert_close(X["w"].grad, 2 * X["w"].detach())
