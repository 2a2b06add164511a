"""The rows of several tasks as the rows of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lozo_bench.config.schema import Config
from lozo_bench.config.several import in_task, task_configs
from lozo_bench.config.several_checks import check_kind
from lozo_bench.data.encode import encoded, prompt_for
from lozo_bench.data.sets import Data
from lozo_bench.models.load import Loaded
from lozo_bench.optimizers.base import Needs
from lozo_bench.tasks.base import Encoded, Splits
from lozo_bench.tuning.base import Tuned


def encoded_tasks(
    config: Config,
    splits: Mapping[str, Splits],
    loaded: Loaded,
    tuned: Tuned,
    needs: Needs | None,
) -> Data:
    """Return the rows of all tasks as tokens, each with its own task's prompt and options.

    Args:
        config: of the run.
        splits: the rows of each task by its name; the only task of a run has the name ''.
        loaded: the model and its tokenizer.
        tuned: what is trained of it.
        needs: of the optimizer; None: the run only evaluates.

    Raises:
        UserError: a task has no prompt for this model, a set is empty, or a row does not fit.
    """
    check_kind(config, loaded.kind)
    parts = {}
    for name, one in task_configs(config).items():
        with in_task(name):
            prompt = prompt_for(one, loaded, tuned.virtual_tokens)
            held_out = name in config.task.held_out
            parts[name] = encoded(one, splits[name], prompt, loaded, tuned, needs, held_out)
    return parts[""] if "" in parts else together(parts)


def together(parts: Mapping[str, Data]) -> Data:
    """Return the rows of all tasks as one set of data, one task after the other."""
    tasks = {
        name: replace(
            part,
            train=_named(name, part.train),
            dev=_named(name, part.dev),
            test=_named(name, part.test),
        )
        for name, part in parts.items()
    }
    return Data(
        train=[row for part in tasks.values() for row in part.train],
        dev=[row for part in tasks.values() for row in part.dev],
        test=[row for part in tasks.values() for row in part.test],
        layout=next(iter(tasks.values())).layout,
        tasks=tasks,
    )


def _named(task: str, rows: Sequence[Encoded]) -> list[Encoded]:
    return [replace(row, task=task) for row in rows]
