"""What is trained: a batch as the engine sees it, losses of any number of copies of it.

The choice among options and the right option's text differ only in the loss that is made of the
options' scores; a metric is a loss of 0 or -1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from lozo_bench.batches import Batch, Layout, collate, count_tokens
from lozo_bench.engine.score import Part
from lozo_bench.objectives.options import Scorer
from lozo_bench.tasks.base import Encoded

Loss = Callable[[Tensor, Batch, Sequence[Encoded]], Tensor]


class Objective(Protocol):
    """What the optimizer lowers."""

    def part(self, examples: Sequence[Encoded], weights: Sequence[float] | None) -> Laid:
        """Examples that go through the model together; ``weights``: what each one's loss counts."""
        ...

    def tokens(self, examples: Sequence[Encoded]) -> int:
        """How many real tokens such a part has."""
        ...


@dataclass(frozen=True, slots=True)
class Laid:
    """A part of a batch for the engine, and how many real tokens it has."""

    part: Part
    tokens: int


def classification(scores: Tensor, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
    """-log softmax(scores)[label]; scores [B, K] -> [B]."""
    return functional.cross_entropy(scores, batch.labels, reduction="none")


def language_model(scores: Tensor, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
    """Minus the right option's mean log-probability, times the example's weight; [B, K] -> [B].

    With weights as `token_shares` gives them the mean over the batch is the mean over its tokens,
    as published (MeZO's large-model code; trap T14).
    """
    losses = -scores.gather(1, batch.labels[:, None])[:, 0]
    return losses if batch.weights is None else losses * batch.weights.to(losses)


def minus_accuracy(scores: Tensor, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
    """-1 where the best option is right, else 0; the first of equals is the best; [B, K] -> [B].

    A score that is NaN is no prediction: its loss is NaN.
    """
    losses = -right(scores.argmax(1), examples).to(scores)
    return torch.where(scores.isnan().any(1), torch.nan, losses)


def right(chosen: Tensor, examples: Sequence[Encoded]) -> Tensor:
    """Whether each choice is among its example's right options; chosen [copies * B] -> the same."""
    golds = [set(example.golds or (example.label,)) for example in examples]
    found = [choice in golds[i % len(golds)] for i, choice in enumerate(chosen.tolist())]
    return torch.tensor(found, device=chosen.device)


class OptionObjective:
    """A loss made of the scores of options.

    Args:
        scorer: scores of the options of a batch, by the model as it is.
        layout: how examples become batches.
        device: where batches go.
        loss: losses [B] of scores [B, K].
        features: what the output layer sees in a batch (see `features.py`), if that is wanted.
    """

    def __init__(
        self,
        scorer: Scorer,
        layout: Layout,
        device: torch.device,
        loss: Loss = classification,
        features: Callable[[Batch], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.scorer, self.layout, self.device, self.loss = scorer, layout, device, loss
        self.features = features

    def part(self, examples: Sequence[Encoded], weights: Sequence[float] | None) -> Laid:
        """See `Objective`."""
        batch = collate(examples, self.layout, weights).to(self.device)

        def losses(copies: int) -> Tensor:
            stack = batch.repeat(copies)
            return self.loss(self.scorer(stack), stack, examples).view(copies, batch.size)

        part = Part(batch.size, batch.input_ids.numel(), losses, self._features(batch))
        return Laid(part, batch.tokens)

    def _features(self, batch: Batch) -> Callable[[], tuple[Tensor, Tensor]] | None:
        features = self.features
        return None if features is None else lambda: features(batch)

    def tokens(self, examples: Sequence[Encoded]) -> int:
        """See `Objective`."""
        return count_tokens(examples, self.layout)
