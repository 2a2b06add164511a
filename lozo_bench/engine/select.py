"""Choose the faster engine for a model and a batch by measurement (`engine.mode=auto`)."""

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
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.subspace import Subspace, along, stacked
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError

log = logging.getLogger(__name__)

_REPEATS = 3
# On a GPU the first passes are recorded as graphs and compared with usual ones (`graphs.py`).
_WARM_UP, _WARM_UP_ON_GPU = 1, 6


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest way to make a step with two candidates.

    Attributes:
        in_place: whether the in-place engine is the fastest.
        per_forward: how many candidates the fused engine should put into one forward pass.
        ms: median milliseconds of a step, by the name of the way.
    """

    in_place: bool
    per_forward: int
    ms: Mapping[str, float]


def measure_fastest(fused: Fused, rank: int, parts: Sequence[MicroBatch]) -> Choice:
    """Time a step with two candidates in each of three ways and return the fastest.

    The ways are: the fused engine with both candidates in one forward pass ("fused_2"), the fused
    engine with one candidate per pass ("fused_1"), and the in-place engine ("in_place"). The
    weights do not change. The in-place step is timed as two plain forward passes and three passes
    over each matrix: one copies it, two apply ``addmm_`` to the copy. It is not considered for
    half-precision weights, which would be rounded in each pass.

    Args:
        fused: the fused engine of the run; its state does not change.
        rank: number of columns of the low-rank directions.
        parts: the micro-batches of one batch.

    Raises:
        UserError: the model supports none of the ways.
    """
    P = _zero_subspace(fused.X, rank)
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
    warm_up = _WARM_UP_ON_GPU if any(x.is_cuda for x in fused.X.values()) else _WARM_UP
    for name in list(ways):  # warms up, and finds the ways that the model does not support
        try:
            for _ in range(warm_up):
                _milliseconds(ways[name], fused.X)
        except UserError as error:
            del ways[name]
            if not ways:
                raise
            log.info("engine.mode=auto does not consider %s: %s", name, error)
    ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_REPEATS):
        for name, run in ways.items():
            ms[name].append(_milliseconds(run, fused.X))
    medians = {name: median(times) for name, times in ms.items()}
    best = min(medians, key=lambda name: medians[name])
    together = medians.get("fused_2", inf) < medians.get("fused_1", inf)
    return Choice(best == "in_place", 2 if together else 1, medians)


def _in_place(fused: Fused, P: Subspace, parts: Sequence[MicroBatch]) -> None:
    """Do the work of one in-place step without changing the weights."""
    with torch.inference_mode(), fused.applied():
        for part in (*parts, *parts):
            part.losses(1)
    with torch.no_grad():
        for name, U in P.U.items():
            W = fused.X[name].flatten(1).clone()  # takes as long as one of the three passes
            for _ in range(2):
                W.addmm_(U, P.V[name].T)


def _zero_subspace(X: Mapping[str, Tensor], rank: int) -> Subspace:
    """Return a subspace of zeros, which takes as long to compute with as any other."""
    matrices = {name: x for name, x in X.items() if x.ndim >= 2}
    return Subspace(
        {name: x.new_zeros(len(x), rank) for name, x in matrices.items()},
        {name: x.new_zeros(x[0].numel(), rank) for name, x in matrices.items()},
        {name: x.new_zeros(x.numel(), 1) for name, x in X.items() if x.ndim < 2},
    )


def _milliseconds(run: Callable[[], object], X: Mapping[str, Tensor]) -> float:
    """Return how long ``run`` takes, including all work that it starts on a GPU."""
    cuda = any(x.is_cuda for x in X.values())
    if cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)
