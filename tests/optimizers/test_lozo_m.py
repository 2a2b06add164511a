"""LOZO-M in float64: its momentum against the equations."""

from __future__ import annotations

import pytest
import torch
from toys import quadratic, run, score

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.lozo_m import LozoM
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws

BETA = 0.8


def factors(role, step, n=6, rank=2):
    return Draws(0).normal(role, step, {"w": (n, rank)}, dtype=torch.float64)["w"]


def steps_with_momentum(steps, nu, **options):
    """Yield c and N after each step."""
    engine, loss = quadratic(6)
    optimizer = LozoM(engine, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=nu, beta=BETA, **options)
    for _ in range(steps):
        report = optimizer.step(score(engine, loss))
        yield report.scalars["projected_grad"], optimizer.N["w"].clone()


def test_within_a_period_momentum_is_a_moving_average_of_c_U():
    (c0, N0), (c1, N1) = steps_with_momentum(2, nu=5)
    torch.testing.assert_close(N0, (1 - BETA) * c0 * factors("U", 0))
    torch.testing.assert_close(N1, BETA * N0 + (1 - BETA) * c1 * factors("U", 1))


def test_at_a_boundary_momentum_is_projected_on_the_new_V():
    *_, (_, N1), (c2, N2) = steps_with_momentum(3, nu=2)
    V_old, V = factors("V", 0), factors("V", 1)
    wanted = BETA * N1 @ V_old.T @ V / 6 + (1 - BETA) * c2 * factors("U", 2)
    torch.testing.assert_close(N2, wanted)


def test_with_nu_1_there_is_momentum():
    """The published code has none, because it never stores the old V when nu is 1."""
    (_, N0), (c1, N1) = steps_with_momentum(2, nu=1)
    carried = BETA * N0 @ factors("V", 0).T @ factors("V", 1) / 6
    torch.testing.assert_close(N1, carried + (1 - BETA) * c1 * factors("U", 1))
    assert carried.norm() > 0.01 * N1.norm()


def test_the_exact_projection_is_the_least_squares_solution():
    *_, (_, N1), (c2, N2) = steps_with_momentum(3, nu=2, projection="exact")
    V_old, V = factors("V", 0), factors("V", 1)
    projected = torch.linalg.lstsq(V, V_old @ N1.T).solution.T  # min || N V^T - N_old V_old^T ||
    torch.testing.assert_close(N2, BETA * projected + (1 - BETA) * c2 * factors("U", 2))


def test_the_exact_projection_stays_bounded_where_the_rank_exceeds_a_side():
    """V^T V is singular then; with its plain inverse N would grow without bound."""
    engine, loss = quadratic(6)
    engine.X["narrow"] = torch.zeros(8, 3, dtype=torch.float64)
    optimizer = LozoM(
        engine, Draws(0), lr=1e-3, eps=1e-3, rank=5, nu=1, beta=BETA, projection="exact"
    )
    target = factors("target", 0, n=8, rank=3)
    run(optimizer, engine, lambda: loss() + ((engine.X["narrow"] - target) ** 2).sum(), steps=30)
    assert optimizer.N["narrow"].norm() < 200


def test_the_update_is_N_times_V_transposed():
    engine, loss = quadratic(6)
    LozoM(engine, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5, beta=BETA, scale="paper").step(
        score(engine, loss)
    )
    ((_, N),) = steps_with_momentum(1, nu=5, scale="paper")
    torch.testing.assert_close(engine.X["w"], -0.01 * N @ factors("V", 0).T / 2)


def test_with_bias_correction_the_first_step_of_a_period_has_full_size():
    """The first step of LOZO-M is then the first step of LOZO."""
    ends = []
    for optimizer_class, options in ((Lozo, {}), (LozoM, {"beta": 0.9, "bias_correction": True})):
        engine, loss = quadratic(6)
        engine.X["b"] = torch.zeros(6, dtype=torch.float64)
        optimizer = optimizer_class(engine, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5, **options)
        run(
            optimizer,
            engine,
            lambda engine=engine, loss=loss: loss() + engine.X["b"].sum(),
            steps=1,
        )
        ends.append(engine.X)
    torch.testing.assert_close(ends[0], ends[1])


def test_with_beta_zero_it_is_lozo():
    ends = []
    for optimizer_class, options in ((Lozo, {}), (LozoM, {"beta": 0.0})):
        engine, loss = quadratic(6)
        run(
            optimizer_class(engine, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=3, **options),
            engine,
            loss,
            10,
        )
        ends.append(engine.X["w"])
    torch.testing.assert_close(ends[0], ends[1])


def test_with_the_published_bug_a_wrong_U_enters_the_momentum():
    ((c, N),) = steps_with_momentum(1, nu=5, replicate_boundary_bug=True)
    stream = Draws(0).normal("stream", 0, {"all": (24,)}, dtype=torch.float64)["all"]
    read_as_V, read_as_U = stream[:12].view(6, 2), stream[12:24].view(6, 2)
    torch.testing.assert_close(N, (1 - BETA) * c * read_as_V)
    assert not torch.allclose(read_as_V, read_as_U)


@pytest.mark.parametrize("nu", [1, 3])
def test_with_the_published_first_step_the_momentum_begins_with_c_U(nu):
    """N_0 = c U without 1 - beta, as the released code has it; only the first step differs."""
    (c0, N0), (c1, N1) = steps_with_momentum(2, nu=nu, replicate_first_step=True)
    torch.testing.assert_close(N0, c0 * factors("U", 0))
    carried = N0 if nu > 1 else N0 @ factors("V", 0).T @ factors("V", 1) / 6
    torch.testing.assert_close(N1, BETA * carried + (1 - BETA) * c1 * factors("U", 1))


def test_the_published_first_step_also_begins_the_momentum_of_vectors_and_survives_a_bad_step():
    engine, loss = quadratic(6)
    engine.X["b"] = torch.zeros(6, dtype=torch.float64)
    optimizer = LozoM(
        engine, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5, beta=BETA, replicate_first_step=True
    )
    with pytest.raises(NonFiniteLossError):
        optimizer.step(score(engine, lambda: loss() * float("nan")))
    c = optimizer.step(score(engine, loss)).scalars["projected_grad"]
    z = Draws(0).normal("U", 1, {"b": (6, 1)}, dtype=torch.float64)["b"]
    torch.testing.assert_close(optimizer.N["b"], c * z)


def test_a_bias_correction_of_the_published_first_step_is_refused():
    with pytest.raises(ValueError, match=r"replicate_first_step: given True.*bias_correction"):
        LozoM(
            {}, Draws(0), lr=1, eps=1, rank=1, nu=1, bias_correction=True, replicate_first_step=True
        )


def test_a_state_of_a_version_without_the_option_is_continued():
    engine, loss = quadratic(6)
    optimizer = LozoM(engine, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5)
    optimizer.step(score(engine, loss))
    del optimizer.replicate_first_step  # as in that version
    state = optimizer_state(optimizer)
    later = LozoM(engine, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5)
    load_optimizer_state(later, state)
    assert (later.t, later.replicate_first_step) == (1, False)


@pytest.mark.parametrize("beta", [1.0, -0.1])
def test_beta_is_a_fraction(beta):
    with pytest.raises(ValueError, match="beta: given"):
        LozoM({}, Draws(0), lr=1, eps=1, rank=1, nu=1, beta=beta)


def test_a_skipped_step_does_not_count_for_the_bias_correction():
    """After a NaN loss, the first update of the period still has full size."""
    ends = []
    for optimizer_class, options in ((Lozo, {}), (LozoM, {"beta": 0.9, "bias_correction": True})):
        engine, loss = quadratic(6)
        optimizer = optimizer_class(engine, Draws(0), lr=0.01, eps=1e-3, rank=2, nu=5, **options)
        with pytest.raises(NonFiniteLossError):
            optimizer.step(score(engine, lambda loss=loss: loss() * float("nan")))
        optimizer.step(score(engine, loss))
        engine.flush()
        ends.append(engine.X["w"])
    torch.testing.assert_close(ends[0], ends[1])
