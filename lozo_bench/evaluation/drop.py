"""DROP's official metric: exact match and F1 of answers that may consist of several spans.

Source: Dua et al., 2019, section 5, and AllenNLP's implementation of it (drop_eval.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lozo_bench.evaluation.metrics import ARTICLES, PUNCTUATION
from lozo_bench.tasks.records import SPAN_SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Sequence

_BETWEEN_WORDS = re.compile("[ -]")


def drop_official_em(text: str, answers: Sequence[str]) -> float:
    """Return 1 if the text has the same spans as one of the answers, in any order; else 0.

    In ``text`` and in ``answers``, spans are separated by `SPAN_SEPARATOR`.
    """
    return float(any(_same_spans(_spans(text), _spans(answer)) for answer in answers))


def drop_official_f1(text: str, answers: Sequence[str]) -> float:
    """Return the best F1 over the answers, rounded to two digits.

    The spans of the text and of an answer are paired so that the sum of the pairs' word F1 is
    largest. That sum is divided by the larger of the two numbers of spans.
    """
    return max(_f1(_spans(text), _spans(answer)) for answer in answers)


def drop_normalised(text: str) -> str:
    """Normalise a text: lower case, no punctuation or articles, numbers as ``5.0``.

    Words are also split at hyphens.
    """
    words = [_word(word) for word in _BETWEEN_WORDS.split(text.lower())]
    return " ".join(" ".join(words).split())


def largest_sum(scores: Sequence[Sequence[float]]) -> float:
    """Return the largest sum of scores that uses each row and each column at most once."""
    # This import takes time and few runs need it.
    from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return float(sum(scores[row][column] for row, column in zip(rows, columns, strict=True)))


def _same_spans(spans: list[str], golds: list[str]) -> bool:
    return set(spans) == set(golds) and len(spans) == len(golds)


def _spans(text: str) -> list[str]:
    return [drop_normalised(span) for span in text.split(SPAN_SEPARATOR)]


def _word(word: str) -> str:
    stripped = word if _is_number(word) else word.translate(PUNCTUATION)
    return str(float(stripped)) if _is_number(stripped) else ARTICLES.sub(" ", stripped)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _f1(spans: list[str], golds: list[str]) -> float:
    scores = [
        [_f1_of_words(set(gold.split()), set(span.split())) for span in spans] for gold in golds
    ]
    return round(largest_sum(scores) / max(len(spans), len(golds)), 2)


def _f1_of_words(gold: set[str], span: set[str]) -> float:
    """Return the F1 of two sets of words; 0 if the gold has numbers and the span none of them."""
    numbers = {word for word in gold if _is_number(word)}
    if numbers and not numbers & span:
        return 0.0
    common = len(gold & span)
    precision = common / len(span) if span else 1.0
    recall = common / len(gold) if gold else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
