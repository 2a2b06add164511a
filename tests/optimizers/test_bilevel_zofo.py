"""Bilevel-ZOFO against its equations and its special cases."""

from __future__ import annotations

import pytest
import torch
from bilevel_toys import Toy

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.errors import UserError
from lozo_bench.optimizers.adamw import AdamW
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws

ALL_UPPER = {"inner_steps": 1, "step_counting": "outer"}
LOWER, UPPER = range(16), range(16, 24)


def upper_step(toy, optimizer):
    """Make a lower step, which the schedule wants first, at rate 0 and then an upper one."""
    optimizer.t = 1
    return optimizer.step(toy.score(LOWER, UPPER))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("fd", ["forward", "central"])
@pytest.mark.parametrize("directions", ["full_rank", "low_rank"])
def test_an_upper_step_follows_the_equations(fd, directions):
    toy = Toy(p=0.3, s=-0.2)
    options = {**ALL_UPPER, "fd": fd, "directions": directions, "lambda_": 7.0, "eps": 1e-3}
    optimizer = toy.optimizer(**options)
    theta, p, s = toy.sets
    report = upper_step(toy, optimizer)

    if directions == "full_rank":
        z = Draws(0).normal("z", 0, {"theta": (6, 4)}, dtype=torch.float64)["theta"]
    else:
        U = Draws(0).normal("U", 0, {"theta": (6, 2)}, dtype=torch.float64)["theta"]
        z = U @ Draws(0).normal("V", 0, {"theta": (4, 2)}, dtype=torch.float64)["theta"].T

    def H(at):
        upper = toy.losses(list(UPPER), at, p).mean()
        return (
            upper + 7.0 * (toy.losses(list(LOWER), at, p) - toy.losses(list(LOWER), at, s)).mean()
        )

    if fd == "forward":
        c = (H(theta + 1e-3 * z) - H(theta)) / 1e-3
    else:
        c = (H(theta + 1e-3 * z) - H(theta - 1e-3 * z)) / 2e-3
    assert report.scalars["projected_grad"] == pytest.approx(float(c), rel=1e-9)
    g = torch.func.grad(
        lambda p: (
            toy.losses(list(UPPER), theta, p).mean()
            + 7.0 * toy.losses(list(LOWER), theta, p).mean()
        )
    )(p)
    after = toy.sets
    torch.testing.assert_close(after[0], theta - 1e-2 * c * z)
    torch.testing.assert_close(after[1], p - 1e-2 * g / (g.abs() + 1e-8))  # Adam's first step
    assert torch.equal(after[2], s)
    assert report.scalars["gap"] == pytest.approx(
        report.scalars["lower_loss_p"] - report.scalars["lower_loss_s"]
    )


@pytest.mark.parametrize("fd", ["forward", "central"])
def test_with_equal_copies_the_estimate_does_not_depend_on_lambda(fd):
    found = []
    for lambda_ in (1e-9, 1.0, 1e6):
        toy = Toy(p=0.5, s=0.5)
        report = upper_step(toy, toy.optimizer(**ALL_UPPER, lambda_=lambda_, fd=fd))
        found.append(report.scalars["projected_grad"])
        assert report.scalars["gap"] == 0.0
    toy = Toy(p=0.5, s=0.5)
    found.append(
        upper_step(toy, toy.optimizer(**ALL_UPPER, lambda_=0.0, fd=fd)).scalars["projected_grad"]
    )
    assert len(set(found)) == 1


def test_without_lambda_it_is_hybrid_fine_tuning_on_the_upper_rows():
    one, other = Toy(p=0.3), Toy(p=0.3)
    bilevel = one.optimizer(lambda_=0.0, inner_steps=2)
    hybrid = other.optimizer(lambda_=0.0, inner_steps=0, eval_with="p", upper_rows=None)
    for k in range(4):
        batch = range(5 * k, 5 * k + 5)
        for _ in range(2):
            bilevel.step(one.score(LOWER))
        bilevel.step(one.score(LOWER, batch))
        hybrid.step(other.score(LOWER, batch))
        assert same(one.sets[:2], other.sets[:2])


def test_with_a_rate_of_0_above_s_moves_as_adamw_moves_an_adapter():
    toy, plain = Toy(p=0.3, s=0.2), Toy(p=0.2)
    optimizer = toy.optimizer(lr=0.0, lr_p=0.0, inner_steps=2, max_grad_norm=0.05)
    plain.engine.X = {"adapter": plain.module.adapter}
    adamw = AdamW(plain.engine, Draws(0), lr=1e-2, autocast=None, dropout=False, max_grad_norm=0.05)
    for step in range(9):
        batch = range(4 * step, 4 * step + 4)
        if optimizer.schedule.is_upper(step + 1):
            optimizer.step(toy.score(batch, UPPER))
        else:
            one, other = optimizer.step(toy.score(batch)), adamw.step(plain.score(batch))
            assert one.loss == pytest.approx(other.loss, rel=1e-14)
        # In place, theta returns to itself to rounding only; up to the first upper step s is equal.
        torch.testing.assert_close(
            toy.sets[2], plain.module.adapter, rtol=0, atol=0 if step < 2 else 1e-12
        )


def test_lower_steps_leave_theta_and_p_and_upper_steps_leave_s():
    toy = Toy(p=0.3, s=0.2)
    optimizer = toy.optimizer(inner_steps=30)
    theta, p, s = toy.sets
    for _ in range(30):
        optimizer.step(toy.score(LOWER))
    after = toy.sets
    assert same(after[:2], (theta, p))
    assert not torch.equal(after[2], s)
    optimizer.step(toy.score(LOWER, UPPER))
    assert torch.equal(toy.sets[2], after[2])
    assert not torch.equal(toy.sets[0], theta)
    assert not torch.equal(toy.sets[1], p)


@pytest.mark.parametrize(("fd", "count"), [("forward", 4000), ("central", 1000)])
def test_the_mean_estimate_is_the_gradient_of_the_penalty(fd, count):
    """On a quadratic with d = 60, in each coordinate."""
    toy = Toy(p=0.3, s=-0.2, n=10, bend=0.0)
    optimizer = toy.optimizer(**ALL_UPPER, lr=0.0, lr_p=0.0, lambda_=3.0, fd=fd)
    theta, p, s = toy.sets

    def H(at):
        upper = toy.losses(list(UPPER), at, p).mean()
        return (
            upper + 3.0 * (toy.losses(list(LOWER), at, p) - toy.losses(list(LOWER), at, s)).mean()
        )

    true = torch.func.grad(H)(theta)
    score = toy.score(LOWER, UPPER)
    upper, backbone = score.on("upper"), optimizer.theta
    terms = [optimizer._term(*of) for of in ((upper, 0), (score, 0), (score, 1))]
    total, squares = torch.zeros(60), torch.zeros(60)
    for k in range(count):
        direction = backbone.direction(k)
        slopes, _ = backbone.slopes(direction, terms, [None] * 3)
        c = slopes[0] + 3.0 * (slopes[1] - slopes[2])
        estimate = c * next(z for _, _, z in direction.pieces(toy.engine.X))
        total, squares = total + estimate, squares + estimate**2
    mean = total / count
    standard_error = ((squares / count - mean**2) / count).sqrt()
    true = true.flatten()
    assert ((mean - true).abs() < 4 * standard_error).all()
    assert (standard_error < 0.5 * true.abs().max()).all()  # so that a wrong mean would be seen


def test_s_starts_from_p_in_each_cycle_if_it_is_reset():
    toy = Toy(p=0.3, s=-0.2)
    optimizer = toy.optimizer(reset_s="each_outer", inner_steps=1)
    for _ in range(2):
        p = toy.sets[1]
        optimizer.step(toy.score(LOWER))
        g = torch.func.grad(lambda a: toy.losses(list(LOWER), None, a).mean())(p)
        torch.testing.assert_close(toy.sets[2], p - 1e-2 * g / (g.abs() + 1e-8))
        optimizer.step(toy.score(LOWER, UPPER))


def test_bomes_lambda_is_that_of_its_formula_on_the_same_estimates():
    toy = Toy(p=0.3, s=-0.2)
    optimizer = toy.optimizer(**ALL_UPPER, barrier=0.7)
    theta, p, s = toy.sets
    report = upper_step(toy, optimizer)
    z = Draws(0).normal("z", 0, {"theta": (6, 4)}, dtype=torch.float64)["theta"]

    def slope(rows, adapter):
        plus, minus = (toy.losses(list(rows), theta + e * z, adapter).mean() for e in (1e-4, -1e-4))
        return float(plus - minus) / 2e-4

    c_f, c_q = slope(UPPER, p), slope(LOWER, p) - slope(LOWER, s)
    g_f, g_q = (
        torch.func.grad(lambda a, rows=rows: toy.losses(list(rows), theta, a).mean())(p)
        for rows in (UPPER, LOWER)
    )
    square, product = c_q**2 + float((g_q**2).sum()), c_f * c_q + float((g_f * g_q).sum())
    wanted = max((0.7 * square - product) / square, 0.0)
    assert report.scalars["lambda"] == pytest.approx(wanted, rel=1e-6)
    assert report.scalars["projected_grad"] == pytest.approx(c_f + wanted * c_q, rel=1e-6)


@pytest.mark.parametrize(("fd", "at_theta"), [("central", 6), ("forward", 4)])
def test_an_outer_iteration_costs_what_the_equations_say(fd, at_theta):
    toy = Toy()
    optimizer = toy.optimizer(inner_steps=5, fd=fd)
    forwards = backwards = 0
    for _ in range(6):
        score = toy.score(LOWER, UPPER)
        report = optimizer.step(score)
        forwards += report.forwards + sum(each.forwards for each in score.of_streams)
        backwards += report.backwards + sum(each.backwards for each in score.of_streams)
    assert (forwards, backwards) == (5 + 2 + at_theta, 5 + 2)


def test_losses_computed_with_dropout_are_not_reused():
    toy = Toy()
    optimizer = toy.optimizer(inner_steps=5, fd="forward")
    optimizer.reuses_losses = False
    optimizer.t = 5
    score = toy.score(LOWER, UPPER)
    report = optimizer.step(score)
    assert report.forwards + score.of_streams[0].forwards == 2 + 6


@pytest.mark.parametrize("step", [1, 4])
def test_a_loss_that_is_not_finite_changes_nothing(step):
    toy = Toy(p=0.3, s=0.2)
    optimizer = toy.optimizer()
    optimizer.t = step - 1
    before = toy.sets
    toy.y = toy.y * float("nan")
    with pytest.raises(NonFiniteLossError):
        optimizer.step(toy.score(LOWER, UPPER))
    torch.testing.assert_close(toy.sets, before, rtol=0, atol=1e-14)


@pytest.mark.parametrize("upper", ["sgd", "adam"])
def test_a_state_between_any_two_steps_is_whole(upper):
    toy = Toy(p=0.3, s=0.2)
    whole = toy.optimizer(upper=upper)
    saved = []
    for step in range(8):
        saved.append((toy.engine.state(), optimizer_state(whole)))
        whole.step(toy.score(range(step, step + 8), UPPER))
    for step, (engine_state, state) in enumerate(saved):
        other = Toy()
        other.engine.load_state(engine_state)
        optimizer = other.optimizer(upper=upper)
        load_optimizer_state(optimizer, state)
        for later in range(step, 8):
            optimizer.step(other.score(range(later, later + 8), UPPER))
        assert same(other.sets, toy.sets)


def test_adam_above_is_adam_with_the_estimate_in_place_of_the_gradient():
    toy = Toy(p=0.3, s=0.2)
    optimizer = toy.optimizer(**ALL_UPPER, upper="adam", lr=0.03)
    wanted = torch.nn.Parameter(toy.sets[0])
    adam = torch.optim.Adam([wanted], lr=0.03)
    for k in range(3):
        c = upper_step(toy, optimizer).scalars["projected_grad"]
        z = Draws(0).normal("z", k, {"theta": (6, 4)}, dtype=torch.float64)["theta"]
        wanted.grad = c * z
        adam.step()
        torch.testing.assert_close(toy.sets[0], wanted.detach())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_s": -1.0}, "lr_s: given -1.0; allowed: a number >= 0"),
        ({"lambda_": float("inf")}, "lambda_: given inf"),
        ({"inner_steps": 0}, "inner_steps: given 0; allowed: a whole number >= 1"),
        ({"upper_rows": 1.0}, "upper_rows: given 1.0; allowed: a number between 0 and 1"),
        ({"upper": "adam", "directions": "low_rank"}, "upper: given 'adam'; allowed: sgd with"),
        ({"autocast": "fp16"}, "model.autocast: given 'fp16'; allowed: null or bf16"),
        ({"barrier": 0.0}, "barrier: given 0.0; allowed: a number > 0"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Toy().optimizer(**changes)


def test_other_tasks_than_those_of_the_tuning_are_refused():
    with pytest.raises(UserError, match=r"optimizer\.tasks: given a; allowed: the tasks of tuning"):
        Toy().optimizer(tasks=["a"])
