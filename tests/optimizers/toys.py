"""Small smooth losses in float64 for testing optimizers."""

from __future__ import annotations

import torch

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.in_place import InPlaceScore


def quadratic(n):
    """Half the mean square distance of an n x n matrix from a target, scaled to start near n/2."""
    target = Draws(100).normal("target", 0, {"w": (n, n)}, dtype=torch.float64)["w"]
    X = {"w": torch.zeros(n, n, dtype=torch.float64)}
    return X, lambda: ((X["w"] - target) ** 2).sum() / (2 * n)


def two_layers():
    """A regression with two matrices (one square), a bias and an embedding-like tall matrix."""
    shapes = {"tall": (90, 40), "square": (40, 40), "bias": (60,), "out": (60, 40)}
    X = Draws(7).normal("init", 0, shapes, dtype=torch.float64)
    X = {name: 0.3 * x for name, x in X.items()}
    target = Draws(8).normal("y", 0, {"y": (90, 60)}, dtype=torch.float64)["y"]

    def loss():
        hidden = torch.tanh(X["tall"] @ X["square"])
        return ((hidden @ X["out"].T + X["bias"] - target) ** 2).mean()

    return X, loss


def run(optimizer, X, loss, steps):
    """Full-batch training."""
    return [optimizer.step(InPlaceScore(X, loss)) for _ in range(steps)]


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))
