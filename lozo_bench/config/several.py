"""Several tasks in one run: each has a config of its own, that of a run with this task alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lozo_bench.config.prompts import with_chosen_prompt
from lozo_bench.config.schema import Config, Prompts, TaskConfig
from lozo_bench.errors import CombinedError, UserError

_OF_ONE_TASK = re.compile(r"^task\.tasks\.[^.]+\.")
_KEYS = "|".join(each.name for each in dataclasses.fields(TaskConfig))
_A_KEY = re.compile(rf"(?<![\w./-])task\.(?=(?:{_KEYS})\b)")


def task_configs(config: Config) -> dict[str, Config]:
    """Return the config of each task by its name; that of a run with one task has the name ''.

    A task's ``select`` and its made-up rows are those of the run, and so is an empty prompt.
    """
    if not config.task.tasks:
        return {"": config}
    return {
        name: dataclasses.replace(config, task=_of_the_run(name, task, config.task))
        for name, task in config.task.tasks.items()
    }


def trained_tasks(tasks: Mapping[str, Any], held_out: list[str]) -> list[str]:
    """Return the names of the tasks that are not held out."""
    return [str(name) for name in tasks if name not in held_out]


def single_key(key: str) -> str:
    """Return the key that a value has in a run with one task: task.tasks.rte.name is task.name."""
    return _OF_ONE_TASK.sub("task.", key)


@contextmanager
def in_task(name: str) -> Iterator[None]:
    """Inside this context, errors name the keys of this task; the only one of a run has no name."""
    try:
        yield
    except UserError as error:
        raise of_task(name, error) from error


def of_task(name: str, error: UserError) -> UserError:
    """Return the error with its keys below ``task.tasks`` and the name of the task."""
    if not name:
        return error
    if isinstance(error, CombinedError):
        return CombinedError([of_task(name, each) for each in error.errors])
    return UserError(_A_KEY.sub(f"task.tasks.{name}.", str(error)))


def _of_the_run(name: str, task: TaskConfig, run: TaskConfig) -> TaskConfig:
    prompts = task.prompts if run.prompts is Prompts.published else run.prompts
    task = dataclasses.replace(task, name=name, select=run.select, prompts=prompts)
    task = with_chosen_prompt(task)
    if not run.invented_rows:
        return task
    return dataclasses.replace(
        task,
        invented_rows=run.invented_rows,
        max_length=min(task.max_length, run.max_length),
        max_new_tokens=min(task.max_new_tokens, run.max_new_tokens),
    )
