"""Evaluators of chosen options, of losses alone, and of generated answers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lozo_bench.data.batch import Batch, BatchLayout
from lozo_bench.data.collate import collate
from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.objectives.generation import Generator, TextMetric
from lozo_bench.objectives.losses import Loss, OptionObjective, right
from lozo_bench.objectives.options import Scorer, sum_log_probabilities
from lozo_bench.tasks.base import Encoded

# A row's loss is that of a guess if it differs from the guess's by less than this.
_AS_A_GUESS = 1e-3
_LARGEST_EXPONENT = math.log(sys.float_info.max)
# A metric of the chosen options and the right ones, both as option numbers.
ClassMetric = Callable[[Sequence[int], Sequence[int]], float]


class OptionEvaluator:
    """Evaluates which option the model chooses: the one with the highest score.

    Of several equal scores the first wins. The loss is the training loss, cross-entropy or hinge:
    its mean over examples, or over answer tokens with ``by_tokens``.

    Args:
        scorer: computes the scores of a batch's options.
        layout: how examples become batches.
        device: the device of the batches.
        loss: computes losses [B] from scores [B, K].
        rates: metrics by name that are computed in addition to accuracy. The first one is the
            task's main metric; if there are none, accuracy is.
        by_tokens: in the mean loss, weight each example by its right option's number of tokens.
        of_guess: returns the loss of a guess among so many options, which all score the same.
    """

    columns = 3

    def __init__(
        self,
        scorer: Scorer,
        layout: BatchLayout,
        device: torch.device,
        loss: Loss,
        class_metrics: Mapping[str, ClassMetric] | None = None,
        by_tokens: bool = False,
        of_guess: Callable[[int], float] = math.log,
    ) -> None:
        self.scorer, self.layout, self.device, self.loss = scorer, layout, device, loss
        self.class_metrics, self.by_tokens = class_metrics or {}, by_tokens
        self.of_guess = of_guess

    def results(self, examples: Sequence[Encoded]) -> Tensor:
        """Return each example's chosen option, loss and weight of the loss, [n, 3]."""
        return self.results_and_scores(examples)[0]

    def results_and_scores(self, examples: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """Return the results, and the scores of each example's options, [n, options]."""
        counts = [float(_answer_tokens(e)) if self.by_tokens else 1.0 for e in examples]
        batch = collate(examples, self.layout).to(self.device)
        scores = self._scores(batch, examples)
        losses = self.loss(scores, batch, examples)
        columns = [_double(scores.argmax(1)), _double(losses), torch.tensor(counts).double()]
        return torch.stack(columns, 1), _double(scores)

    def _scores(self, batch: Batch, examples: Sequence[Encoded]) -> Tensor:
        """Return the options' scores; calibrated if the examples have a calibration prompt (SFC).

        A calibrated score is sum log p(option | prompt) - sum log p(option | calibration), with
        sums instead of means, as in MeZO's code (large_models/run.py:254-300).
        """
        scores = self.scorer(batch)
        calibrations = [example.calibration for example in examples if example.calibration]
        if not calibrations:
            return scores
        blank = collate(calibrations, self.layout).to(self.device)
        relative = sum_log_probabilities(scores, batch) - sum_log_probabilities(
            self.scorer(blank), blank
        )
        # An absent option scores -inf in both, and the difference would be NaN.
        return relative.masked_fill(scores.isneginf(), -torch.inf)

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """See `Evaluator`."""
        chosen = found[:, 0].long()
        labels = [example.label for example in examples]
        values = {
            name: metric(chosen.tolist(), labels) for name, metric in self.class_metrics.items()
        }
        values["accuracy"] = float(right(chosen, examples).double().mean())
        values["loss"] = _mean(found[:, 1:])
        return Metrics(values, not self.by_tokens and self._are_guesses(found[:, 1], examples))

    def _are_guesses(self, losses: Tensor, examples: Sequence[Encoded]) -> bool:
        """Return whether each loss is that of a guess among the example's options."""
        options = [len(self.layout.label_ids) or len(example.rows) for example in examples]
        guesses = torch.tensor([self.of_guess(count) for count in options], dtype=losses.dtype)
        difference = losses - guesses
        return bool((difference.abs() < _AS_A_GUESS).all())


class LossEvaluator:
    """Evaluates only the loss of the right answers, which costs far less than generating answers.

    With ``perplexity``, the exponential of the loss is the metric.

    The loss is the mean over all answer tokens of the set. The published runs select checkpoints by
    the mean, over batches of 8, of each batch's mean over tokens. That number depends on which rows
    share a batch.
    """

    columns = 2

    def __init__(self, objective: OptionObjective, perplexity: bool = False) -> None:
        self.objective, self.perplexity = objective, perplexity

    def results(self, examples: Sequence[Encoded]) -> Tensor:
        """Return the loss of each right answer and its number of tokens, [n, 2]."""
        return _losses_and_tokens(self.objective, examples)

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """See `Evaluator`."""
        loss = _mean(found)
        return Metrics(
            {"perplexity": _exp(loss), "loss": loss} if self.perplexity else {"loss": loss}
        )


class GenerationEvaluator:
    """Evaluates generated answers by comparing them with the right ones.

    Args:
        writer: generates the answers.
        worths: metrics of an answer by name, each from 0 to 1. The first one is the task's main
            metric.
        objective: computes the loss of the right answer's text.
    """

    def __init__(
        self,
        generator: Generator,
        text_metrics: Mapping[str, TextMetric],
        objective: OptionObjective,
    ) -> None:
        self.generator, self.text_metrics, self.objective = generator, text_metrics, objective
        self.columns = len(text_metrics) + 2

    def results(self, examples: Sequence[Encoded]) -> Tensor:
        """Return each answer's metrics, and the right answer's loss and number of tokens."""
        return self.results_of(self.write(examples), examples)

    def write(self, examples: Sequence[Encoded]) -> list[str]:
        """Return the answers that the model generates."""
        return self.generator([example.prompt for example in examples])

    def results_of(self, texts: Sequence[str], examples: Sequence[Encoded]) -> Tensor:
        """Return the results of generated answers."""
        values = [
            [float(metric(text, example.answers)) for metric in self.text_metrics.values()]
            for text, example in zip(texts, examples, strict=True)
        ]
        metrics = torch.tensor(values, dtype=torch.float64)
        return torch.cat([metrics, _losses_and_tokens(self.objective, examples)], 1)

    def metrics(self, found: Tensor, examples: Sequence[Encoded]) -> Metrics:
        """See `Evaluator`."""
        values = {name: float(found[:, i].mean()) for i, name in enumerate(self.text_metrics)}
        return Metrics({**values, "loss": _mean(found[:, -2:])})


def _exp(loss: float) -> float:
    """Return e to the loss; the largest number there is instead of an overflow."""
    return math.exp(min(loss, _LARGEST_EXPONENT))


def _answer_tokens(example: Encoded) -> int:
    return len(example.answer[example.label])


def _losses_and_tokens(objective: OptionObjective, examples: Sequence[Encoded]) -> Tensor:
    losses = objective.prepare(examples, None).micro_batch.losses(1)[0]
    tokens = torch.tensor([_answer_tokens(e) for e in examples], dtype=torch.float64)
    return torch.stack([_double(losses), tokens], 1)


def _mean(losses_and_counts: Tensor) -> float:
    losses, counts = losses_and_counts.unbind(1)
    return float((losses * counts).sum() / counts.sum())


def _double(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)
