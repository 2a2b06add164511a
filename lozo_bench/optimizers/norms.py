"""Lengths of groups of weights, and of the gradient in them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lozo_bench.engine.gaussian import GROUP_ELEMENTS
from lozo_bench.engine.score import NonFiniteLossError, Score
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import bad_value

Groups = Sequence[Collection[str]]


def parameter_norms(X: Mapping[str, Tensor], groups: Groups) -> Tensor:
    """||X_g|| of each group of names; float64 on the CPU."""
    return torch.stack([_norm([X[name] for name in names]) for names in groups])


def gradient_norms(score: Score, groups: Groups) -> Tensor:
    """||grad_g|| of the batch's mean loss, by one backward pass; NaN where the loss is not finite.

    To be called in `Score.noted`. Several processes add their gradients up, a piece at a time.

    Raises:
        UserError: the processes split candidates, of which a gradient has none, or there are more
            of them than examples.
    """
    X = score.engine.X
    processes = round(score.sharing.gradient_share(score.examples) * score.examples)
    if score.examples < processes:
        raise bad_value("batch_size", score.examples, f"at least {processes}, one a process")
    try:
        score.differentiate()
        norms = [
            _norm([piece for name in names for piece in _pieces(score, X[name])])
            for names in groups
        ]
    except NonFiniteLossError:
        return torch.full((len(groups),), math.nan, dtype=torch.float64)
    finally:
        for x in X.values():
            x.grad = None
    return torch.stack(norms) / processes


def _pieces(score: Score, x: Tensor) -> list[Tensor]:
    """The sum of all processes' gradients of a weight, in flat pieces."""
    if x.grad is None:  # it takes no part in the loss
        return [x.new_zeros(1)]
    pieces = torch.split(x.grad.to(wide(x.dtype)).flatten(), GROUP_ELEMENTS)
    return [score.sharing.totals(piece) for piece in pieces]


@torch.no_grad()
def _norm(tensors: Sequence[Tensor]) -> Tensor:
    squares = [torch.linalg.vector_norm(x, dtype=torch.float64).cpu() ** 2 for x in tensors]
    return torch.stack(squares).sum().sqrt()
