"""MeZO against its two-line definition."""

from __future__ import annotations

import pytest
import torch
from toys import score

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.optimizers.mezo import Mezo

SHAPES = {"w": (3, 4), "b": (3,), "v": (2, 2, 2)}


def linear():
    g = Draws(9).normal("g", 0, SHAPES, dtype=torch.float64)
    X = InPlace({name: torch.zeros(s, dtype=torch.float64) for name, s in SHAPES.items()})
    return X, g, lambda: sum((g[name] * X.X[name]).sum() for name in SHAPES)


def test_two_steps_by_hand():
    X, g, loss = linear()
    optimizer = Mezo(X, Draws(0), lr=0.5, eps=1e-3)
    wanted = {name: torch.zeros_like(x) for name, x in X.X.items()}
    for t in (0, 1):
        c = optimizer.step(score(X, loss)).scalars["projected_grad"]
        z = Draws(0).normal("z", t, SHAPES, dtype=torch.float64)
        assert c == pytest.approx(float(sum((g[n] * z[n]).sum() for n in z)), rel=1e-9)
        wanted = {name: x - 0.5 * c * z[name] for name, x in wanted.items()}
    torch.testing.assert_close(X.X, wanted)


def test_n_directions_are_the_mean_of_n_single_estimates_at_one_point():
    X, g, loss = linear()
    report = Mezo(X, Draws(0), lr=0.5, eps=1e-3, directions=3).step(score(X, loss))
    wanted = {name: torch.zeros_like(x) for name, x in X.X.items()}
    slopes = []
    for role in ("z", "z1", "z2"):
        z = Draws(0).normal(role, 0, SHAPES, dtype=torch.float64)
        slopes.append(float(sum((g[n] * z[n]).sum() for n in z)))
        wanted = {name: x - 0.5 * slopes[-1] * z[name] / 3 for name, x in wanted.items()}
    X.settle()
    torch.testing.assert_close({n: x.detach() for n, x in X.X.items()}, wanted)
    assert report.forwards == 6
    assert report.scalars["projected_grad"] == pytest.approx(sum(slopes) / 3)


def test_the_sum_in_place_of_the_mean_is_n_times_as_far():
    ends = []
    for options in ({"lr": 0.6}, {"lr": 0.2, "scale_lr_with_directions": True}):
        X, _, loss = linear()
        Mezo(X, Draws(0), eps=1e-3, directions=3, **options).step(score(X, loss))
        ends.append(X.state())
    torch.testing.assert_close(*ends)


def test_linear_directions_rise_with_the_step_from_one_and_none_is_too_many():
    X, _, loss = linear()
    options = {"directions": 4, "directions_schedule": "linear", "total_steps": 8}
    optimizer = Mezo(X, Draws(0), lr=0.1, eps=1e-3, **options)
    counts = [optimizer.step(score(X, loss)).forwards // 2 for _ in range(8)]
    assert counts == [1, 1, 1, 1, 2, 2, 3, 3]


def test_several_directions_are_made_again_from_what_was_told():
    options = {"directions": 4, "directions_schedule": "linear", "total_steps": 8}
    (X, _, loss), (again, _, _) = linear(), linear()
    first, second = (Mezo(of, Draws(0), lr=0.1, eps=1e-3, **options) for of in (X, again))
    for _ in range(8):
        asked = score(X, loss)
        first.step(asked)
        second.step(Score(again, [], examples=1, recorded=asked.told))
    assert fingerprint(again.state()) == fingerprint(X.state())
    assert fingerprint(again.state()) != fingerprint(linear()[0].state())


def test_a_linear_schedule_needs_the_number_of_steps():
    with pytest.raises(UserError, match=r"^total_steps: given None; allowed: a whole number >= 1"):
        Mezo(InPlace({}), Draws(0), lr=0.1, eps=1e-3, directions_schedule="linear")
