"""The evaluators: metrics of predictions, and the loss."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.evaluation.evaluate import evaluate
from lozo_bench.evaluation.evaluators import GenerationEvaluator, LossEvaluator, OptionEvaluator
from lozo_bench.objectives.losses import Hinge, OptionObjective, classification, language_model
from lozo_bench.tasks.base import Encoded

CPU = torch.device("cpu")
LAYOUT = BatchLayout(pad_id=0, scoring=ScoringOptions(share_prompt=False))


def example(width, label, tokens=(1, 1), **more):
    """Make an example: one option per entry of ``tokens`` behind a prompt of ``width`` tokens."""
    rows = tuple((5,) * (width + count) for count in tokens)
    answer = tuple(tuple(range(width, width + count)) for count in tokens)
    return Encoded(rows=rows, answer=answer, label=label, **more)


def scorer(table):
    """Make a scorer that looks up an example's scores by the width of its prompt."""

    def score(batch):
        first = batch.read[:, 0] % batch.input_ids.shape[1] + 1  # the prompt's width
        return torch.tensor([table[int(width)] for width in first], dtype=torch.float64)

    return score


def evaluator(table, loss=classification, **options):
    return OptionEvaluator(scorer(table), LAYOUT, CPU, loss, **options)


def test_any_of_several_right_options_counts():
    table = {1: [0.0, 1.0, 2.0], 2: [3.0, 1.0, 2.0]}
    rows = [example(1, 0, (1, 1, 1), golds=(0, 2)), example(2, 1, (1, 1, 1), golds=(1, 2))]
    metrics = evaluate(evaluator(table), rows, 8)
    assert metrics.values["accuracy"] == 0.5


def test_the_main_metric_comes_first():
    table = {1: [0.0, 1.0], 2: [1.0, 0.0]}
    rows = [example(1, 1), example(2, 1)]
    metrics = evaluate(
        evaluator(table, class_metrics={"always": lambda chosen, golds: chosen[1] + 0.25}), rows, 1
    )
    assert list(metrics.values) == ["always", "accuracy", "loss"]
    assert (metrics.name, metrics.main) == ("always", 0.25)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_language_model_loss_is_the_mean_over_all_tokens_of_the_set(batch_size):
    table = {1: [-2.0], 2: [-4.0], 3: [-1.0]}
    rows = [example(1, 0, (1,)), example(2, 0, (3,)), example(3, 0, (2,))]
    metrics = evaluate(evaluator(table, language_model, by_tokens=True), rows, batch_size)
    assert metrics.loss == pytest.approx((1 * 2 + 3 * 4 + 2 * 1) / 6)


def test_metrics_say_whether_every_loss_is_that_of_a_guess():
    """Each row has options of its own; an absent option scores -inf and does not count."""
    table = {1: [4.0, 4.0, -math.inf], 2: [-1.0, -1.0, -1.0], 3: [1.0, -1.0, -math.inf]}
    guesses = [example(1, 0), example(2, 1, (1, 1, 1))]
    assert evaluate(evaluator(table), guesses, 2).guesses
    assert not evaluate(evaluator(table), [*guesses, example(3, 0)], 2).guesses
    # The mean loss alone does not say it: one row is certain here, and another one wrong.
    table = {1: [0.0, 0.0], 2: [0.25, -0.25], 3: [-0.2, 0.2]}
    rows = [example(1, 0), example(2, 0), example(3, 0)]
    assert evaluate(evaluator(table), rows, 3).loss == pytest.approx(math.log(2), abs=0.02)
    assert not evaluate(evaluator(table), rows, 3).guesses


def test_a_guess_has_another_hinge_loss_than_cross_entropy():
    hinge = Hinge(2.0)
    table = {1: [4.0, 4.0, -math.inf], 2: [-1.0, -1.0, -1.0]}
    rows = [example(1, 0), example(2, 1, (1, 1, 1))]
    metrics = evaluate(evaluator(table, hinge, of_guess=hinge.of_guess), rows, 2)
    assert metrics.guesses
    assert metrics.loss == (2.0 + 4.0) / 2
    assert not evaluate(evaluator(table, hinge), rows, 2).guesses


def test_calibrated_scores_are_sums_minus_the_sums_without_the_row():
    """SFC: the mean scores of one and two tokens are -1 and -2, and -0.5 and -3 without the row."""
    table = {3: [-1.0, -2.0], 1: [-0.5, -3.0]}
    blank = example(1, 1, (1, 2))
    plain, calibrated = example(3, 1, (1, 2)), example(3, 1, (1, 2), calibration=blank)
    assert evaluate(evaluator(table), [plain], 1).main == 0.0  # -1 beats -2
    metrics = evaluate(evaluator(table), [calibrated], 1)
    left, right = -1 - (-0.5), 2 * -2 - 2 * -3  # -0.5 and 2
    assert metrics.main == 1.0
    assert metrics.loss == pytest.approx(math.log(math.exp(left) + math.exp(right)) - right)


def test_an_absent_option_is_never_chosen_after_calibration():
    table = {3: [-1.0, -2.0, -math.inf], 1: [-0.5, -3.0, -math.inf], 4: [-1.0, -2.0, -3.0]}
    two = example(3, 1, (1, 1), calibration=example(1, 1, (1, 1)))
    three = example(4, 2, (1, 1, 1), calibration=example(4, 2, (1, 1, 1)))
    together = evaluate(evaluator(table), [two, three], 2)
    assert together.loss == pytest.approx((math.log(1 + math.exp(-1.5)) + math.log(3)) / 2)
    assert together.main == 0.5


def generator(texts):
    return lambda prompts: [texts[len(prompt)] for prompt in prompts]


def test_generated_answers_are_evaluated_in_the_order_of_the_set():
    texts = {1: "yes", 2: "no", 3: "yes"}
    rows = [
        example(7, 0, (1,), prompt=(5,) * 3, answers=("yes",)),
        example(6, 0, (3,), prompt=(5,) * 2, answers=("yes",)),
        example(8, 0, (2,), prompt=(5,), answers=("no", "yes")),
    ]
    objective = OptionObjective(
        scorer({7: [-1.0], 6: [-2.0], 8: [-3.0]}), LAYOUT, CPU, language_model
    )
    metrics_of_text = {
        "em": lambda text, golds: float(text in golds),
        "length": lambda text, golds: len(text),
    }
    for batch_size in (1, 3):
        metrics = evaluate(
            GenerationEvaluator(generator(texts), metrics_of_text, objective), rows, batch_size
        )
        assert metrics.values["em"] == pytest.approx(2 / 3)
        assert metrics.values["length"] == pytest.approx(8 / 3)
        assert metrics.loss == pytest.approx((1 * 1 + 3 * 2 + 2 * 3) / 6)
    only_loss = evaluate(LossEvaluator(objective), rows, 2)
    assert dict(only_loss.values) == {"loss": pytest.approx(metrics.loss)}
    scored = evaluate(LossEvaluator(objective, perplexity=True), rows, 2)
    assert dict(scored.values) == {
        "perplexity": pytest.approx(math.exp(metrics.loss)),
        "loss": pytest.approx(metrics.loss),
    }
    assert scored.lower_is_better
    assert not metrics.lower_is_better


def test_progress_is_reported_after_each_batch():
    reports = []
    rows = [example(1, 0), example(1, 0), example(1, 0)]
    evaluate(
        evaluator({1: [0.0, 1.0]}), rows, 2, advanced=lambda done, of: reports.append((done, of))
    )
    assert reports == [(2, 3), (3, 3)]


def test_several_processes_together_give_the_metrics_of_one():
    """Each process evaluates every second row; the sum of their results is the whole set's."""
    table = {1: [0.0, 1.0], 2: [1.0, 0.0], 3: [0.0, 2.0]}
    rows = [example(1, 1), example(2, 1), example(3, 1)]
    seen = []

    def share(rank):
        return SimpleNamespace(
            rows=lambda n: range(rank, n, 2), totals=lambda t: seen.append(t) or t
        )

    for rank in (0, 1):
        evaluate(evaluator(table), rows, 4, share(rank))
    whole = evaluator(table).metrics((seen[0] + seen[1]).view(3, 3), rows)
    assert whole == evaluate(evaluator(table), rows, 4)
