"""Two stages: the adapter by first order, then the weights by zeroth order."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from bilevel_toys import Toy

from lozo_bench.config.build import build
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws

OPTIONS = {
    "_target_": "lozo_bench.optimizers.two_stage.TwoStage",
    "lr": 1e-2, "lr_p": 1e-2, "first_stage": 0.5, "eps": 1e-4, "fd": "central",
    "directions": "full_rank", "rank": 2, "nu": 5, "upper": "sgd", "total_steps": 6,
    "dropout": False, "autocast": None, "max_grad_norm": None,
}  # fmt: skip


def optimizer(toy, **changes):
    return build({**OPTIONS, **changes}, "optimizer", toy.engine, Draws(0))


def test_the_adapter_moves_first_and_the_weights_then():
    toy = Toy(p=0.3)
    stages, states, reports = optimizer(toy), [toy.sets], []
    for _ in range(6):
        reports.append(stages.step(toy.score(range(8))))
        states.append(toy.sets)
    moved = [
        [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
        for before, after in pairwise(states)
    ]
    assert moved == [[False, True, False]] * 3 + [[True, False, False]] * 3  # theta, p, s
    assert [(r.forwards, r.backwards) for r in reports] == [(1, 1)] * 3 + [(2, 0)] * 3


def test_a_step_of_the_second_stage_follows_the_estimate():
    toy = Toy(p=0.3)
    theta, p, _ = toy.sets
    c = optimizer(toy, first_stage=0.0).step(toy.score(range(8))).scalars["projected_grad"]
    z = Draws(0).normal("z", 0, {"theta": (6, 4)}, dtype=torch.float64)["theta"]
    plus, minus = (toy.losses(list(range(8)), theta + e * z, p).mean() for e in (1e-4, -1e-4))
    assert c == pytest.approx(float(plus - minus) / 2e-4, rel=1e-8)
    torch.testing.assert_close(toy.sets[0], theta - 1e-2 * c * z)


def test_a_share_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"first_stage: given 1\.5; allowed: a number from 0"):
        optimizer(Toy(), first_stage=1.5)
