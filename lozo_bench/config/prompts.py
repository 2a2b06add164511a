"""Which of a task's two prompts a causal model reads: the published one or the empty one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lozo_bench.config.schema import Kind, Prompts, TaskConfig
from lozo_bench.errors import UserError, bad_value


def with_chosen_prompt(task: TaskConfig) -> TaskConfig:
    """Return the task with the prompt that ``task.prompts`` chooses as its ``prompt``.

    The empty prompt has no words of its own, so its calibration text, without the row, is empty. A
    task that has no empty prompt is returned as it is; `bad_prompts` refuses it.
    """
    if task.prompts is Prompts.published or task.empty_prompt is None:
        return task
    calibration = None if task.calibration is None else ""
    return replace(task, prompt=task.empty_prompt, calibration=calibration)


def bad_prompts(task: TaskConfig, key: str = "task") -> Iterator[UserError]:
    """Yield an error if the task has no empty prompt and is to use it."""
    if task.prompts is Prompts.empty and task.empty_prompt is None:
        allowed = (
            f"published, because task={task.name} has no empty prompt; or give it one as "
            f"{key}.empty_prompt, a text with the fields of a row and no words of its own"
        )
        yield bad_value(f"{key}.prompts", "empty", allowed)


def check_prompt_suits(task: TaskConfig, kind: Kind, key: str = "task") -> None:
    """Refuse an empty prompt for a model that reads none.

    Raises:
        UserError: the model is not causal.
    """
    if task.prompts is Prompts.empty and kind is not Kind.causal:
        read = "the mask in task.template" if kind is Kind.masked else "no prompt"
        allowed = f"published, because a {kind.value} model reads {read}"
        raise bad_value(f"{key}.prompts", "empty", allowed)
