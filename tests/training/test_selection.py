"""Which of two steps is better, and the learning rate's way over a run."""

from __future__ import annotations

import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from lozo_bench.config.schema import Schedule, Select
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.training.selection import is_better, schedule_factor


def metrics(accuracy, loss):
    return Metrics({"accuracy": accuracy, "loss": loss})


@pytest.mark.parametrize(
    ("select", "new", "better"),
    [
        (Select.dev_metric, metrics(0.6, 9.0), True),
        (Select.dev_metric, metrics(0.5, 0.1), False),  # equal accuracy: the first stays
        (Select.dev_loss, metrics(0.1, 0.9), True),
        (Select.dev_loss, metrics(0.9, 1.0), False),
        (Select.last, metrics(0.0, 9.0), True),
    ],
)
def test_better_is_strictly_better(select, new, better):
    assert is_better(new, metrics(0.5, 1.0), select) is better


def test_a_linear_schedule_falls_to_one_over_the_number_of_steps():
    factors = [schedule_factor(Schedule.linear, step, 4) for step in (1, 2, 3, 4)]
    assert factors == [1.0, 0.75, 0.5, 0.25]
    assert schedule_factor(Schedule.constant, 4, 4) == 1.0


def test_linear_is_transformers_linear_without_warm_up():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, 0, num_training_steps=7)
    for step in range(1, 8):
        ours = schedule_factor(Schedule.linear, step, 7)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-15)
        optimizer.step()
        theirs.step()
