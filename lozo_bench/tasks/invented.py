"""Made-up rows for a task, with which the whole program can run without the task's data."""

from __future__ import annotations

import logging
import string
from collections.abc import Iterator
from itertools import islice

from lozo_bench.config.checks import class_count
from lozo_bench.config.schema import TaskConfig
from lozo_bench.tasks import grammar
from lozo_bench.tasks.base import Example, Splits
from lozo_bench.tasks.masked import SENTENCE
from lozo_bench.tasks.template import BLANK

log = logging.getLogger(__name__)
_OPTIONS = 3  # the number of options of a row, if the task itself has none


def invented(task: TaskConfig, seed: int) -> Splits:
    """Make up ``task.invented_rows`` rows for each set from sentences of the synthetic grammar.

    The rows have the fields that the task's texts refer to, and their labels alternate. They have
    their own options if the task has none. If the model generates answers, the answers are part of
    the first field. The text of a row has nothing to do with its label.

    Args:
        task: The config of the task.
        seed: Seed of the train and dev rows. The test rows are the same for every seed.
    """
    log.warning(
        "the rows are made up (task.invented_rows=%d): the results of this run say nothing "
        "about %s",
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
        name: _add_blank(sentence) if name in _fields_with_blank(task) else sentence
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
    """Return the names of the fields that the task's texts refer to.

    The template for masked models refers to fields by number, so unnamed fields are added until
    there are enough of them.
    """
    if task.template is None and task.prompt is None and not task.texts:  # for classifier heads
        return list(task.source["fields"])
    names = [name for name, _ in _placeholders(task)]
    matches = [SENTENCE.fullmatch(part) for part in (task.template or "").split("*")]
    needed = max((int(match["index"]) + 1 for match in matches if match), default=0)
    names += [f"sentence_{number}" for number in range(len(set(names)), needed)]
    return list(dict.fromkeys(names))


def _fields_with_blank(task: TaskConfig) -> set[str]:
    return {name for name, filters in _placeholders(task) if filters.endswith("_blank")}


def _add_blank(sentence: str) -> str:
    first, _, rest = sentence.partition(" ")
    return f"{first} {BLANK} {rest}"


def _placeholders(task: TaskConfig) -> Iterator[tuple[str, str]]:
    """Yield the field and the filters of every ``{field:filters}`` in the task's texts.

    The template of an answer is left out, because ``{answer}`` is not a field.
    """
    for text in (task.prompt, *task.texts, *task.options, task.calibration):
        for _, name, filters, _ in string.Formatter().parse(text or ""):
            if name:
                yield name, filters or ""


def _distinct(sentences: Iterator[str]) -> Iterator[str]:
    """Yield each sentence once."""
    seen = set()
    for sentence in sentences:
        if sentence not in seen:
            seen.add(sentence)
            yield sentence
