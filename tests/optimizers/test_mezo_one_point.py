"""One-point estimates by hand."""

from __future__ import annotations

import pytest
import torch
from toys import held, score

from lozo_bench.engine.draws import Draws
from lozo_bench.optimizers.mezo_one_point import MezoOnePoint


def test_three_steps_by_hand():
    g = Draws(9).normal("g", 0, {"w": (3, 4)}, dtype=torch.float64)["w"]
    of, X = held({"w": torch.zeros(3, 4, dtype=torch.float64)})
    optimizer = MezoOnePoint(X, Draws(0), lr=0.01, eps=0.1)
    x, before = torch.zeros(3, 4, dtype=torch.float64), None
    for t in range(3):
        report = optimizer.step(score(X, lambda: (g * of.w).sum()))
        z = Draws(0).normal("z", t, {"w": (3, 4)}, dtype=torch.float64)["w"]
        loss = float((g * (x + 0.1 * z)).sum())
        assert (report.loss, report.forwards) == (pytest.approx(loss), 1)
        if before is not None:
            x = x - 0.01 * (loss - before) / 0.1 * z
        before = loss
        X.settle()
        torch.testing.assert_close(of.w.detach(), x)
