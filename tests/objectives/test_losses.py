"""The training losses: classification, language modelling of the right option, and accuracy."""

from __future__ import annotations

import math

import pytest
import torch

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.collate import collate
from lozo_bench.data.order import token_shares
from lozo_bench.objectives.losses import Hinge, OptionObjective, language_model, minus_accuracy
from lozo_bench.tasks.base import Encoded

CPU = torch.device("cpu")
LAYOUT = BatchLayout(pad_id=0, scoring=ScoringOptions(share_prompt=False))
TWO = Encoded(rows=((2, 7, 8), (2, 7, 9)), answer=((2,), (2,)), label=1)
THREE = Encoded(rows=((2, 7), (2, 8), (2, 9)), answer=((1,), (1,), (1,)), label=0, golds=(0, 2))


def objective(scores, loss=None):
    """Make an objective whose scorer repeats fixed [B, K] scores once per copy of the batch."""
    scores = torch.tensor(scores, dtype=torch.float64)

    def scorer(batch):
        return scores.repeat(batch.size // len(scores), 1)

    return OptionObjective(scorer, LAYOUT, CPU, *([] if loss is None else [loss]))


def losses(made, examples, weights=None, copies=1):
    return made.prepare(examples, weights).micro_batch.losses(copies)


def test_the_classification_loss_is_minus_the_log_softmax_of_the_right_option():
    made = objective([[0.0, math.log(3.0)], [0.0, 0.0]])
    got = losses(made, [TWO, TWO])
    assert got[0].tolist() == pytest.approx([-math.log(0.75), -math.log(0.5)])


def test_the_hinge_loss_adds_what_every_wrong_option_lacks_to_the_margin():
    """An absent option adds nothing; a NaN score gives a NaN loss; the gradient is the slope."""
    scores = [[1.0, 1.5, -math.inf], [1.0, 0.5, -3.0]]
    made = objective(scores, Hinge(2.0))
    assert losses(made, [TWO, THREE], copies=2).tolist() == [[1.5, 1.5]] * 2
    assert losses(objective(scores, Hinge(0.25)), [TWO, THREE]).tolist() == [[0.0, 0.0]]
    assert losses(objective([[math.nan, 1.0]], Hinge(2.0)), [TWO])[0].isnan().all()
    given = torch.tensor(scores, requires_grad=True)
    Hinge(2.0)(given, collate([TWO, THREE], LAYOUT), [TWO, THREE]).sum().backward()
    assert given.grad.tolist() == [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]
    assert Hinge(0.5).of_guess(3) == 1.0


def test_an_absent_option_has_no_probability():
    made = objective([[1.0, 1.0, -math.inf], [1.0, 1.0, 1.0]])
    assert losses(made, [TWO, THREE])[0].tolist() == pytest.approx([math.log(2), math.log(3)])


def test_the_language_model_loss_is_the_mean_over_the_batchs_tokens():
    short = Encoded(rows=((2, 7, 8),), answer=((2,),), label=0)
    long = Encoded(rows=((2, 7, 8, 9, 5),), answer=((2, 3, 4),), label=0)
    shares = token_shares([short, long])
    assert shares == [0.5, 1.5]
    mean_log_probabilities = [[-2.0], [-4.0]]
    got = losses(objective(mean_log_probabilities, language_model), [short, long], shares)
    assert float(got.mean()) == (1 * 2.0 + 3 * 4.0) / 4  # the mean over four tokens


def test_copies_have_the_same_weights():
    got = losses(objective([[-2.0], [-4.0]], language_model), [TWO.only_gold()] * 2, [0.5, 1.5], 3)
    assert got.tolist() == [[1.0, 6.0]] * 3


def test_accuracy_as_a_loss_is_zero_or_minus_one():
    made = objective([[0.0, 1.0, -math.inf], [0.0, 1.0, 2.0]], minus_accuracy)
    assert losses(made, [TWO, THREE], copies=2).tolist() == [[-1.0, -1.0]] * 2
    wrong = objective([[1.0, 1.0, -math.inf], [0.0, 1.0, 0.5]], minus_accuracy)
    assert losses(wrong, [TWO, THREE]).tolist() == [[0.0, 0.0]]


def test_a_nan_score_gives_a_nan_loss():
    made = objective([[math.nan, 1.0], [0.0, 1.0]], minus_accuracy)
    assert losses(made, [TWO, TWO])[0].isnan().tolist() == [True, False]


def test_examples_may_have_different_numbers_of_options():
    batch = collate([TWO, THREE], LAYOUT)
    assert (batch.size, batch.options, len(batch.input_ids)) == (2, 3, 5)
    assert batch.option.tolist() == [[0, 1, 3], [0, 1, 2]]


def test_virtual_tokens_shift_the_positions_that_are_read():
    plain = collate([TWO, TWO], LAYOUT)
    shifted = collate([TWO, TWO], BatchLayout(pad_id=0, scoring=LAYOUT.scoring, virtual_tokens=4))
    rows = torch.tensor([[0, 1], [2, 3]])  # the rows of each example
    assert torch.equal(shifted.read, plain.read + 4 * (rows + 1))
    assert torch.equal(shifted.repeat(2).read[2:], shifted.read + 4 * (3 + 4))
