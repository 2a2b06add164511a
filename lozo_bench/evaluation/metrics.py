"""Metrics of chosen classes and of generated answers.

Classes are whole numbers; all metrics are fractions, not percentages. Generated answers are
compared as in SQuAD's evaluation (Rajpurkar et al., 2016), with MeZO's rules for several right
answers and for unanswerable questions (large_models/metrics.py:7-56): the best F1 over the right
answers, and 0 or 1 for unanswerable ones. DROP's official metric is in `drop.py`.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# The right answers of questions that the text does not answer, in QuAC and in SQuAD 2.
UNANSWERABLE = ("CANNOTANSWER", "no answer")

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def f1(predictions: Sequence[int], golds: Sequence[int]) -> float:
    """Return the F1 of class 1, as GLUE uses it for MRPC and QQP; 0 where it would be 0 / 0."""
    return _f1_of(1, predictions, golds)


def macro_f1(predictions: Sequence[int], golds: Sequence[int]) -> float:
    """Return the mean F1 over all classes that occur among the predictions or the golds."""
    classes = {*predictions, *golds}
    return sum(_f1_of(c, predictions, golds) for c in classes) / len(classes)


def matthews(predictions: Sequence[int], golds: Sequence[int]) -> float:
    """Return Matthews' correlation coefficient in [-1, 1], for any number of classes.

    With n examples, c of them predicted correctly, and p_k predictions and g_k golds of class k, it
    is (c n - sum p_k g_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum g_k^2)). It is 0 if all predictions
    or all golds are of one class. Source: Gorodkin, 2004, equation 8.
    """
    n = len(golds)
    right = sum(p == g for p, g in zip(predictions, golds, strict=True))
    predicted, occurring = Counter(predictions), Counter(golds)
    covariance = right * n - sum(predicted[k] * occurring[k] for k in occurring)
    spread = (n**2 - sum(x**2 for x in predicted.values())) * (
        n**2 - sum(x**2 for x in occurring.values())
    )
    return covariance / math.sqrt(spread) if spread else 0.0


def squad_normalised(text: str) -> str:
    """Return the text in lower case without punctuation and the words a, an and the.

    One space separates the words.
    """
    stripped = text.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", stripped).split())


def squad_f1(text: str, answers: Sequence[str]) -> float:
    """Return the best word F1 over the right answers.

    For an unanswerable question it is 1 if the text equals the gold after normalisation, else 0. A
    text or answer that is empty after normalisation scores 0, as in MeZO's code.
    """
    if answers[0] in UNANSWERABLE:
        return float(squad_normalised(text) == squad_normalised(answers[0]))
    return max(_f1_of_words(squad_normalised(text), squad_normalised(a)) for a in answers)


def squad_em(text: str, answers: Sequence[str]) -> float:
    """Return 1 if the normalised text equals one of the normalised right answers, else 0."""
    return float(squad_normalised(text) in {squad_normalised(answer) for answer in answers})


def drop_f1(text: str, answers: Sequence[str]) -> float:
    """Return DROP's F1 as in MeZO's and LOZO's code, which treats each gold span as an alternative.

    This is SQuAD's F1. Unlike DROP's official F1, it does not align several spans and has no
    special rule for numbers.
    """
    return squad_f1(text, answers)


def _f1_of(k: int, predictions: Sequence[int], golds: Sequence[int]) -> float:
    true_positives = sum(p == g == k for p, g in zip(predictions, golds, strict=True))
    total = sum(p == k for p in predictions) + sum(g == k for g in golds)
    return 2 * true_positives / total if total else 0.0


def _f1_of_words(text: str, answer: str) -> float:
    text_words, answer_words = text.split(), answer.split()
    common = (Counter(text_words) & Counter(answer_words)).total()
    return 2 * common / (len(text_words) + len(answer_words)) if common else 0.0
