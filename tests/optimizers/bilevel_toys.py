"""A weight matrix theta and an adapter with two sets of values, on smooth losses in float64."""

from __future__ import annotations

import torch
from torch import nn

from lozo_bench.config.build import build
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch, ScoredBatch
from lozo_bench.engine.score import Score
from lozo_bench.engine.value_sets import ValueSets, with_value_sets
from lozo_bench.randomness.draws import Draws

OPTIONS = {
    "_target_": "lozo_bench.optimizers.bilevel_zofo.BilevelZofo",
    "lr": 1e-2, "lr_p": 1e-2, "lr_s": 1e-2, "lambda_": 2.0, "inner_steps": 3, "eps": 1e-4,
    "fd": "central", "directions": "full_rank", "rank": 2, "nu": 5, "upper": "sgd",
    "barrier": None, "reset_s": "never", "eval_with": "both", "upper_rows": 0.5,
    "tasks": [], "tasks_per_step": None,
    "step_counting": "outer", "total_steps": 5, "dropout": False, "autocast": None,
    "max_grad_norm": None,
}  # fmt: skip


class Toy:
    """A regression y = (theta + adapter) x with batches of rows.

    theta is [6, n]; the adapter is a matrix of the same shape, which is added to it. Without
    ``bend`` the losses are quadratic.
    """

    def __init__(self, p=0.0, s=0.1, n=4, bend=0.1, sets=None):
        draws, self.bend = Draws(5), bend
        start = draws.normal("start", 0, {"theta": (6, n), "adapter": (6, n)}, dtype=torch.float64)
        self.module = nn.Module()
        self.module.theta = nn.Parameter(start["theta"], requires_grad=False)
        self.module.adapter = nn.Parameter(p * start["adapter"])
        scales = (p, s) if sets is None else sets
        with torch.no_grad():
            self.module.adapter.copy_(scales[0] * start["adapter"])
        sets = [{"a": scale * start["adapter"]} for scale in scales]
        extras = with_value_sets({"a": self.module.adapter}, sets)
        self.engine = InPlace({"theta": self.module.theta}, self.module, extras)
        rows = draws.normal("rows", 0, {"x": (40, n), "y": (40, 6)}, dtype=torch.float64)
        self.x, self.y = rows["x"], rows["y"]

    def losses(self, rows, theta=None, adapter=None):
        """Return each row's loss at the weights, or at other ones."""
        theta = self.module.theta if theta is None else theta
        adapter = self.module.adapter if adapter is None else adapter
        residual = self.x[rows] @ (theta + adapter).T - self.y[rows]
        return (residual**2).mean(1) + self.bend * residual.sin().mean(1)

    def part(self, rows):
        def losses(copies):
            assert copies == 1
            return self.losses(rows)[None]

        return MicroBatch(len(rows), len(rows), losses)

    def score(self, rows, upper=(), streams=None):
        """Return a step's score: its own batch, and a batch of each stream.

        ``asked`` are the names of the streams that it was asked for.
        """
        streams, self.asked = streams or {"upper": upper}, []

        def batch(name):
            self.asked.append(name)
            return ScoredBatch([self.part(list(streams[name]))])

        return Score(self.engine, [self.part(list(rows))], streams=batch)

    @property
    def sets(self):
        """Return copies of theta and of all sets of values, p and s unless others were given."""
        self.engine.flush()
        sets = ValueSets(self.engine.extras)
        copies = [sets.values(k)["a"].detach().clone() for k in range(len(sets))]
        return self.module.theta.detach().clone(), *copies

    def optimizer(self, **changes):
        return build({**OPTIONS, **changes}, "optimizer", self.engine, Draws(0))
