"""Training objectives: they turn examples into micro-batches whose losses the engine computes.

Classification among options and language modelling of the right option differ only in the loss that
is computed from the options' scores. Accuracy as an objective is a loss of -1 or 0 per example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from lozo_bench.data.batch import Batch, BatchLayout
from lozo_bench.data.collate import collate, count_tokens
from lozo_bench.engine.protocol import Inputs, MicroBatch
from lozo_bench.objectives.options import Scorer
from lozo_bench.tasks.base import Encoded

Loss = Callable[[Tensor, Batch, Sequence[Encoded]], Tensor]


class Objective(Protocol):
    """What the optimizer minimises."""

    def prepare(
        self, examples: Sequence[Encoded], weights: Sequence[float] | None
    ) -> PreparedMicroBatch:
        """Prepare examples as one micro-batch.

        Args:
            examples: they go through the model together.
            weights: the factor of each example's loss; None means 1 for each.
        """
        ...

    def tokens(self, examples: Sequence[Encoded]) -> int:
        """Return how many tokens a micro-batch of these examples has, padding not counted."""
        ...


@dataclass(frozen=True, slots=True)
class PreparedMicroBatch:
    """A prepared micro-batch for the engine, and its number of tokens without padding."""

    micro_batch: MicroBatch
    tokens: int


def classification(scores: Tensor, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
    """Return -log softmax(scores)[label]; scores [B, K] -> losses [B]."""
    return functional.cross_entropy(scores, batch.labels, reduction="none")


@dataclass(frozen=True, slots=True)
class Hinge:
    """Sum over the wrong options of max(0, score - the right option's score + margin).

    Absent options, which score -inf, add nothing. As in Black-Box Tuning's code (utils.py:9-22).
    """

    margin: float

    def __call__(self, scores: Tensor, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
        """Return the losses; scores [B, K] -> losses [B]."""
        right_option = batch.labels[:, None]
        excess = (scores - scores.gather(1, right_option) + self.margin).clamp(min=0)
        return excess.scatter(1, right_option, 0.0).sum(1)

    def of_guess(self, options: int) -> float:
        """Return the loss if all options score the same."""
        return self.margin * (options - 1)


def language_model(scores: Tensor, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
    """Return minus the right option's mean log-probability times the example's weight.

    scores [B, K] -> losses [B]. With the weights of `token_shares`, the mean over the batch equals
    the mean over all its answer tokens, so that long answers count more, as in MeZO's code
    (large_models/utils.py:31-102).
    """
    losses = -scores.gather(1, batch.labels[:, None])[:, 0]
    return losses if batch.weights is None else losses * batch.weights.to(losses)


def minus_accuracy(scores: Tensor, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
    """Return -1 for each example whose highest-scored option is right, else 0.

    scores [B, K] -> losses [B]. Of several equal scores the first wins. If any score of an example
    is NaN, there is no prediction and its loss is NaN.
    """
    losses = -right(scores.argmax(1), examples).to(scores)
    return torch.where(scores.isnan().any(1), torch.nan, losses)


def right(chosen: Tensor, examples: Sequence[Encoded]) -> Tensor:
    """Return whether each chosen option is right; [copies * B] option numbers -> booleans.

    An option is right if it is in the example's ``golds``, or its ``label`` if it has no ``golds``.
    """
    golds = [set(example.golds or (example.label,)) for example in examples]
    found = [choice in golds[i % len(golds)] for i, choice in enumerate(chosen.tolist())]
    return torch.tensor(found, device=chosen.device)


class OptionObjective:
    """An objective whose loss is computed from the scores of options.

    Args:
        scorer: computes the scores of a batch's options with the model's current weights.
        layout: how examples become batches.
        device: the device of the batches.
        loss: computes losses [B] from scores [B, K].
        features: computes a batch's features for a linear probe (see `features.py`); None if they
            are not needed.
    """

    def __init__(
        self,
        scorer: Scorer,
        layout: BatchLayout,
        device: torch.device,
        loss: Loss = classification,
        features: Callable[[Batch], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.scorer, self.layout, self.device, self.loss = scorer, layout, device, loss
        self.features = features

    def prepare(
        self, examples: Sequence[Encoded], weights: Sequence[float] | None
    ) -> PreparedMicroBatch:
        """See `Objective`."""
        collated = collate(examples, self.layout, weights)
        batch = collated.to(self.device)

        def losses(tensors: Mapping[str, Tensor], copies: int) -> Tensor:
            stack = batch.with_tensors(tensors).repeat(copies)
            return self.loss(self.scorer(stack), stack, examples).view(copies, batch.size)

        # Everything but tensors that the losses depend on. Models decide by the padding how to run.
        kind = (self, batch.options, batch.single_position, bool(collated.attention_mask.all()))
        inputs = Inputs(batch.tensors(), losses, kind)
        part = MicroBatch(
            batch.size,
            batch.input_ids.numel(),
            inputs.copies,
            self._features(batch),
            inputs=None if self.loss is minus_accuracy else inputs,  # it reads the examples
        )
        return PreparedMicroBatch(part, batch.tokens)

    def _features(self, batch: Batch) -> Callable[[], tuple[Tensor, Tensor]] | None:
        features = self.features
        return None if features is None else lambda: features(batch)

    def tokens(self, examples: Sequence[Encoded]) -> int:
        """See `Objective`."""
        return count_tokens(examples, self.layout)
