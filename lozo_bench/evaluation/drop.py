"""DROP's own metric: exact match and F1 of answers that may be several spans.

Source: Dua et al., 2019, section 5, and the evaluation that AllenNLP has of it (drop_eval.py).
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

from lozo_bench.tasks.records import SPAN_SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
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
    """The largest sum of scores with at most one of each row and each column.

    The Hungarian method with potentials (Kuhn, 1955; Jonker and Volgenant, 1987) on costs
    ``-scores``, O(rows^2 columns).
    """
    rows, columns = len(scores), len(scores[0])
    if rows > columns:
        return largest_sum(list(zip(*scores, strict=True)))
    row_price, column_price = [0.0] * rows, [0.0] * columns
    owner: list[int | None] = [None] * columns
    for new in range(rows):
        _give_a_column(new, scores, row_price, column_price, owner)
    return sum(scores[row][column] for column, row in enumerate(owner) if row is not None)


def _give_a_column(
    new: int,
    scores: Sequence[Sequence[float]],
    row_price: list[float],
    column_price: list[float],
    owner: list[int | None],
) -> None:
    """Grow the pairing by row ``new``: along the cheapest alternating path to a free column."""
    columns = len(owner)
    slack, before = [float("inf")] * columns, [-1] * columns
    reached: list[int] = []
    row, last = new, -1
    while True:
        for column in range(columns):
            if column in reached:
                continue
            cost = -scores[row][column] - row_price[row] - column_price[column]
            if cost < slack[column]:
                slack[column], before[column] = cost, last
        last = min((c for c in range(columns) if c not in reached), key=slack.__getitem__)
        step = slack[last]
        row_price[new] += step
        for column in range(columns):
            if column in reached:
                held = owner[column]
                assert held is not None
                row_price[held] += step
                column_price[column] -= step
            else:
                slack[column] -= step
        reached.append(last)
        held = owner[last]
        if held is None:
            break
        row = held
    while before[last] >= 0:
        owner[last] = owner[before[last]]
        last = before[last]
    owner[last] = new


def _alike(spans: list[str], golds: list[str]) -> bool:
    return set(spans) == set(golds) and len(spans) == len(golds)


def _spans(text: str) -> list[str]:
    return [drop_normalised(span) for span in text.split(SPAN_SEPARATOR)]


def _word(word: str) -> str:
    bare = word if _is_number(word) else word.translate(_PUNCTUATION)
    return str(float(bare)) if _is_number(bare) else _ARTICLES.sub(" ", bare)


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
