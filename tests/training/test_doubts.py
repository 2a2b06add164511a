"""Runs whose numbers look like results, though the model did not train or was destroyed."""

from __future__ import annotations

import math

import pytest
import torch

from lozo_bench.evaluation.evaluate import Metrics
from lozo_bench.training.doubts import doubts, not_moving

FP32, BF16 = torch.float32, torch.bfloat16


def of(loss, guesses=False):
    return Metrics({"accuracy": 0.5, "loss": loss}, guesses)


def test_a_run_whose_losses_are_nearly_equal_has_hardly_moved():
    said = doubts(of(0.69314), of(0.69314003), [of(0.7), of(0.7)], 100, 1e-12, FP32)
    assert said.startswith(
        "the loss has hardly moved in 100 steps: on the test rows it was 0.693140"
    )
    assert "all dev losses are within 0.01% of each other" in said
    assert "a larger optimizer.lr than 1e-12, or more steps" in said


def test_a_search_without_a_learning_rate_is_told_what_it_has():
    said = doubts(of(0.69314), of(0.69314003), [of(0.7), of(0.7)], 100, 0.0, FP32)
    assert "What to do: a larger optimizer.sigma or alpha, or more steps" in said


def test_a_trial_of_a_few_steps_need_not_move():
    assert doubts(of(0.7), of(0.7), [of(0.7)], 2, 1e-7, FP32) is None


@pytest.mark.parametrize(
    ("test", "dev"), [((0.69, 0.6898), (0.7, 0.7)), ((0.69, 0.69), (0.7, 0.6998))]
)
def test_a_run_that_moved_anywhere_is_not_doubted(test, dev):
    """The tested step may be an early one, when only later ones moved."""
    assert doubts(of(test[0]), of(test[1]), list(map(of, dev)), 100, 1e-6, FP32) is None


def test_what_hardly_moves_depends_on_the_dtype():
    run = (of(0.7), of(0.701), [of(0.5), of(0.5)], 20, 1e-6)
    assert doubts(*run, FP32) is None
    said = doubts(*run, BF16)
    assert "model.dtype=fp32" in said


def test_a_run_whose_first_three_dev_losses_are_nearly_equal_says_so_at_once():
    still = [of(0.7), of(0.70001), of(0.7)]
    said = not_moving(still, 300, 1000, 1e-6, FP32)
    assert said.startswith("step 300: the dev loss has hardly moved in 3 evaluations")
    assert "-m optimizer.lr=1e-05,0.0001,0.001: a larger optimizer.lr than 1e-06" in said
    assert "optimizer.sigma" in not_moving(still, 300, 1000, 0.0, FP32)
    moved = [of(0.7), of(0.7), of(0.6998)]
    assert not_moving(moved, 300, 1000, 1e-6, FP32) is None
    assert "model.dtype=fp32" in not_moving(moved, 300, 1000, 1e-6, BF16)
    for dev, step in ((still[:2], 200), ([*still, of(0.7)], 400), (still, 3), (still, 1000)):
        assert not_moving(dev, step, 1000, 1e-6, FP32) is None


def test_a_model_that_only_guesses_after_training_is_said_to_be_destroyed():
    said = doubts(of(0.5), of(math.log(2), True), [of(0.69)], 100, 1e6, FP32)
    assert "that of a guess (0.6931" in said
    assert "a smaller optimizer.lr than 1e+06" in said
    assert "no longer" not in (doubts(of(0.7, True), of(0.7, True), [], 9, 1.0, FP32) or "")


def test_a_huge_loss_after_training_is_said_to_be_a_destroyed_model():
    said = doubts(of(0.7), of(1.5e9), [of(2e9)], 100, 100.0, FP32)
    assert "rose from 0.7000 to 1.5e+09" in said
    assert "a smaller optimizer.lr than 100" in said
