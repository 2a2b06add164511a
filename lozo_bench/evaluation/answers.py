"""What a model answers on each row: the scores of its options, or the text that it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Advanced, Evaluator, Metrics, by_length
from lozo_bench.evaluation.evaluators import GenerationEvaluator, OptionEvaluator
from lozo_bench.evaluation.several import EvaluatorByTask
from lozo_bench.tasks.base import Encoded

# Rows of so many batches are sorted by length together.
_BATCHES_AHEAD = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one row.

    Args:
        scores: the score of each option; empty if the answer is written. An option's score is the
            mean log-probability of its tokens, or what is equal to it up to a number that all
            options of the row have in common.
        text: the written answer.
    """

    scores: tuple[float, ...] = ()
    text: str = ""

    @property
    def choice(self) -> int:
        """The number of the chosen option: the first of those with the highest score."""
        return self.scores.index(max(self.scores))


class Answers:
    """The answers to rows, in order, made while they are iterated over.

    Rows of similar length go through the model together, as in `evaluate`: of as many batches as
    are answered ahead. Nothing is kept of an answer that was given, except what the metrics need.

    Args:
        evaluator: of the task.
        examples: the rows.
        batch_size: how many examples are answered together.
        labelled: whether the right answers are known.
        advanced: called after each batch with the number of examples that are done, and of all.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        examples: Sequence[Encoded],
        batch_size: int,
        labelled: bool = True,
        advanced: Advanced = lambda done, of: None,
    ) -> None:
        self.evaluator, self.examples, self.batch_size = evaluator, examples, batch_size
        self.labelled, self.advanced = labelled, advanced
        rows = len(examples) if labelled else 0
        self.found = torch.zeros(rows, evaluator.columns, dtype=torch.float64)

    def __iter__(self) -> Iterator[Answer]:
        """Answer the rows.

        Raises:
            UserError: the task has no answers: its metric is a perplexity.
        """
        rows, ahead = len(self.examples), self.batch_size * _BATCHES_AHEAD
        for first in range(0, rows, ahead):
            yield from self._answered(range(first, min(first + ahead, rows)))

    def metrics(self) -> Metrics | None:
        """Return the metrics of all rows, which have been answered; None if they have no labels."""
        return self.evaluator.metrics(self.found, self.examples) if self.labelled else None

    @torch.inference_mode()
    def _answered(self, numbers: range) -> list[Answer]:
        """Return the answers to the rows with these numbers."""
        answers, done = [Answer()] * len(numbers), numbers.start
        order = by_length(self.examples, numbers)
        for task, of_task in groupby(order, key=lambda i: self.examples[i].task):
            own = self.evaluator
            if isinstance(own, EvaluatorByTask):
                own = own.by_task[task]
            rows = list(of_task)
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                results, given = _answers(own, [self.examples[i] for i in batch], self.labelled)
                if results is not None and self.labelled:
                    self.found[batch, : own.columns] = results
                for i, one in zip(batch, given, strict=True):
                    answers[i - numbers.start] = one
                done += len(batch)
                self.advanced(done, len(self.examples))
        return answers


def _answers(
    evaluator: Evaluator, examples: Sequence[Encoded], labelled: bool
) -> tuple[Tensor | None, list[Answer]]:
    if isinstance(evaluator, OptionEvaluator):
        results, scores = evaluator.results_and_scores(examples)
        counts = [len(example.rows) for example in examples]
        several = max(counts) > 1  # a masked model reads one row for all options
        rows = zip(scores.tolist(), counts, strict=True)
        return results, [Answer(tuple(row[:n] if several else row)) for row, n in rows]
    if isinstance(evaluator, GenerationEvaluator):
        texts = evaluator.write(examples)
        of_texts = evaluator.results_of(texts, examples) if labelled else None
        return of_texts, [Answer(text=text) for text in texts]
    raise UserError("task: its metric is a perplexity, so there is nothing to predict")
