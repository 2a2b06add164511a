"""Accuracy and loss of a model over a set of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lozo_bench.batches import Layout, in_order
from lozo_bench.objectives.options import Scorer, cross_entropy
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
    advance: Callable[[int], None] = lambda count: None,
) -> Metrics:
    """Score every example; the first of equal scores wins. ``advance`` is told of progress."""
    right, loss = 0, 0.0
    for numbers, batch in in_order(examples, batch_size, layout):
        here = batch.to(device)
        scores = scorer(here)
        right += int((scores.argmax(1) == here.labels).sum())
        loss += float(cross_entropy(scores, here.labels)) * len(numbers)
        advance(len(numbers))
    return Metrics(accuracy=right / len(examples), loss=loss / len(examples))
