"""The learning rate's way over a run."""

from __future__ import annotations

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from lozo_bench.config.schema import Schedule
from lozo_bench.training.selection import schedule_factor


def test_linear_is_transformers_linear_without_warm_up():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, 0, num_training_steps=7)
    for step in range(1, 8):
        ours = schedule_factor(Schedule.linear, step, 7)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-15)
        optimizer.step()
        theirs.step()
