"""DROP's own metric: exact match and F1 of answers that may be several spans.

Source: Dua et al., 2019, section 5, and the evaluation that AllenNLP has of it (drop_eval.py).
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
    """1 if the spans of the text are those of one of the answers, in any order; else 0.

    The spans of a text, written or right, stand between `SPAN_SEPARATOR`.
    """
    return float(any(_alike(_spans(text), _spans(answer)) for answer in answers))


def drop_official_f1(text: str, answers: Sequence[str]) -> float:
    """The best F1 over the answers, rounded to two digits.

    Spans of the text and of an answer are paired so that the sum of their F1 of words is largest;
    that sum is divided by the number of spans on the longer side.
    """
    return max(_f1(_spans(text), _spans(answer)) for answer in answers)


def drop_normalised(text: str) -> str:
    """Words in lower case without punctuation and articles, numbers as ``5.0``, hyphens parted."""
    words = [_word(word) for word in _BETWEEN_WORDS.split(text.lower())]
    return " ".join(" ".join(words).split())


def largest_sum(scores: Sequence[Sequence[float]]) -> float:
    """The largest sum of scores with at most one of each row and each column."""
    # Imported here because few runs need it.
    from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return float(sum(scores[row][column] for row, column in zip(rows, columns, strict=True)))


def _alike(spans: list[str], golds: list[str]) -> bool:
    return set(spans) == set(golds) and len(spans) == len(golds)


def _spans(text: str) -> list[str]:
    return [drop_normalised(span) for span in text.split(SPAN_SEPARATOR)]


def _word(word: str) -> str:
    bare = word if _is_number(word) else word.translate(PUNCTUATION)
    return str(float(bare)) if _is_number(bare) else ARTICLES.sub(" ", bare)


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
    """F1 of two sets of words; 0 where the gold has numbers and the span has none of them."""
    numbers = {word for word in gold if _is_number(word)}
    if numbers and not numbers & span:
        return 0.0
    both = len(gold & span)
    precision = both / len(span) if span else 1.0
    recall = both / len(gold) if gold else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
