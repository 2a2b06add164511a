"""The rows of a run's tasks: read from their sources, or made up."""

from __future__ import annotations

from lozo_bench.config.schema import Config
from lozo_bench.config.several import in_task, task_configs
from lozo_bench.tasks.base import ReadsTest, Source, Splits
from lozo_bench.tasks.invented import invented
from lozo_bench.training.plan import Plan


def splits_of_tasks(config: Config, plan: Plan) -> dict[str, Splits]:
    """Return the rows of each task by its name; the only task of a run has the name ''.

    Raises:
        UserError: rows cannot be read, or one is malformed.
    """
    splits = {}
    for name, one in task_configs(config).items():
        with in_task(name):
            if one.task.invented_rows:
                splits[name] = invented(one.task, config.seed.value)
            elif name in config.task.held_out:
                splits[name] = _for_test(plan.sources[name])
            else:
                splits[name] = plan.sources[name].splits()
    return splits


def _for_test(source: Source) -> Splits:
    """Return the rows of a task that is held out; the others are read for demonstrations only."""
    if not isinstance(source, ReadsTest):
        return source.splits()
    return Splits(test=source.test(), pool=lambda: source.splits().train)
