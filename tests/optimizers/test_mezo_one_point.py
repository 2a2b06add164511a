"""One-point estimates against their equations."""

from __future__ import annotations

import pytest
import torch
from toys import module_and_engine, score

from lozo_bench.optimizers.mezo_one_point import MezoOnePoint
from lozo_bench.randomness.draws import Draws


def test_three_steps_follow_the_equations():
    g = Draws(9).normal("g", 0, {"w": (3, 4)}, dtype=torch.float64)["w"]
    module, engine = module_and_engine({"w": torch.zeros(3, 4, dtype=torch.float64)})
    optimizer = MezoOnePoint(engine, Draws(0), lr=0.01, eps=0.1)
    x, before = torch.zeros(3, 4, dtype=torch.float64), None
    for t in range(3):
        report = optimizer.step(score(engine, lambda: (g * module.w).sum()))
        z = Draws(0).normal("z", t, {"w": (3, 4)}, dtype=torch.float64)["w"]
        loss = float((g * (x + 0.1 * z)).sum())
        assert (report.loss, report.forwards) == (pytest.approx(loss), 1)
        if before is not None:
            x = x - 0.01 * (loss - before) / 0.1 * z
        before = loss
        engine.flush()
        torch.testing.assert_close(module.w.detach(), x)
