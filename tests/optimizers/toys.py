"""Small smooth losses in float64 for testing optimizers."""

from __future__ import annotations

import torch
from torch import nn

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.score import Part, Score


def held(X):
    """A module that has these as parameters, and an engine that moves them there."""
    of = nn.Module()
    for name, x in X.items():
        of.register_parameter(name, nn.Parameter(x, requires_grad=False))
    return of, InPlace(dict(of.named_parameters()), of)


def quadratic(n):
    """An engine with an n x n matrix; half its mean square distance from a target."""
    target = Draws(100).normal("target", 0, {"w": (n, n)}, dtype=torch.float64)["w"]
    of, engine = held({"w": torch.zeros(n, n, dtype=torch.float64)})
    return engine, lambda: ((of.w - target) ** 2).sum() / (2 * n)


def two_layers():
    """A regression with two matrices (one square), a bias and an embedding-like tall matrix."""
    shapes = {"tall": (90, 40), "square": (40, 40), "bias": (60,), "out": (60, 40)}
    X = Draws(7).normal("init", 0, shapes, dtype=torch.float64)
    of, engine = held({name: 0.3 * x for name, x in X.items()})
    target = Draws(8).normal("y", 0, {"y": (90, 60)}, dtype=torch.float64)["y"]

    def loss():
        hidden = torch.tanh(of.tall @ of.square)
        return ((hidden @ of.out.T + of.bias - target) ** 2).mean()

    return engine, loss


def score(engine, loss):
    """The score of a full batch of one example, whose loss is a function of nothing."""
    return Score(engine, [Part(size=1, tokens=1, losses=lambda copies: loss().view(1, 1))])


def run(optimizer, engine, loss, steps):
    """Full-batch training."""
    reports = [optimizer.step(score(engine, loss)) for _ in range(steps)]
    engine.settle()
    return reports


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))
