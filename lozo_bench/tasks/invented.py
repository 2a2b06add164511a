"""Rows that are made up for a task, so that every one of its parts can run without its data."""

from __future__ import annotations

import logging
import string
from collections.abc import Iterator
from itertools import islice

from lozo_bench.checks import class_count
from lozo_bench.config import TaskConfig
from lozo_bench.tasks import grammar
from lozo_bench.tasks.base import Example, Splits
from lozo_bench.tasks.forms import BLANK
from lozo_bench.tasks.masked import SENTENCE

log = logging.getLogger(__name__)
_OPTIONS = 3  # of a row that has its own


def invented(task: TaskConfig, seed: int) -> Splits:
    """``task.invented_rows`` rows for each set, of sentences of the synthetic grammar.

    They have the fields that the task's texts name, the labels in turn, options of their own where
    the task has none, and answers that stand in the first field where answers are written. What a
    row says has nothing to do with its label. Train and dev rows follow ``seed``.
    """
    log.warning(
        "the rows are made up (task.invented_rows=%d): no number here says anything about %s",
        task.invented_rows,
        task.name,
    )
    keys = {"train": f"seed {seed}", "dev": f"seed {seed}", "test": "fixed"}
    sets = {
        split: [
            _row(task, number, sentences, f"{task.name}:{split}:{number}, made up")
            for number in range(1, task.invented_rows + 1)
        ]
        for split, key in keys.items()
        for sentences in [_distinct(grammar.plain(split, key))]
    }
    return Splits(train=sets["train"], dev=sets["dev"], test=sets["test"])


def _row(task: TaskConfig, number: int, sentences: Iterator[str], where: str) -> Example:
    fields = {
        name: _with_blank(sentence) if name in _with_blanks(task) else sentence
        for name, sentence in zip(_fields(task), sentences, strict=False)
    }
    if task.answer is not None:
        words = next(iter(fields.values())).rstrip(".?!").split()
        return Example(fields, where=where, answers=(words[-1], " ".join(words[-2:])))
    classes = 0 if task.source.get("options") else class_count(task)
    if classes:
        return Example(fields, (number - 1) % classes, where)
    options = tuple(islice(sentences, _OPTIONS))
    return Example(fields, (number - 1) % _OPTIONS, where, options)


def _fields(task: TaskConfig) -> list[str]:
    """The fields that prompts for causal models name; then as many as one for masked ones needs."""
    if task.template is None and task.prompt is None:  # a classifier's
        return list(task.source["fields"])
    names = [name for name, _ in _slots(task)]
    found = [SENTENCE.fullmatch(part) for part in (task.template or "").split("*")]
    needed = max((int(part["index"]) + 1 for part in found if part), default=0)
    names += [f"sentence_{number}" for number in range(len(set(names)), needed)]
    return list(dict.fromkeys(names))


def _with_blanks(task: TaskConfig) -> set[str]:
    return {name for name, form in _slots(task) if f"{form},".endswith("_blank,")}


def _with_blank(sentence: str) -> str:
    first, _, rest = sentence.partition(" ")
    return f"{first} {BLANK} {rest}"


def _slots(task: TaskConfig) -> Iterator[tuple[str, str]]:
    """Every ``{field:form}`` of the task's texts."""
    for text in (task.prompt, *task.options, task.calibration):  # what is in an answer is no field
        for _, name, form, _ in string.Formatter().parse(text or ""):
            if name:
                yield name, form or ""


def _distinct(sentences: Iterator[str]) -> Iterator[str]:
    seen = set()
    for sentence in sentences:
        if sentence not in seen:
            seen.add(sentence)
            yield sentence
