"""Scaled SPSA against definitions 6 and 7 of MeZO's paper."""

from __future__ import annotations

import pytest
import torch
from toys import module_and_engine, score

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.optimizers.mezo_scaled import MezoScaled
from lozo_bench.optimizers.state import load_optimizer_state, optimizer_state
from lozo_bench.randomness.draws import Draws

SHAPES = {"layers": (2, 1), "lm_head": (1,), "other": (1,)}
NAMES = {"layers": "layers.0.w", "lm_head": "lm_head.w", "other": "other"}


class Toy:
    """The loss 0.5 |x - y|^2 on two layer groups and one weight that is in no group."""

    def __init__(self):
        start = Draws(5).normal("x", 0, SHAPES, dtype=torch.float64)
        y = Draws(6).normal("y", 0, SHAPES, dtype=torch.float64)
        self.y = y | {name: 4 * y[name] for name in ("layers", "lm_head")}
        self.module, self.engine = module_and_engine(start)
        # The engine's names are like a model's; names of a module's parameters cannot have dots.
        self.engine.X = {NAMES[name]: x.requires_grad_() for name, x in self.engine.X.items()}

    def loss(self):
        return sum(((getattr(self.module, n) - y) ** 2).sum() for n, y in self.y.items()) / 2

    def gradient(self):
        return {NAMES[n]: getattr(self.module, n).detach() - y for n, y in self.y.items()}

    def applied(self):
        return {name: x.detach().clone() for name, x in self.engine.X.items()}


def mean_step(**options):
    """Return the mean of (X - X') / lr over 300 steps X -> X' from the same weights X."""
    toy = Toy()
    optimizer = MezoScaled(toy.engine, Draws(0), lr=0.1, eps=1e-3, **options)
    before, total = toy.engine.state(), dict.fromkeys(NAMES.values(), 0)
    for _ in range(300):
        optimizer.step(score(toy.engine, toy.loss))
        after = toy.engine.state()
        total = {n: x + (before[f"X/{n}"] - after[f"X/{n}"]) / 30 for n, x in total.items()}
        toy.engine.load_state(before)
    return total


def flat(tensors):
    return torch.cat([tensors[name].flatten() for name in NAMES.values()])


@pytest.mark.parametrize("estimate", ["variance", "expectation"])
def test_a_step_with_the_norms_of_the_weights_follows_the_equations(estimate):
    toy = Toy()
    before, g = toy.applied(), toy.gradient()
    d = {name: float(before[name].norm()) for name in before} | {"other": 1.0}
    optimizer = MezoScaled(toy.engine, Draws(0), lr=0.5, eps=1e-3, estimate=estimate)
    report = optimizer.step(score(toy.engine, toy.loss))
    shapes = {name: tuple(x.shape) for name, x in before.items()}
    z = Draws(0).normal("z", 0, shapes, dtype=torch.float64)
    # The loss is quadratic, so that a central difference is its exact slope.
    c = float(sum((g[n] * z[n] / d[n]).sum() for n in z))
    power = 1 if estimate == "variance" else 0
    wanted = {name: before[name] - 0.5 * c * d[name] ** power * z[name] for name in z}
    torch.testing.assert_close(toy.applied(), wanted)
    assert (report.forwards, report.backwards) == (2, 0)


def test_the_variance_modified_estimate_is_unbiased():
    found, wanted = flat(mean_step()), flat(Toy().gradient())
    assert float((found - wanted).norm() / wanted.norm()) < 0.25


def test_the_expectation_modified_estimate_is_the_normalised_gradient():
    found = flat(mean_step(estimate="expectation", norm="gradient"))
    g = Toy().gradient()
    wanted = flat({n: x if n == "other" else x / x.norm() for n, x in g.items()})
    assert float((found - wanted).norm() / wanted.norm()) < 0.25
    assert float((found - flat(g)).norm() / flat(g).norm()) > 0.6


def test_gradient_norms_are_exact_and_leave_no_gradient_behind():
    toy = Toy()
    optimizer = MezoScaled(toy.engine, Draws(0), lr=0.0, eps=1e-3, norm="gradient")
    report = optimizer.step(score(toy.engine, toy.loss))
    g = toy.gradient()
    assert float(optimizer.d["layers.0"]) == pytest.approx(float(g["layers.0.w"].norm()))
    assert float(optimizer.d["head"]) == pytest.approx(float(g["lm_head.w"].norm()))
    assert all(x.grad is None for x in toy.engine.X.values())
    assert (report.forwards, report.backwards) == (3, 1)


def test_gradient_norms_by_losses_are_the_slopes_of_one_group_at_a_time():
    toy = Toy()
    optimizer = MezoScaled(toy.engine, Draws(0), lr=0.0, eps=1e-3, norm="gradient_zo")
    report = optimizer.step(score(toy.engine, toy.loss))
    g = toy.gradient()
    z = Draws(0).normal("d", 0, {"lm_head.w": (1,)}, dtype=torch.float64)["lm_head.w"]
    assert float(optimizer.d["head"]) == pytest.approx(abs(float(g["lm_head.w"] @ z)))
    assert (report.forwards, report.backwards) == (6, 0)


@pytest.mark.parametrize(("every", "times"), [(0, 1), (2, 3), (3, 2)])
def test_d_is_computed_again_after_recompute_every_steps(every, times):
    toy = Toy()
    options = {"norm": "gradient", "recompute_every": every}
    optimizer = MezoScaled(toy.engine, Draws(0), lr=0.0, eps=1e-3, **options)
    reports = [optimizer.step(score(toy.engine, toy.loss)) for _ in range(6)]
    assert sum(report.backwards for report in reports) == times


def test_a_group_whose_norm_is_zero_is_not_scaled():
    toy = Toy()
    with torch.no_grad():
        toy.engine.X["lm_head.w"].zero_()
    optimizer = MezoScaled(toy.engine, Draws(0), lr=0.0, eps=1e-3)
    optimizer.step(score(toy.engine, toy.loss))
    assert float(optimizer.d["head"]) == 1


@pytest.mark.parametrize("norm", ["gradient", "gradient_zo"])
def test_norms_that_are_not_finite_change_nothing_but_are_recorded(norm):
    toy = Toy()
    optimizer = MezoScaled(toy.engine, Draws(0), lr=0.1, eps=1e-3, norm=norm)
    before, asked = toy.applied(), score(toy.engine, lambda: toy.loss() * float("nan"))
    with pytest.raises(NonFiniteLossError):
        optimizer.step(asked)
    torch.testing.assert_close(toy.applied(), before, rtol=0, atol=1e-14)
    assert len(asked.answers) == 1
    assert all(x.grad is None for x in toy.engine.X.values())
    optimizer.step(score(toy.engine, toy.loss))
    assert optimizer.d.keys() == {"layers.0", "head"}


def make(toy, norm, every):
    return MezoScaled(toy.engine, Draws(0), lr=0.1, eps=1e-3, norm=norm, recompute_every=every)


@pytest.mark.parametrize("norm", ["parameters", "gradient", "gradient_zo"])
@pytest.mark.parametrize("every", [0, 2])
def test_steps_are_replayed_from_the_recorded_norms_and_losses(norm, every):
    toy, again = Toy(), Toy()
    first, second = make(toy, norm, every), make(again, norm, every)
    for _ in range(5):
        asked = score(toy.engine, toy.loss)
        first.step(asked)
        second.step(Score(again.engine, [], examples=1, recorded=asked.answers))
    assert fingerprint(again.engine.state()) == fingerprint(toy.engine.state())
    assert fingerprint(again.engine.state()) != fingerprint(Toy().engine.state())


@pytest.mark.parametrize("every", [0, 4])
def test_d_is_part_of_the_state(every):
    """A run that resumes between two computations of d continues with the saved d."""
    toy, again = Toy(), Toy()
    first, second = make(toy, "gradient", every), make(again, "gradient", every)
    for _ in range(3):
        first.step(score(toy.engine, toy.loss))
    again.engine.load_state(toy.engine.state())
    load_optimizer_state(second, optimizer_state(first))
    for _ in range(3):
        one, other = (
            first.step(score(toy.engine, toy.loss)),
            second.step(score(again.engine, again.loss)),
        )
        assert one == other
    assert fingerprint(again.engine.state()) == fingerprint(toy.engine.state())


def test_a_negative_recompute_every_is_refused():
    with pytest.raises(UserError, match=r"^recompute_every: given -1; allowed: a whole number"):
        MezoScaled(Toy().engine, Draws(0), lr=0.1, eps=1e-3, recompute_every=-1)
