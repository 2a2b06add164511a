"""Accuracy and loss over a set of examples."""

from __future__ import annotations

import math

import pytest
import torch

from lozo_bench.data.batch import BatchLayout
from lozo_bench.errors import Stopped
from lozo_bench.evaluation.evaluate import evaluate
from lozo_bench.evaluation.evaluators import OptionEvaluator
from lozo_bench.objectives.losses import classification
from lozo_bench.tasks.base import Encoded


def example(width, label):
    return Encoded(rows=((0,) * width,), answer=((0,),), label=label)


LAYOUT = BatchLayout(pad_id=0, label_ids=(0, 1))


def evaluator(scores_by_width):
    return OptionEvaluator(lookup(scores_by_width), LAYOUT, torch.device("cpu"), classification)


def lookup(scores_by_width):
    """Make a scorer that looks up an example's scores by its length."""
    return lambda batch: torch.tensor(
        [scores_by_width[int(row.sum())] for row in batch.attention_mask]
    )


SCORES = {1: [0.0, 1.0], 2: [2.0, 0.0], 3: [0.0, 0.0]}
EXAMPLES = [example(3, 0), example(1, 1), example(2, 1)]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_metrics_do_not_depend_on_the_batch_size(batch_size):
    metrics = evaluate(evaluator(SCORES), EXAMPLES, batch_size)
    assert (metrics.name, metrics.main) == ("accuracy", metrics.values["accuracy"])
    assert metrics.main == pytest.approx(2 / 3)  # the example of width 2 is wrong
    wanted = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(2)), math.log(2)]
    assert metrics.loss == pytest.approx(sum(wanted) / 3)


def test_the_first_of_equal_scores_wins():
    def right(label):
        return evaluate(evaluator(SCORES), [example(3, label)], 1).main

    assert (right(0), right(1)) == (1.0, 0.0)


def test_it_stops_between_batches_if_the_run_must_stop():
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 2:
            raise Stopped("SIGTERM")

    with pytest.raises(Stopped):
        evaluate(evaluator(SCORES), EXAMPLES, 2, check=check)
    assert len(calls) == 2
