"""Which engine is faster on a model and a batch, by measurement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

import torch
from torch import Tensor

from lozo_bench.engine.fused import Fused
from lozo_bench.engine.score import Part
from lozo_bench.engine.subspace import Subspace, along, stacked
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError

log = logging.getLogger(__name__)

_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """The faster way to score a pair of candidates, and milliseconds of a step by way."""

    in_place: bool
    per_forward: int
    ms: Mapping[str, float]


def choose(fused: Fused, rank: int, parts: Sequence[Part]) -> Choice:
    """Time two candidates and an update: fused together, fused one by one, and in place.

    The weights are not touched: in place is timed as two plain forwards and three passes of
    ``addmm_`` over a copy of each matrix in turn. Half-precision weights are never moved in place,
    where each pass would round them.

    Args:
        fused: the engine that would be used; where it is is left as it was.
        rank: columns of the low-rank directions.
        parts: a batch.
    """
    P = _nowhere(fused.X, rank)
    both = stacked([along(P, 1.0), along(P, -1.0)])

    def scored(per_forward: int) -> Callable[[], object]:
        def run() -> None:
            before, fused.per_forward = fused.per_forward, per_forward
            try:
                fused.losses(P, both, parts)
            finally:
                fused.per_forward = before

        return run

    ways: dict[str, Callable[[], object]] = {"fused_2": scored(2), "fused_1": scored(1)}
    if all(x.dtype == wide(x.dtype) for x in fused.X.values()):
        ways["in_place"] = lambda: _in_place(fused, P, parts)
    for name in list(ways):  # to warm up, and to find what the model cannot do
        try:
            _milliseconds(ways[name], fused.X)
        except UserError as error:
            del ways[name]
            if not ways:
                raise
            log.info("engine.mode=auto leaves %s out: %s", name, error)
    ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_REPEATS):
        for name, run in ways.items():
            ms[name].append(_milliseconds(run, fused.X))
    medians = {name: median(times) for name, times in ms.items()}
    best = min(medians, key=lambda name: medians[name])
    together = medians.get("fused_2", inf) < medians.get("fused_1", inf)
    return Choice(best == "in_place", 2 if together else 1, medians)


def _in_place(fused: Fused, P: Subspace, parts: Sequence[Part]) -> None:
    with torch.inference_mode(), fused.weights():
        for part in (*parts, *parts):
            part.losses(1)
    with torch.no_grad():
        for name, U in P.U.items():
            W = fused.X[name].flatten(1).clone()  # as long as one of the three passes
            for _ in range(2):
                W.addmm_(U, P.V[name].T)


def _nowhere(X: Mapping[str, Tensor], rank: int) -> Subspace:
    """A subspace of zeros: as long to compute as any, and no candidate differs."""
    matrices = {name: x for name, x in X.items() if x.ndim >= 2}
    return Subspace(
        {name: x.new_zeros(len(x), rank) for name, x in matrices.items()},
        {name: x.new_zeros(x[0].numel(), rank) for name, x in matrices.items()},
        {name: x.new_zeros(x.numel(), 1) for name, x in X.items() if x.ndim < 2},
    )


def _milliseconds(run: Callable[[], object], X: Mapping[str, Tensor]) -> float:
    cuda = any(x.is_cuda for x in X.values())
    if cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)
