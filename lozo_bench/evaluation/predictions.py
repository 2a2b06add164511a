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
    example: Encoded,
    answer: Answer,
    wording: Wording,
    labelled: bool = True,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a row and its answer.

    The keys are ``text``, what the model read; ``options``, their ``scores``, and ``choice``; or
    ``answer`` if it is written. Labelled rows have ``gold``, or ``golds`` if there are several.
    ``row`` has the columns that the row has in the user's file, if it is from there.
    """
    task: dict[str, Any] = {"task": example.task} if example.task else {}
    task |= {"row": dict(own)} if own is not None else {}
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


class Confusion:
    """How often each choice was made for each gold class, counted row by row."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._options: set[tuple[str, ...]] = set()
        self.rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row that `prediction` returned."""
        self.rows += 1
        if len(self._options) < 2:  # rows with options of their own have no classes in common
            self._options.add(tuple(row.get("options", ())) if "gold" in row else ())
            self._counts[row.get("gold", ""), row.get("choice", "")] += 1

    def table(self) -> dict[str, dict[str, int]] | None:
        """Return the counts by gold class and choice; None if the rows do not share classes."""
        if len(self._options) != 1 or () in self._options:
            return None
        names = sorted({name for pair in self._counts for name in pair})
        return {gold: {name: self._counts[gold, name] for name in names} for gold in names}


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
