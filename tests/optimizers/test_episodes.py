"""Reptile and first-order MAML on two tasks, against the equations of their papers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch, ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.errors import UserError
from lozo_bench.optimizers.fomaml import FirstOrderMaml
from lozo_bench.optimizers.reptile import Reptile
from lozo_bench.optimizers.state import optimizer_state
from lozo_bench.optimizers.task_draws import TaskDraws
from lozo_bench.randomness.draws import Draws

TASKS = ["a", "b"]
INNER = {"inner_lr": 0.1, "inner_steps": 3, "dropout": False, "autocast": None}
# The loss of a stream is |w - target|^2 / 2, so its gradient is w - target.
TARGETS = {
    "support/a": (1.0, 2.0), "support/b": (-1.0, 0.5), "query/a": (3.0, 0.0), "query/b": (2.0, 2.0),
    "support": (1.0, 2.0),
}  # fmt: skip


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


class Toy:
    def __init__(self):
        module = nn.Module()
        module.w = nn.Parameter(vector(0.5, -0.5))
        self.w, self.asked = module.w, []
        self.engine = InPlace({"w": module.w}, module)
        self.factor = 1.0

    def stream(self, name):
        self.asked.append(name)

        def loss(copies):
            return ((self.w - vector(*TARGETS[name])) ** 2).sum().view(1, 1) * self.factor / 2

        return ScoredBatch([MicroBatch(1, 1, loss)], examples=1)

    def step(self, optimizer):
        return optimizer.step(Score(self.engine, [], streams=self.stream))


def adapted(w, name):
    """Return where three steps of 0.1 lead."""
    target = vector(*TARGETS[name])
    return target + 0.9**3 * (w - target)


def test_reptile_moves_by_the_mean_of_what_the_tasks_steps_moved():
    toy = Toy()
    start = toy.w.detach().clone()
    reptile = Reptile(toy.engine, Draws(0), lr=0.5, tasks=TASKS, tasks_per_step=2, **INNER)
    report = toy.step(reptile)
    ends = sum(adapted(start, f"support/{task}") for task in TASKS) / 2
    torch.testing.assert_close(toy.w.detach(), start + 0.5 * (ends - start))
    assert Counter(toy.asked) == {"support/a": 3, "support/b": 3}
    assert (report.forwards, report.backwards) == (0, 0), "the run counts those of streams"
    optimizer_state(reptile)  # can be saved


def test_first_order_maml_takes_the_query_gradient_where_the_support_rows_lead():
    toy = Toy()
    options = {"query_rows": 0.5, "max_grad_norm": None, "tasks_per_step": 2}
    maml = FirstOrderMaml(toy.engine, Draws(0), lr=0.01, tasks=TASKS, **options, **INNER)
    reference = toy.w.detach().clone().requires_grad_()
    adam = torch.optim.Adam([reference], lr=0.01)
    for _ in range(3):
        start = reference.detach()
        reference.grad = sum(
            adapted(start, f"support/{task}") - vector(*TARGETS[f"query/{task}"]) for task in TASKS
        )
        reference.grad /= 2
        adam.step()
        toy.step(maml)
        torch.testing.assert_close(toy.w.detach(), reference.detach())
    assert maml.needs.streams["query/b"].rows == (0.5, 1.0)
    assert maml.needs.streams["support/b"].task == "b"


def test_a_step_with_a_loss_that_is_not_finite_leaves_the_weights():
    toy = Toy()
    reptile = Reptile(toy.engine, Draws(0), lr=0.5, tasks=TASKS, tasks_per_step=2, **INNER)
    before = toy.w.detach().clone()
    toy.factor = 1e200
    with pytest.raises(NonFiniteLossError):
        toy.step(reptile)
    assert torch.equal(toy.w.detach(), before)


def test_a_single_task_is_one_without_a_name():
    toy = Toy()
    toy.step(Reptile(toy.engine, Draws(0), lr=1.0, tasks=[], tasks_per_step=1, **INNER))
    torch.testing.assert_close(toy.w.detach(), adapted(vector(0.5, -0.5), "support"))


def test_tasks_are_drawn_equally_often_and_not_twice_in_a_step():
    drawn = TaskDraws(Draws(3), ("a", "b", "c"), 2)
    steps = [drawn.of(step) for step in range(300)]
    assert all(len(set(step)) == 2 for step in steps)
    counts = Counter(task for step in steps for task in step)
    assert all(abs(count - 200) < 35 for count in counts.values())
    assert steps == [drawn.of(step) for step in range(300)]
    with pytest.raises(UserError, match=r"tasks_per_step: given 4; allowed: from 1 to 3"):
        TaskDraws(Draws(3), ("a", "b", "c"), 4)
