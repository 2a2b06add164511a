"""What predictions are worth: chosen classes against the right ones, written answers against golds.

Classes are whole numbers; all rates are fractions. Written answers are compared as SQuAD's
evaluation does it (Rajpurkar et al., 2016), with MeZO's rules for more than one gold and for none
(metrics.py of its large_models; spec section 3.5). DROP's own metric is in `drop.py`.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# The golds of questions that the text does not answer: QuAC's and SQuAD 2's.
UNANSWERABLE = ("CANNOTANSWER", "no answer")

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def f1(predictions: Sequence[int], golds: Sequence[int]) -> float:
    """F1 of class 1, as of GLUE's MRPC and QQP; 0 where that is 0 / 0."""
    return _f1_of(1, predictions, golds)


def macro_f1(predictions: Sequence[int], golds: Sequence[int]) -> float:
    """The mean of the F1 of every class that is predicted or right."""
    classes = {*predictions, *golds}
    return sum(_f1_of(c, predictions, golds) for c in classes) / len(classes)


def matthews(predictions: Sequence[int], golds: Sequence[int]) -> float:
    """Matthews' correlation of predictions and golds in [-1, 1], of any number of classes.

    With n examples, c of them right, and p_k predictions and g_k golds of class k:
    (c n - sum p_k g_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum g_k^2)); 0 where either has one class
    only. Source: Gorodkin, 2004, equation 8.
    """
    n = len(golds)
    right = sum(p == g for p, g in zip(predictions, golds, strict=True))
    predicted, there = Counter(predictions), Counter(golds)
    covariance = right * n - sum(predicted[k] * there[k] for k in there)
    spread = (n**2 - sum(x**2 for x in predicted.values())) * (
        n**2 - sum(x**2 for x in there.values())
    )
    return covariance / math.sqrt(spread) if spread else 0.0


def squad_normalised(text: str) -> str:
    """Lower case, without punctuation and the words a, an and the, one space between words."""
    bare = text.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", bare).split())


def squad_f1(text: str, answers: Sequence[str]) -> float:
    """The best F1 of words over the right answers; all or nothing where there is none.

    A text or answer of which nothing is left scores 0, as published.
    """
    if answers[0] in UNANSWERABLE:
        return float(squad_normalised(text) == squad_normalised(answers[0]))
    return max(_f1_of_words(squad_normalised(text), squad_normalised(a)) for a in answers)


def squad_em(text: str, answers: Sequence[str]) -> float:
    """1 if the text is one of the right answers, both normalised; else 0."""
    return float(squad_normalised(text) in {squad_normalised(answer) for answer in answers})


def drop_f1(text: str, answers: Sequence[str]) -> float:
    """DROP's F1 as published for MeZO and LOZO: each gold span is a right answer by itself.

    That is SQuAD's F1, neither aligned over several spans nor particular about numbers.
    """
    return squad_f1(text, answers)


def _f1_of(k: int, predictions: Sequence[int], golds: Sequence[int]) -> float:
    both = sum(p == g == k for p, g in zip(predictions, golds, strict=True))
    either = sum(p == k for p in predictions) + sum(g == k for g in golds)
    return 2 * both / either if either else 0.0


def _f1_of_words(text: str, answer: str) -> float:
    here, there = text.split(), answer.split()
    both = (Counter(here) & Counter(there)).total()
    return 2 * both / (len(here) + len(there)) if both else 0.0
