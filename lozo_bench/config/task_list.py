"""``task=[rte,sst2]`` on the command line: several tasks, as Hydra composes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lozo_bench.errors import UserError

_LIST = re.compile(r"task=\[([^][]*)\]")
_OPTION = re.compile(r"[\w./-]+")


def with_task_lists(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with each list of tasks as the option ``several`` and its tasks.

    Hydra itself would merge the tasks of a list into one.

    Raises:
        UserError: the list is empty, names a task twice, or has something else than names in it.
    """
    return [new for argument in arguments for new in _expanded(argument)]


def _expanded(argument: str) -> list[str]:
    if not (found := _LIST.fullmatch(argument.replace(" ", ""))):
        return [argument]
    options = [option.strip("'\"") for option in found[1].split(",")]
    for option in options:
        if not _OPTION.fullmatch(option):
            raise UserError(
                f"{argument}: given {option!r}; allowed: the names of tasks, as task=[rte,sst2]"
            )
    names = [option.rpartition("/")[2] for option in options]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(
            f"{argument}: {twice} is in it twice; what to do: name it once, or give two names: "
            f"task=several +task@task.tasks.a={twice} +task@task.tasks.b={twice}"
        )
    tasks = zip(names, options, strict=True)
    return ["task=several", *(f"+task@task.tasks.{name}={option}" for name, option in tasks)]
