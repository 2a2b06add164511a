"""What a model answers on each row: the scores of its options, or the text that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from lozo_bench.errors import UserError
from lozo_bench.evaluation.evaluate import Advanced, Evaluator, Metrics, by_length
from lozo_bench.evaluation.evaluators import GenerationEvaluator, OptionEvaluator
from lozo_bench.evaluation.several import EvaluatorByTask
from lozo_bench.tasks.base import Encoded


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


@torch.inference_mode()
def answer(
    evaluator: Evaluator,
    examples: Sequence[Encoded],
    batch_size: int,
    labelled: bool = True,
    advanced: Advanced = lambda done, of: None,
) -> tuple[list[Answer], Metrics | None]:
    """Return the answer to each example, in order, and the metrics if the examples are labelled.

    Examples of similar length go through the model together, as in `evaluate`, and nothing of the
    model's outputs is kept but the scores.

    Args:
        evaluator: of the task.
        examples: the rows.
        batch_size: how many examples are answered together.
        labelled: whether the right answers are known.
        advanced: called after each batch with the number of examples that are done, and of all.

    Raises:
        UserError: the task has no answers: its metric is a perplexity.
    """
    found = torch.zeros(len(examples), evaluator.columns, dtype=torch.float64)
    answers = [Answer()] * len(examples)
    order, done = by_length(examples, range(len(examples))), 0
    for task, of_task in groupby(order, key=lambda i: examples[i].task):
        own = evaluator.by_task[task] if isinstance(evaluator, EvaluatorByTask) else evaluator
        rows = list(of_task)
        for start in range(0, len(rows), batch_size):
            numbers = rows[start : start + batch_size]
            results, given = _answers(own, [examples[i] for i in numbers], labelled)
            if results is not None:
                found[numbers, : own.columns] = results
            for i, one in zip(numbers, given, strict=True):
                answers[i] = one
            done += len(numbers)
            advanced(done, len(order))
    return answers, evaluator.metrics(found, examples) if labelled else None


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
