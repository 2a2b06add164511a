"""A distance that is too small for the dtype is noticed in the first steps, and measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import fingerprint
from lozo_bench.optimizers.lozo import Lozo
from lozo_bench.optimizers.mezo import Mezo
from lozo_bench.randomness.draws import Draws
from lozo_bench.training.resolution import ResolutionCheck, smallest_resolved

STEPS = 4


class Toy:
    """A linear layer with a smooth loss, and the number of times that it was asked for it."""

    def __init__(self, dtype):
        self.layer = nn.Linear(32, 8).to(dtype).eval()
        self.X = dict(self.layer.named_parameters())
        drawn = Draws(7).normal("weights", 0, {name: tuple(x.shape) for name, x in self.X.items()})
        with torch.no_grad():
            for name, x in self.X.items():
                x.copy_(0.2 * drawn[name])
        self.rows = torch.linspace(0, 1, 4 * 32).view(4, 32).to(dtype)
        self.calls = 0

    def losses(self, copies):
        self.calls += 1
        out = self.layer(self.rows.repeat(copies, 1)).float()
        return -out.log_softmax(1)[:, 0].view(copies, 4)


def steps(method, dtype, eps, watched=True):
    """Make some steps; return what was said, the toy and the weights' fingerprint."""
    toy = Toy(dtype)
    if method is Mezo:
        engine, options = InPlace(toy.X, toy.layer), {}
    else:
        engine, options = Fused(toy.layer, toy.X, Folder("nearest", Draws(0))), {"rank": 2, "nu": 3}
    optimizer = method(engine, Draws(0), lr=1e-6, eps=eps, **options)
    check, said = ResolutionCheck(optimizer, engine, STEPS), []
    for _ in range(STEPS):
        score = Score(engine, [MicroBatch(4, 4, toy.losses)])
        optimizer.step(score)
        if watched and (why := check.after(score)) is not None:
            said.append(why)
    return said, toy, fingerprint(engine.tensors())


@pytest.mark.parametrize(
    ("method", "dtype", "eps", "least", "most"),
    [
        (Mezo, torch.float32, 1e-12, 1e-8, 1e-4),
        (Lozo, torch.float32, 1e-12, 1e-8, 1e-4),
        (Mezo, torch.bfloat16, 1e-9, 1e-4, 1e-1),
        (Lozo, torch.float16, 1e-9, 1e-6, 1e-1),
    ],
)
def test_an_eps_below_the_resolution_is_said_once_with_the_smallest_sensible_one(
    method, dtype, eps, least, most
):
    (said,), _, watched = steps(method, dtype, eps)
    assert said.startswith(f"optimizer.eps={eps:g}: the losses of a step differ by rounding only")
    sensible = float(said.partition("What to do: optimizer.eps=")[2].split()[0])
    assert least <= sensible <= most
    assert steps(method, dtype, sensible)[0] == []
    if dtype == torch.float32:
        assert watched == steps(method, dtype, eps, watched=False)[2]  # measuring changed nothing


@pytest.mark.parametrize("method", [Mezo, Lozo])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_all_is_well_nothing_is_measured_and_nothing_said(method, dtype):
    said, toy, weights = steps(method, dtype, 1e-2)
    _, alone, unwatched = steps(method, dtype, 1e-2, watched=False)
    assert (said, toy.calls, weights) == ([], alone.calls, unwatched)


@pytest.mark.parametrize(
    ("rounding", "smallest"), [(0.0, 1.0), (1e-6, 4.0**5), (float("inf"), None)]
)
def test_slopes_begin_where_differences_grow_in_proportion(rounding, smallest):
    """At a distance of 1e-9 the difference is 1e-9: 4^5 times that is a unit of rounding."""

    def difference(factor):
        exact = 1e-9 * factor
        if rounding == float("inf"):
            return 0.0  # such as an accuracy
        return round(exact / rounding) * rounding if rounding else exact

    assert smallest_resolved(difference, farthest=1e9) == smallest
