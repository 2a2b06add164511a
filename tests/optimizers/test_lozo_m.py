"""LOZO-M: acceptance test A6 of the spec, momentum followed by hand in float64."""

from __future__ import annotations

import pytest
import torch
from toys import quadratic, run, score

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.score import NonFiniteLossError
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.lozo_m import LozoM

BETA = 0.8


def factors(role, step, n=6, rank=2):
    return Draws(0).normal(role, step, {"w": (n, rank)}, dtype=torch.float64)["w"]


def steps_with_momentum(steps, nu, **options):
    """(c, N after the step) for each step."""
    X, loss = quadratic(6)
    optimizer = LozoM(X, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=nu, beta=BETA, **options)
    for _ in range(steps):
        report = optimizer.step(score(X, loss))
        yield report.scalars["projected_grad"], optimizer.N["w"].clone()


def test_a6_within_a_period_momentum_is_a_moving_average_of_c_U():
    (c0, N0), (c1, N1) = steps_with_momentum(2, nu=5)
    torch.testing.assert_close(N0, (1 - BETA) * c0 * factors("U", 0))
    torch.testing.assert_close(N1, BETA * N0 + (1 - BETA) * c1 * factors("U", 1))


def test_a6_at_a_boundary_momentum_is_projected_on_the_new_V():
    *_, (_, N1), (c2, N2) = steps_with_momentum(3, nu=2)
    V_old, V = factors("V", 0), factors("V", 1)
    wanted = BETA * N1 @ V_old.T @ V / 6 + (1 - BETA) * c2 * factors("U", 2)
    torch.testing.assert_close(N2, wanted)


def test_a6_with_nu_1_there_is_momentum():
    """The published code never stores the old V when nu is 1, and so has none."""
    (_, N0), (c1, N1) = steps_with_momentum(2, nu=1)
    carried = BETA * N0 @ factors("V", 0).T @ factors("V", 1) / 6
    torch.testing.assert_close(N1, carried + (1 - BETA) * c1 * factors("U", 1))
    assert carried.norm() > 0.01 * N1.norm()


def test_the_exact_projection_is_the_least_squares_one():
    *_, (_, N1), (c2, N2) = steps_with_momentum(3, nu=2, projection="exact")
    V_old, V = factors("V", 0), factors("V", 1)
    projected = torch.linalg.lstsq(V, V_old @ N1.T).solution.T  # min || N V^T - N_old V_old^T ||
    torch.testing.assert_close(N2, BETA * projected + (1 - BETA) * c2 * factors("U", 2))


def test_the_exact_projection_stays_bounded_where_the_rank_exceeds_a_side():
    """V^T V is singular there; its plain inverse lets N grow without bound."""
    X, loss = quadratic(6)
    X.X["thin"] = torch.zeros(8, 3, dtype=torch.float64)
    optimizer = LozoM(X, Draws(0), lr=1e-3, eps=1e-3, rank=5, nu=1, beta=BETA, projection="exact")
    target = factors("target", 0, n=8, rank=3)
    run(optimizer, X, lambda: loss() + ((X.X["thin"] - target) ** 2).sum(), steps=30)
    assert optimizer.N["thin"].norm() < 200


def test_the_update_is_the_momentum_read_against_V():
    X, loss = quadratic(6)
    LozoM(X, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5, beta=BETA, scale="paper").step(
        score(X, loss)
    )
    ((_, N),) = steps_with_momentum(1, nu=5, scale="paper")
    torch.testing.assert_close(X.X["w"], -0.01 * N @ factors("V", 0).T / 2)


def test_bias_correction_makes_the_first_step_of_a_period_a_full_one():
    """With beta^1 corrected, step one of LOZO-M is step one of LOZO."""
    ends = []
    for optimizer_class, options in ((Lozo, {}), (LozoM, {"beta": 0.9, "bias_correction": True})):
        X, loss = quadratic(6)
        X.X["b"] = torch.zeros(6, dtype=torch.float64)
        optimizer = optimizer_class(X, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5, **options)
        run(optimizer, X, lambda X=X, loss=loss: loss() + X.X["b"].sum(), steps=1)
        ends.append(X.X)
    torch.testing.assert_close(ends[0], ends[1])


def test_without_beta_it_is_lozo():
    ends = []
    for optimizer_class, options in ((Lozo, {}), (LozoM, {"beta": 0.0})):
        X, loss = quadratic(6)
        run(optimizer_class(X, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=3, **options), X, loss, 10)
        ends.append(X.X["w"])
    torch.testing.assert_close(ends[0], ends[1])


def test_the_published_bug_puts_a_wrong_U_into_the_momentum():
    ((c, N),) = steps_with_momentum(1, nu=5, replicate_boundary_bug=True)
    stream = Draws(0).normal("stream", 0, {"all": (24,)}, dtype=torch.float64)["all"]
    read_as_V, read_as_U = stream[:12].view(6, 2), stream[12:24].view(6, 2)
    torch.testing.assert_close(N, (1 - BETA) * c * read_as_V)
    assert not torch.allclose(read_as_V, read_as_U)


@pytest.mark.parametrize("beta", [1.0, -0.1])
def test_beta_is_a_fraction(beta):
    with pytest.raises(ValueError, match="beta: given"):
        LozoM({}, Draws(0), lr=1, eps=1, rank=1, nu=1, beta=beta)


def test_a_step_that_did_not_happen_does_not_count_for_the_bias_correction():
    """After a loss that was NaN, the first update of the period is still a full one."""
    ends = []
    for optimizer_class, options in ((Lozo, {}), (LozoM, {"beta": 0.9, "bias_correction": True})):
        X, loss = quadratic(6)
        optimizer = optimizer_class(X, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5, **options)
        with pytest.raises(NonFiniteLossError):
            optimizer.step(score(X, lambda loss=loss: loss() * float("nan")))
        optimizer.step(score(X, loss))
        X.settle()
        ends.append(X.X["w"])
    torch.testing.assert_close(ends[0], ends[1])
