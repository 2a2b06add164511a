"""LOZO in float64: its steps, its estimate, its two scales and the published code's bug."""

from __future__ import annotations

import pytest
import torch
from toys import cosine, quadratic, run, score, two_layers

from lozo_bench.engine.in_place import InPlace
from lozo_bench.errors import UserError
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.randomness.draws import Draws


def copy(engine):
    return {name: x.clone() for name, x in engine.X.items()}


def perturbations_and_updates(steps, **options):
    """Yield, for each step and weight, the direction of the perturbation and that of the update."""
    engine, loss = two_layers()
    optimizer = Lozo(engine, Draws(0), lr=1e-4, eps=1e-3, rank=2, **options)
    for _ in range(steps):
        before, candidates = copy(engine), []
        watched = score(engine, lambda seen=candidates: (seen.append(copy(engine)), loss())[1])
        c = optimizer.step(watched).scalars["projected_grad"]
        after = copy(engine)
        yield {n: (candidates[0][n] - before[n], (after[n] - before[n]) / -c) for n in before}


def test_every_update_is_along_the_perturbation():
    for step in perturbations_and_updates(9, nu=4):
        for perturbed, updated in step.values():
            assert cosine(perturbed, updated) == pytest.approx(1, abs=1e-6)


def test_with_the_published_bug_only_boundary_steps_update_along_another_direction():
    for t, step in enumerate(perturbations_and_updates(9, nu=4, replicate_boundary_bug=True)):
        cosines = {name: cosine(*pair) for name, pair in step.items()}
        if t % 4 == 0:
            assert all(abs(value) < 0.25 for value in cosines.values()), (t, cosines)
        else:
            assert all(value == pytest.approx(1, abs=1e-6) for value in cosines.values())


def test_with_the_published_bug_the_first_matrix_moves_along_V_V_transposed_if_it_is_square():
    """The update reads as U the numbers that the perturbation read as V."""
    engine = InPlace({"w": torch.zeros(7, 7, dtype=torch.float64)})
    A = Draws(5).normal("A", 0, {"A": (7, 7)}, dtype=torch.float64)["A"]
    optimizer = Lozo(engine, Draws(0), lr=0.1, eps=1e-3, rank=2, nu=10, replicate_boundary_bug=True)
    c = optimizer.step(score(engine, lambda: (A * engine.X["w"]).sum())).scalars["projected_grad"]
    V = optimizer.directions.V["w"]
    torch.testing.assert_close(engine.X["w"], -0.1 * c * V @ V.T)


def test_one_step_follows_the_equations():
    """On a linear loss, c is the exact slope."""
    engine = InPlace(
        {"w": torch.zeros(3, 4, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}
    )
    g = Draws(9).normal("g", 0, {"w": (3, 4), "b": (3,)}, dtype=torch.float64)
    linear = score(engine, lambda: (g["w"] * engine.X["w"]).sum() + (g["b"] * engine.X["b"]).sum())
    report = Lozo(engine, Draws(0), lr=0.5, eps=1e-3, rank=2, nu=5, scale="paper").step(linear)

    U = Draws(0).normal("U", 0, {"w": (3, 2)}, dtype=torch.float64)["w"]
    V = Draws(0).normal("V", 0, {"w": (4, 2)}, dtype=torch.float64)["w"]
    z = Draws(0).normal("U", 0, {"b": (3,)}, dtype=torch.float64)["b"]
    c = float((g["w"] * (U @ V.T)).sum() + (g["b"] * z).sum())
    assert report.scalars["projected_grad"] == pytest.approx(c, rel=1e-10)
    assert (report.forwards, report.backwards) == (2, 0)
    torch.testing.assert_close(engine.X["w"], -0.5 * c * U @ V.T / 2)
    torch.testing.assert_close(engine.X["b"], -0.5 * c * z)


def mean_estimate(nu, steps):
    """Return the mean of c U V^T / r over the steps, the gradient, and the optimizer."""
    G = Draws(2).normal("G", 0, {"w": (3, 4)}, dtype=torch.float64)["w"]
    engine = InPlace({"w": torch.zeros(3, 4, dtype=torch.float64)})
    optimizer = Lozo(engine, Draws(1), lr=1.0, eps=1e-3, rank=2, nu=nu, scale="paper")
    for _ in range(steps):  # the loss is linear, so that the gradient is G at all weights
        optimizer.step(score(engine, lambda: (G * engine.X["w"]).sum()))
    return -engine.X["w"] / steps, G, optimizer


def test_the_estimate_is_unbiased():
    estimate, G, _ = mean_estimate(nu=1, steps=1500)
    assert (estimate - G).norm() < 0.25 * G.norm()


def test_within_a_period_the_mean_estimate_is_the_gradient_projected_on_V():
    estimate, G, optimizer = mean_estimate(nu=10**9, steps=1500)
    V = optimizer.directions.V["w"]
    wanted = G @ V @ V.T / 2
    assert (estimate - wanted).norm() < 0.25 * wanted.norm()


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_reference_scale_equals_paper_scale_with_r_times_the_learning_rate(rank):
    ends = []
    for scale, lr in (("reference", 1e-3), ("paper", rank * 1e-3)):
        engine, loss = quadratic(8)
        run(
            Lozo(engine, Draws(0), lr=lr, eps=1e-3, rank=rank, nu=3, scale=scale),
            engine,
            loss,
            steps=20,
        )
        ends.append(engine.X["w"])
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)


def test_resampling_V_every_step_learns_as_fast_as_every_fifty_unless_the_bug_is_on():
    """The paper reports that nu = 1 does not learn; this is an artefact of its code's bug."""

    def remaining_loss(nu, bug=False):
        engine, loss = quadratic(32)
        start = float(loss())
        optimizer = Lozo(
            engine, Draws(0), lr=0.012, eps=1e-3, rank=2, nu=nu, replicate_boundary_bug=bug
        )
        run(optimizer, engine, loss, steps=500)
        return float(loss()) / start

    every_step, lazy, with_bug = (
        remaining_loss(nu=1),
        remaining_loss(nu=50),
        remaining_loss(nu=1, bug=True),
    )
    assert every_step < 0.7
    assert every_step < 1.1 * lazy
    assert with_bug > 1.0


def test_a_rank_above_every_side_of_every_matrix_is_refused():
    engine = InPlace({"w": torch.zeros(3, 5), "b": torch.zeros(9)})
    Lozo(engine, Draws(0), lr=1.0, eps=1.0, rank=5, nu=1)
    with pytest.raises(UserError, match=r"^rank: given 6; allowed: at most 5"):
        Lozo(engine, Draws(0), lr=1.0, eps=1.0, rank=6, nu=1)


def test_weight_decay_multiplies_matrices_by_one_minus_lr_times_decay():
    engine = InPlace({"w": torch.ones(2, 2, dtype=torch.float64)})
    optimizer = Lozo(engine, Draws(0), lr=0.1, eps=1e-3, rank=1, nu=1, weight_decay=0.5)
    optimizer.step(score(engine, lambda: torch.tensor(1.0)))  # the loss is constant: c = 0
    torch.testing.assert_close(engine.X["w"], torch.full((2, 2), 0.95, dtype=torch.float64))
