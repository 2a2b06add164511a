"""What is looked for in an example: the best of its options, or the answer written to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lozo_bench.batches import Batch, Layout, collate
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.objectives.losses import Loss, OptionObjective, right
from lozo_bench.objectives.options import Scorer, summed
from lozo_bench.objectives.writing import Worth, Writer
from lozo_bench.tasks.base import Encoded

# Of the chosen options and the right ones.
Rate = Callable[[Sequence[int], Sequence[int]], float]


class OptionJudge:
    """The option with the highest score is the answer, the first of equals.

    The loss is that of training: a mean over examples, or with ``by_tokens`` over their tokens.

    Args:
        scorer: scores of the options of a batch.
        layout: how examples become batches.
        device: where batches go.
        loss: losses [B] of scores [B, K].
        rates: further metrics by name, the first of all comes first; none: accuracy alone.
        by_tokens: an example counts as many times as its right option has tokens.
    """

    columns = 3

    def __init__(
        self,
        scorer: Scorer,
        layout: Layout,
        device: torch.device,
        loss: Loss,
        rates: Mapping[str, Rate] | None = None,
        by_tokens: bool = False,
    ) -> None:
        self.scorer, self.layout, self.device, self.loss = scorer, layout, device, loss
        self.rates, self.by_tokens = rates or {}, by_tokens

    def found(self, examples: Sequence[Encoded]) -> Tensor:
        """The chosen option, the example's loss, and how much that counts; [n, 3]."""
        counts = [float(_answer_tokens(e)) if self.by_tokens else 1.0 for e in examples]
        batch = collate(examples, self.layout).to(self.device)
        scores = self._scores(batch, examples)
        losses = self.loss(scores, batch, examples)
        return torch.stack(
            [_double(scores.argmax(1)), _double(losses), torch.tensor(counts).double()], 1
        )

    def _scores(self, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
        """Scores, calibrated where the examples say by what (SFC).

        sum log p(option | prompt) - sum log p(option | calibration): sums, not means, as published
        (MeZO's large-model code, run.py; spec lozo_mezo 2.7).
        """
        scores = self.scorer(batch)
        without = [example.calibration for example in examples if example.calibration]
        if not without:
            return scores
        blank = collate(without, self.layout).to(self.device)
        relative = summed(scores, batch) - summed(self.scorer(blank), blank)
        # An option that an example does not have scores -inf in both.
        return relative.masked_fill(scores.isneginf(), -torch.inf)

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """See `Judge`."""
        chosen = found[:, 0].long()
        labels = [example.label for example in examples]
        values = {name: rate(chosen.tolist(), labels) for name, rate in self.rates.items()}
        values["accuracy"] = float(right(chosen, examples).double().mean())
        values["loss"] = _mean(found[:, 1:])
        return Metrics(values)


class LossJudge:
    """The loss of the right text alone, where writing answers would cost more than it tells.

    It is the mean over all tokens of the set. The published runs choose by the mean over batches of
    8 of such means, which depends on which rows meet in a batch.
    """

    columns = 2

    def __init__(self, objective: OptionObjective) -> None:
        self.objective = objective

    def found(self, examples: Sequence[Encoded]) -> Tensor:
        """The loss of the right answer and its tokens."""
        return _losses_and_tokens(self.objective, examples)

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """See `Judge`."""
        return Metrics({"loss": _mean(found)})


class WrittenJudge:
    """Answers are written and compared with the right ones.

    Args:
        writer: writes them.
        worths: what an answer is worth, by name, each 0 to 1; the first judges.
        objective: gives the loss of the right answer's text.
    """

    def __init__(
        self, writer: Writer, worths: Mapping[str, Worth], objective: OptionObjective
    ) -> None:
        self.writer, self.worths, self.objective = writer, worths, objective
        self.columns = len(worths) + 2

    def found(self, examples: Sequence[Encoded]) -> Tensor:
        """What each answer is worth, the loss of the right one, and its tokens."""
        texts = self.writer([example.prompt for example in examples])
        worth = [
            [float(worth(text, example.answers)) for worth in self.worths.values()]
            for text, example in zip(texts, examples, strict=True)
        ]
        told = torch.tensor(worth, dtype=torch.float64)
        return torch.cat([told, _losses_and_tokens(self.objective, examples)], 1)

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """See `Judge`."""
        values = {name: float(found[:, i].mean()) for i, name in enumerate(self.worths)}
        return Metrics({**values, "loss": _mean(found[:, -2:])})


def _answer_tokens(example: Encoded) -> int:
    return len(example.answer[example.label])


def _losses_and_tokens(objective: OptionObjective, examples: Sequence[Encoded]) -> Tensor:
    losses = objective.part(examples, None).part.losses(1)[0]
    tokens = torch.tensor([_answer_tokens(e) for e in examples], dtype=torch.float64)
    return torch.stack([_double(losses), tokens], 1)


def _mean(losses_and_counts: Tensor) -> float:
    losses, counts = losses_and_counts.unbind(1)
    return float((losses * counts).sum() / counts.sum())


def _double(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)
