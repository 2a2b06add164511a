"""Rows with the model's answers as JSON objects, and how often each answer was given for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lozo_bench.evaluation.answers import Answer
from lozo_bench.tasks.base import Encoded

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Wording:
    """How the rows of a task are shown.

    Args:
        decode: turns tokens into text.
        label_ids: the words of a masked model's options; empty for other models.
        names: the names of the classes in order; empty if the task has none.
    """

    decode: Decode
    label_ids: Sequence[int] = ()
    names: Sequence[str] = field(default_factory=list)


def prediction(
    example: Encoded, answer: Answer, wording: Wording, labelled: bool = True
) -> dict[str, Any]:
    """Return a row and its answer.

    The keys are ``text``, what the model read; ``options``, their ``scores``, and ``choice``; or
    ``answer`` if it is written. Labelled rows have ``gold``, or ``golds`` if there are several.
    """
    task = {"task": example.task} if example.task else {}
    if not answer.scores:
        golds = {"golds": list(example.answers)} if labelled else {}
        return task | {"text": wording.decode(example.prompt), "answer": answer.text} | golds
    options = _options(example, answer, wording)
    names = wording.names if len(wording.names) == len(options) else [o.strip() for o in options]
    row = {
        "text": _text(example, wording),
        "options": options,
        "scores": [round(score, 6) for score in answer.scores],
        "choice": names[answer.choice],
    }
    if labelled and len(example.golds) > 1:
        row["golds"] = [names[i] for i in example.golds]
    elif labelled:
        row["gold"] = names[example.label]
    return task | row


def confusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]] | None:
    """Return how often each choice was made for each gold class, by name; None without classes.

    Rows with options of their own have no classes in common.
    """
    options = {tuple(row.get("options", ())) for row in rows}
    if len(options) != 1 or not all("gold" in row for row in rows):
        return None
    counts = Counter((row["gold"], row["choice"]) for row in rows)
    names = sorted({name for pair in counts for name in pair})
    return {gold: {choice: counts[gold, choice] for choice in names} for gold in names}


def _options(example: Encoded, answer: Answer, wording: Wording) -> list[str]:
    if wording.label_ids:
        return [wording.decode([token]) for token in wording.label_ids]
    if len(example.rows) == len(answer.scores) and any(example.answer):
        pairs = zip(example.rows, example.answer, strict=True)
        return [wording.decode([row[i] for i in at]) for row, at in pairs]
    return [str(i) for i in range(len(answer.scores))]  # a classification head has no words


def _text(example: Encoded, wording: Wording) -> str:
    """Return what comes before the options; of one row for all options, the whole row."""
    row, at = example.rows[0], example.answer[0]
    causal = len(example.rows) > 1 and bool(at)
    return wording.decode(row[: min(at)] if causal else row)
