"""Accuracy and loss of a model over a set of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lozo_bench.batches import Layout, in_order
from lozo_bench.engine.score import STOPPED, raise_if_stopped, shareable
from lozo_bench.engine.sharing import ALONE, Sharing
from lozo_bench.objectives.options import Scorer, cross_entropy
from lozo_bench.stop import Stopped
from lozo_bench.tasks.base import Encoded


@dataclass(frozen=True, slots=True)
class Metrics:
    """Fractions and nats: ``accuracy`` in [0, 1], ``loss`` the mean cross-entropy."""

    accuracy: float
    loss: float


@torch.inference_mode()
def evaluate(
    scorer: Scorer,
    examples: Sequence[Encoded],
    batch_size: int,
    layout: Layout,
    device: torch.device,
    sharing: Sharing = ALONE,
    check: Callable[[], None] = lambda: None,
) -> Metrics:
    """Score every example; the first of equal scores wins.

    ``sharing`` deals the examples among processes. ``check`` is called before each batch, and
    raises Stopped when the run shall stop.

    Raises:
        Stopped: the run shall stop, as one of the processes was told.
    """
    mine = [examples[i] for i in sharing.rows(len(examples))]
    right, loss = 0, 0.0
    try:
        for numbers, batch in in_order(mine, batch_size, layout):
            check()
            here = batch.to(device)
            scores = scorer(here)
            right += int((scores.argmax(1) == here.labels).sum())
            loss += float(cross_entropy(scores, here.labels)) * len(numbers)
        mine_totals = shareable(torch.tensor([right, loss], dtype=torch.float64))
    except Stopped:
        mine_totals = torch.tensor([0, STOPPED], dtype=torch.float64)
    totals = sharing.totals(mine_totals)
    raise_if_stopped(totals)
    accuracy, mean = (totals / len(examples)).tolist()
    return Metrics(accuracy, mean)
