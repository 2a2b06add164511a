"""MeZO against its equations."""

from __future__ import annotations

import pytest
import torch
from toys import score

from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.errors import UserError
from lozo_bench.optimizers.mezo import Mezo
from lozo_bench.randomness.draws import Draws

SHAPES = {"w": (3, 4), "b": (3,), "v": (2, 2, 2)}


def linear():
    g = Draws(9).normal("g", 0, SHAPES, dtype=torch.float64)
    engine = InPlace({name: torch.zeros(s, dtype=torch.float64) for name, s in SHAPES.items()})
    return engine, g, lambda: sum((g[name] * engine.X[name]).sum() for name in SHAPES)


def test_two_steps_follow_the_equations():
    engine, g, loss = linear()
    optimizer = Mezo(engine, Draws(0), lr=0.5, eps=1e-3)
    wanted = {name: torch.zeros_like(x) for name, x in engine.X.items()}
    for t in (0, 1):
        c = optimizer.step(score(engine, loss)).scalars["projected_grad"]
        z = Draws(0).normal("z", t, SHAPES, dtype=torch.float64)
        assert c == pytest.approx(float(sum((g[n] * z[n]).sum() for n in z)), rel=1e-9)
        wanted = {name: x - 0.5 * c * z[name] for name, x in wanted.items()}
    torch.testing.assert_close(engine.X, wanted)


def test_n_directions_are_the_mean_of_n_estimates_at_the_same_weights():
    engine, g, loss = linear()
    report = Mezo(engine, Draws(0), lr=0.5, eps=1e-3, directions=3).step(score(engine, loss))
    wanted = {name: torch.zeros_like(x) for name, x in engine.X.items()}
    slopes = []
    for role in ("z", "z1", "z2"):
        z = Draws(0).normal(role, 0, SHAPES, dtype=torch.float64)
        slopes.append(float(sum((g[n] * z[n]).sum() for n in z)))
        wanted = {name: x - 0.5 * slopes[-1] * z[name] / 3 for name, x in wanted.items()}
    engine.flush()
    torch.testing.assert_close({n: x.detach() for n, x in engine.X.items()}, wanted)
    assert report.forwards == 6
    assert report.scalars["projected_grad"] == pytest.approx(sum(slopes) / 3)


def test_the_sum_over_directions_is_n_times_their_mean():
    ends = []
    for options in ({"lr": 0.6}, {"lr": 0.2, "scale_lr_with_directions": True}):
        engine, _, loss = linear()
        Mezo(engine, Draws(0), eps=1e-3, directions=3, **options).step(score(engine, loss))
        ends.append(engine.state())
    torch.testing.assert_close(*ends)


def test_the_linear_schedule_raises_the_number_of_directions_from_one():
    engine, _, loss = linear()
    options = {"directions": 4, "directions_schedule": "linear", "total_steps": 8}
    optimizer = Mezo(engine, Draws(0), lr=0.1, eps=1e-3, **options)
    counts = [optimizer.step(score(engine, loss)).forwards // 2 for _ in range(8)]
    assert counts == [1, 1, 1, 1, 2, 2, 3, 3]


def test_steps_with_several_directions_are_replayed_from_the_recorded_losses():
    options = {"directions": 4, "directions_schedule": "linear", "total_steps": 8}
    (engine, _, loss), (replayed, _, _) = linear(), linear()
    first, second = (Mezo(of, Draws(0), lr=0.1, eps=1e-3, **options) for of in (engine, replayed))
    for _ in range(8):
        asked = score(engine, loss)
        first.step(asked)
        second.step(Score(replayed, [], examples=1, recorded=asked.answers))
    assert fingerprint(replayed.state()) == fingerprint(engine.state())
    assert fingerprint(replayed.state()) != fingerprint(linear()[0].state())


def test_a_linear_schedule_needs_the_number_of_steps():
    with pytest.raises(UserError, match=r"^total_steps: given None; allowed: a whole number >= 1"):
        Mezo(InPlace({}), Draws(0), lr=0.1, eps=1e-3, directions_schedule="linear")
