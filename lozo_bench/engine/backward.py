"""The gradient of a batch's mean loss, of which each process has some of the micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from lozo_bench.engine.finite import STOPPED, bounded, raise_if_stopped
from lozo_bench.engine.protocol import DropoutContext, MicroBatch
from lozo_bench.engine.sharing import Sharing
from lozo_bench.errors import Stopped


def backward(
    parts: Sequence[MicroBatch],
    examples: int,
    sharing: Sharing,
    dropout: DropoutContext,
    scale: float,
) -> Tensor:
    """Return the mean loss [1] and add ``scale`` times its gradient to ``grad`` of the weights.

    The micro-batches go forward and back one after another, which takes the memory of one.
    Before the last one goes back, the processes agree on whether to continue. A loss that is
    not finite goes back too, because DDP waits for it in every process.

    Args:
        parts: this process's micro-batches, at least one.
        examples: how many examples the whole batch has.
        sharing: divides the batch among processes.
        dropout: the dropout context that a micro-batch is differentiated in. It is given a number
            that no other micro-batch of the batch has in any process.
        scale: a factor of the gradient.

    Raises:
        Stopped: a process was asked to stop.
    """
    factor = scale * sharing.gradient_share(examples)
    mine = sharing.examples(examples)
    last = len(parts) - 1
    found: list[Tensor] = []
    with ExitStack() as dropout_of_last:
        try:
            with sharing.no_sync():
                for i, part in enumerate(parts[:-1]):
                    with dropout(mine.start + i * mine.step):
                        losses = part.losses(1)
                        torch.autograd.backward(losses.sum() * factor)
                    found.append(losses.detach())
            dropout_of_last.enter_context(dropout(mine.start + last * mine.step))
            losses = parts[-1].losses(1)
            total = bounded(_added([*found, losses.detach()]))
        except Stopped:
            total = torch.tensor([STOPPED], dtype=torch.float64)
        mean = sharing.totals(total) / examples
        raise_if_stopped(mean)
        torch.autograd.backward(losses.sum() * factor)
    return mean


def _added(losses: Sequence[Tensor]) -> Tensor:
    """Return the sum of losses [1, rows] of all micro-batches, [1], float64 on the CPU."""
    return torch.cat([each.to("cpu", torch.float64) for each in losses], dim=1).sum(1)
