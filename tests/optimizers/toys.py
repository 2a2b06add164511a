"""Small smooth losses in float64 on which optimizers are tested."""

from __future__ import annotations

import torch
from torch import nn

from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.score import Score
from lozo_bench.randomness.draws import Draws


def module_and_engine(X):
    """Return a module with these tensors as parameters, and an engine that moves them in place."""
    module = nn.Module()
    for name, x in X.items():
        module.register_parameter(name, nn.Parameter(x, requires_grad=False))
    return module, InPlace(dict(module.named_parameters()), module)


def quadratic(n):
    """Return an engine with an n x n matrix, and the loss |w - target|^2 / (2 n)."""
    target = Draws(100).normal("target", 0, {"w": (n, n)}, dtype=torch.float64)["w"]
    module, engine = module_and_engine({"w": torch.zeros(n, n, dtype=torch.float64)})
    return engine, lambda: ((module.w - target) ** 2).sum() / (2 * n)


def two_layers():
    """Return a regression with two matrices (one square), a bias and an embedding-like tall one."""
    shapes = {"tall": (90, 40), "square": (40, 40), "bias": (60,), "out": (60, 40)}
    X = Draws(7).normal("init", 0, shapes, dtype=torch.float64)
    module, engine = module_and_engine({name: 0.3 * x for name, x in X.items()})
    target = Draws(8).normal("y", 0, {"y": (90, 60)}, dtype=torch.float64)["y"]

    def loss():
        hidden = torch.tanh(module.tall @ module.square)
        return ((hidden @ module.out.T + module.bias - target) ** 2).mean()

    return engine, loss


def score(engine, loss):
    """Return the score of a batch of one example; ``loss()`` is its loss at the current weights."""
    return Score(engine, [MicroBatch(size=1, tokens=1, losses=lambda copies: loss().view(1, 1))])


def run(optimizer, engine, loss, steps):
    """Make this many steps, each on the full batch, and return their reports."""
    reports = [optimizer.step(score(engine, loss)) for _ in range(steps)]
    engine.flush()
    return reports


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))
