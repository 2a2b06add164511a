"""Metrics of chosen classes and of generated answers, compared with values worked out by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from lozo_bench.evaluation import metrics
from lozo_bench.evaluation.drop import (
    drop_normalised,
    drop_official_em,
    drop_official_f1,
    largest_sum,
)

GOLDS = [0, 1, 1, 0, 1, 2, 2, 0]
CHOSEN = [0, 1, 0, 0, 1, 2, 1, 1]


def test_f1_is_that_of_class_1() -> None:
    # Class 1 is chosen 4 times and right 3 times, 2 of them together: precision 2/4, recall 2/3.
    assert metrics.f1(CHOSEN, GOLDS) == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))


def test_f1_is_0_if_class_1_does_not_occur() -> None:
    assert metrics.f1([0, 0], [0, 2]) == 0.0


def test_macro_f1_is_the_mean_over_the_classes() -> None:
    # Class 0: 3 chosen, 3 right, 2 in common. Class 1: as above. Class 2: 1 chosen, 2 right, 1 in
    # common.
    assert metrics.macro_f1(CHOSEN, GOLDS) == pytest.approx((4 / 6 + 4 / 7 + 2 / 3) / 3)


def test_macro_f1_counts_a_class_that_is_only_chosen() -> None:
    assert metrics.macro_f1([0, 1], [0, 0]) == pytest.approx((2 / 3 + 0) / 2)


def test_matthews_of_two_classes_is_the_formula_of_the_four_counts() -> None:
    golds, chosen = [1] * 6 + [0] * 5, [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    tp, fn, tn, fp = 4, 2, 3, 2
    spread = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert metrics.matthews(chosen, golds) == pytest.approx((tp * tn - fp * fn) / spread)


def test_matthews_of_many_classes_is_the_correlation_of_indicators() -> None:
    # C(x, y) / sqrt(C(x, x) C(y, y)), where C is the covariance summed over the class indicators.
    x, y = (np.eye(3)[values] for values in (CHOSEN, GOLDS))
    x, y = x - x.mean(0), y - y.mean(0)
    expected = (x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())
    assert metrics.matthews(CHOSEN, GOLDS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("chosen", "expected"), [([0, 1, 1], 1.0), ([1, 0, 0], -1.0), ([1] * 3, 0.0)]
)
def test_matthews_of_all_right_all_wrong_and_one_class_only(
    chosen: list[int], expected: float
) -> None:
    assert metrics.matthews(chosen, [0, 1, 1]) == expected


def test_normalisation_removes_case_punctuation_articles_and_extra_spaces() -> None:
    assert (
        metrics.squad_normalised(" The  U.S.-led \t(an) answer, a 'theme'!") == "usled answer theme"
    )


@pytest.mark.parametrize(
    ("text", "answers", "f1", "em"),
    [
        ("the Eiffel Tower", ["Eiffel Tower!"], 1.0, 1.0),
        ("in Paris", ["London", "Paris"], 2 / 3, 0.0),  # precision 1/2, recall 1
        ("a b b c", ["b b d"], 2 * (2 / 3) * (2 / 3) / (4 / 3), 0.0),  # the word a is removed
        ("", ["Paris"], 0.0, 0.0),
        ("Paris", ["The"], 0.0, 0.0),
        ("The", ["an"], 0.0, 1.0),  # both are empty after normalisation: F1 is 0 in MeZO's code
        ("cannotanswer.", ["CANNOTANSWER"], 1.0, 1.0),
        ("no", ["no answer", "no"], 0.0, 1.0),
        ("no answer", ["no", "no answer"], 1.0, 1.0),
    ],
)
def test_a_generated_answer_is_compared_with_its_best_gold(
    text: str, answers: list[str], f1: float, em: float
) -> None:
    assert metrics.squad_f1(text, answers) == pytest.approx(f1)
    assert metrics.squad_em(text, answers) == em


def test_each_gold_span_is_an_alternative_in_mezos_drop_f1() -> None:
    assert metrics.drop_f1("5", ["5", "five yards"]) == 1.0
    assert metrics.drop_f1("The yards.", ["5", "five yards"]) == pytest.approx(2 / 3)
    assert metrics.drop_f1("", ["5", "five yards"]) == 0.0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The 24-year-old", "24.0 year old"),
        ("1,000 yards", "1000.0 yards"),
        ("5.5", "5.5"),
        ("$5.5", "55.0"),  # as in AllenNLP: punctuation includes the point
        ("an  Answer!", "answer"),
    ],
)
def test_official_drop_splits_at_hyphens_and_normalises_numbers(text: str, normal: str) -> None:
    assert drop_normalised(text) == normal


@pytest.mark.parametrize(
    ("text", "answers", "f1", "em"),
    [
        ("5", ["5.0"], 1.0, 1.0),
        ("5 yards", ["6 yards"], 0.0, 0.0),  # the gold's number must occur
        ("five yards", ["yards"], 0.67, 0.0),  # precision 1/2, recall 1; rounded to two digits
        ("Bears; Lions", ["the Lions; the Bears"], 1.0, 1.0),
        ("Bears", ["Lions; Bears"], 0.5, 0.0),
        ("Bears; Lions; Jets", ["Lions"], 0.33, 0.0),
        # The best pairing: b c with b c (1) and b with x b (2/3).
        ("b c; b", ["x b; b c"], 0.83, 0.0),
        ("Jets", ["Bears; Lions", "Jets"], 1.0, 1.0),
        ("", ["5"], 0.0, 0.0),
    ],
)
def test_official_drop_pairs_spans(text: str, answers: list[str], f1: float, em: float) -> None:
    assert drop_official_f1(text, answers) == f1
    assert drop_official_em(text, answers) == em


def test_the_largest_sum_is_that_of_an_optimal_assignment() -> None:
    draws = np.random.Generator(np.random.Philox(0))
    for _ in range(200):
        scores = draws.integers(0, 4, size=draws.integers(1, 7, size=2)) / 3
        few = scores if len(scores) <= scores.shape[1] else scores.T
        ways = permutations(range(few.shape[1]), len(few))
        best = max(sum(few[row, column] for row, column in enumerate(way)) for way in ways)
        assert largest_sum(scores.tolist()) == pytest.approx(best)
