"""Norms of groups of weights, and of the gradient with respect to each group."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lozo_bench.engine.finite import NonFiniteLossError
from lozo_bench.engine.gaussian import GROUP_ELEMENTS
from lozo_bench.engine.score import Score
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import bad_value

Groups = Sequence[Collection[str]]  # the names of the weights in each group


def parameter_norms(X: Mapping[str, Tensor], groups: Groups) -> Tensor:
    """Return ||X_g|| of each group g, float64 on the CPU."""
    return torch.stack([_norm([X[name] for name in names if name in X]) for names in groups])


def gradient_norms(score: Score, groups: Groups) -> Tensor:
    """Return the norm of the batch's mean gradient in each group, by one backward pass.

    Call this inside `Score.noted`. If there are several processes, they sum their gradients piece
    by piece.

    Returns:
        ||grad_g|| of each group g, float64 on the CPU; NaN for every group if the loss is not
        finite.

    Raises:
        UserError: the processes split candidates, which a gradient does not have, or there are more
            processes than examples.
    """
    X = score.engine.X
    processes = round(score.sharing.gradient_share(score.examples) * score.examples)
    if score.examples < processes:
        raise bad_value("batch_size", score.examples, f"at least {processes}, one for each process")
    try:
        score.differentiate()
        norms = [
            _norm([piece for name in names if name in X for piece in _pieces(score, X[name])])
            for names in groups
        ]
    except NonFiniteLossError:
        return torch.full((len(groups),), math.nan, dtype=torch.float64)
    finally:
        for x in X.values():
            x.grad = None
    return torch.stack(norms) / processes


def _pieces(score: Score, x: Tensor) -> list[Tensor]:
    """Return the sum of all processes' gradients of the weight x, in flat pieces."""
    if x.grad is None:  # the loss does not depend on x
        return [x.new_zeros(1)]
    pieces = torch.split(x.grad.to(wide(x.dtype)).flatten(), GROUP_ELEMENTS)
    return [score.sharing.totals(piece) for piece in pieces]


@torch.no_grad()
def _norm(tensors: Sequence[Tensor]) -> Tensor:
    squares = [torch.linalg.vector_norm(x, dtype=torch.float64).cpu() ** 2 for x in tensors]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), dtype=torch.float64)
