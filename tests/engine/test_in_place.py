"""Moving weights and moving them back."""

from __future__ import annotations

import pytest
import torch

from lozo_bench.engine import gaussian
from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.gaussian import Gaussian
from lozo_bench.engine.in_place import InPlace, shift
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.subspace import Coordinates, Subspace, along
from lozo_bench.randomness.draws import Draws


def weights(dtype=torch.float64):
    drawn = Draws(0).normal("W", 0, {"w": (6, 5), "conv": (4, 3, 2), "b": (5,)}, dtype=dtype)
    return {name: 0.02 * x for name, x in drawn.items()}


def direction(dtype=torch.float64):
    shapes = {"U": (6, 2), "V": (5, 2), "Uc": (4, 2), "Vc": (6, 2), "b": (5, 1)}
    f = Draws(1).normal("P", 0, shapes, dtype=dtype)
    return Subspace({"w": f["U"], "conv": f["Uc"]}, {"w": f["V"], "conv": f["Vc"]}, {"b": f["b"]})


def score(X, loss):
    return Score(InPlace(X), [MicroBatch(1, 1, lambda copies: loss().view(1, 1))])


def copy(X):
    return {name: x.clone() for name, x in X.items()}


def test_a_place_is_U_C_V_transposed_and_z_s():
    X, P = weights(), direction()
    before = copy(X)
    C = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    shift(X, P, Coordinates(C, torch.tensor([0.5], dtype=torch.float64)))
    torch.testing.assert_close(X["w"], before["w"] + P.U["w"] @ C @ P.V["w"].T)
    conv = (P.U["conv"] @ C @ P.V["conv"].T).view(4, 3, 2)
    torch.testing.assert_close(X["conv"], before["conv"] + conv)
    torch.testing.assert_close(X["b"], before["b"] + 0.5 * P.z["b"][:, 0])


def test_losses_are_taken_at_the_places_asked_for():
    X, P = weights(), direction()
    expected = []
    for k in (0.3, -0.3, 2.0):
        moved = copy(X)
        shift(moved, P, along(P, k))
        expected.append(float(sum((x**2).sum() for x in moved.values())))
    scored = score(X, lambda: sum((x**2).sum() for x in X.values()))(P, (0.3, -0.3, 2.0))
    assert scored == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("merges", "passes"), [(True, (1, -2, 0.5)), (False, (1, -2, 1, -0.5))])
def test_the_published_passes_round_once_more_in_half_precision(merges, passes):
    """The update, -0.5 along P, is merged with the way back from -1, or comes after it."""
    X, P = weights(torch.bfloat16), direction(torch.bfloat16)
    by_hand, eps = copy(X), 1e-3
    for k in passes:
        shift(by_hand, P, along(P, k * eps))
    engine = InPlace(X, merges=merges)
    Score(engine, [MicroBatch(1, 1, lambda copies: torch.zeros(1, 1))])(P, (eps, -eps))
    engine.move(P, along(P, -0.5 * eps))
    engine.flush()
    assert all(torch.equal(X[name], by_hand[name]) for name in X)


def test_a2_weights_are_back_in_place_when_they_are_asked_for():
    """A2 of the spec: after +1, -2, +1 the weights agree to 1e-8 rms in float32."""
    X, P = weights(torch.float32), direction(torch.float32)
    before = copy(X)
    scored = score(X, lambda: X["w"].sum())
    scored(P, (+1e-3, -1e-3))
    with scored.engine.applied():
        for name, x in X.items():
            assert (x - before[name]).square().mean().sqrt() < 1e-8


def test_the_way_back_and_the_update_along_the_same_direction_are_one_pass(monkeypatch):
    X, P = weights(), direction()
    before, passes = copy(X), []
    monkeypatch.setattr(
        "lozo_bench.engine.in_place.shift", lambda X, P, by: (passes.append(by), shift(X, P, by))
    )
    scored = score(X, lambda: X["w"].sum())
    scored(P, (+1e-3, -1e-3))
    scored.engine.move(P, along(P, 0.25))
    scored.engine.flush()
    assert len(passes) == 3
    torch.testing.assert_close(X["w"], before["w"] + 0.25 * P.U["w"] @ P.V["w"].T)


def test_an_update_along_another_direction_starts_from_the_weights_themselves():
    X, P = weights(), direction()
    other = Subspace({}, {}, {"b": torch.ones(5, 1, dtype=torch.float64)})
    before = copy(X)
    scored = score(X, lambda: X["w"].sum())
    scored(P, (+1e-3, -1e-3))
    scored.engine.move(other, along(other, 0.5))
    torch.testing.assert_close(X["w"], before["w"], rtol=0, atol=1e-15)
    torch.testing.assert_close(X["b"], before["b"] + 0.5)


class Ramp:
    """A direction of full rank: everything goes up alike."""

    def move(self, X, by):
        for x in X.values():
            x.add_(by)


def test_directions_of_full_rank_are_scored_and_followed():
    X, z = weights(), Ramp()
    before = copy(X)
    scored = score(X, lambda: X["b"].sum())
    plus, minus = scored.full_rank(z, (+0.1, -0.1))
    assert plus - minus == pytest.approx(1.0)
    scored.engine.full_rank_move(z, -0.5)
    torch.testing.assert_close(X["w"], before["w"] - 0.5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_is_refused_with_the_weights_back_in_place(bad):
    X, P = weights(), direction()
    before = copy(X)
    losses = iter([1.0, bad])
    with pytest.raises(NonFiniteLossError, match=str(bad)):
        score(X, lambda: torch.tensor(next(losses)))(P, (+1e-3, -1e-3))
    for name, x in X.items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=1e-15)


def test_an_interrupted_step_leaves_the_weights_in_place():
    X, P = weights(), direction()
    before = copy(X)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(X, interrupted)(P, (+1e-3, -1e-3))
    torch.testing.assert_close(X["w"], before["w"], rtol=0, atol=1e-15)


def test_a_loss_of_zero_is_a_loss():
    assert score(weights(), lambda: torch.tensor(0.0))(direction(), (1e-3, -1e-3)) == [0.0, 0.0]


def test_an_adapter_takes_the_place_of_the_one_before():
    X, P = weights(), direction()
    before, engine = copy(X), InPlace(X)
    engine.set_adapter(P, along(P, 2.0))
    engine.set_adapter(P, along(P, -0.5))
    torch.testing.assert_close(X["w"], before["w"] - 0.5 * P.U["w"] @ P.V["w"].T)


def test_decay_shrinks_matrices_and_spares_vectors():
    X = weights()
    before = copy(X)
    InPlace(X).decay(0.25)
    assert torch.equal(X["w"], before["w"] * 0.75)
    assert torch.equal(X["conv"], before["conv"] * 0.75)
    assert torch.equal(X["b"], before["b"])


def test_weights_moved_while_scoring_can_be_trained_afterwards():
    """Moved under inference_mode they would be inference tensors, which autograd refuses."""
    X = {"w": torch.ones(2, 2, requires_grad=True)}
    P = Subspace({"w": torch.ones(2, 1)}, {"w": torch.ones(2, 1)}, {})
    scored = score(X, lambda: (X["w"] ** 2).sum())
    scored(P, (0.1, -0.1))
    scored.engine.flush()
    scored.differentiate()
    torch.testing.assert_close(X["w"].grad, 2 * X["w"].detach())


def test_a_state_brings_the_weights_back():
    X, P = weights(), direction()
    engine = InPlace(X)
    state, before = engine.state(), copy(X)
    engine.move(P, along(P, 1.0))
    engine.load_state(state)
    assert all(torch.equal(X[name], before[name]) for name in X)


def test_a_state_knows_the_adapter_that_is_in_the_weights():
    X, P = weights(), direction()
    before, engine = copy(X), InPlace(X)
    engine.set_adapter(P, along(P, 2.0))
    state = engine.state()
    engine.set_adapter(P, along(P, -7.0))
    engine.load_state(state)
    engine.set_adapter(P, along(P, 0.0))
    torch.testing.assert_close(X["w"], before["w"])


@pytest.mark.parametrize(("keep_z", "draws_of_a_group"), [(False, 3), (True, 1)])
def test_a_kept_z_is_drawn_once_a_step_and_moves_the_same(keep_z, draws_of_a_group, monkeypatch):
    """The weights are two groups here: w, and conv with b."""
    monkeypatch.setattr(gaussian, "GROUP_ELEMENTS", 30)
    drawn = []
    fresh = Gaussian._fresh
    monkeypatch.setattr(Gaussian, "_fresh", lambda z, group: drawn.append(1) or fresh(z, group))
    X, wanted = weights(torch.float32), weights(torch.float32)
    engine = InPlace(X, keep_z=keep_z)
    part = MicroBatch(1, 1, lambda copies: X["w"].sum().view(1, 1))
    z = Gaussian(Draws(2), 7)
    engine.full_rank_losses(z, (0.1, -0.1), [part])
    engine.full_rank_move(z, 0.05)
    assert len(drawn) == 2 * draws_of_a_group
    again = Gaussian(Draws(2), 7)
    for by in (0.1, -0.1 - 0.1, 0.05 + 0.1):
        again.move(wanted, by)
    assert all(torch.equal(x, wanted[name]) for name, x in X.items())
