"""Checks of a run with several tasks: which they are, and what is said for all of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from lozo_bench.config.schema import Config, Kind, Metric, TaskConfig
from lozo_bench.config.several import trained_tasks
from lozo_bench.errors import UserError, bad_value, did_you_mean

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FOR_ALL = {"name", "version", "select", "prompts", "tasks", "held_out", "mix", "invented_rows"}
# What made-up rows are cut to.
_FOR_MADE_UP = {"max_length", "max_new_tokens"}


def bad_several(config: Config) -> Iterator[UserError]:
    """Yield what is wrong with the tasks of a run besides the values of each."""
    task = config.task
    if not task.tasks:
        if task.held_out:
            yield bad_value("task.held_out", task.held_out, "[], because there is a single task")
        return
    for name in task.tasks:
        if not _NAME.fullmatch(name):
            yield bad_value("task.tasks", name, "names of letters, digits, '_' and '-'")
    for name in task.held_out:
        if name not in task.tasks:
            known = f"the names in task.tasks, which are {', '.join(task.tasks)}"
            yield bad_value("task.held_out", name, known + did_you_mean(name, task.tasks))
    if not trained_tasks(task.tasks, task.held_out):
        yield bad_value("task.held_out", task.held_out, "all tasks but one or more to train")
    yield from _bad_beside(task)
    for name, one in task.tasks.items():
        if one.metric is Metric.perplexity:
            allowed = "a metric of which a higher value is better, for the mean over the tasks"
            yield bad_value(f"task.tasks.{name}.metric", "perplexity", allowed)
        if one.tasks or one.held_out:
            yield UserError(f"task.tasks.{name}.tasks: a task of several has no tasks of its own")


def check_kind(config: Config, kind: Kind) -> None:
    """Refuse several tasks for a model whose head has the classes of one.

    Raises:
        UserError: the model is a classifier.
    """
    if config.task.tasks and kind is Kind.classifier:
        allowed = "causal or masked: the head of a classifier has the classes of one task"
        raise bad_value("model.kind", kind.value, allowed)


def _bad_beside(task: TaskConfig) -> Iterator[UserError]:
    """Yield the keys beside ``task.tasks`` that would have no effect."""
    without_effect = {each.name for each in dataclasses.fields(task)} - _FOR_ALL
    if task.invented_rows:
        without_effect -= _FOR_MADE_UP
    if any(_is_in(one.data_dir, task.data_dir) for one in task.tasks.values()):
        without_effect.discard("data_dir")  # that of a collection
    none_given = TaskConfig(name=task.name)
    for name in sorted(without_effect):
        if (given := getattr(task, name)) != getattr(none_given, name):
            example = next(iter(task.tasks))
            allowed = f"it has no effect beside task.tasks; what to do: task.tasks.{example}.{name}"
            yield UserError(f"task.{name}: given {given!r}; {allowed}=... for each task")


def _is_in(folder: str | None, other: str | None) -> bool:
    return folder is not None and other is not None and Path(folder).parent == Path(other)
