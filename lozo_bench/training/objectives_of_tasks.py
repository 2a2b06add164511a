"""The objective and the evaluators of a run, which may have several tasks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from lozo_bench.config.schema import Config
from lozo_bench.config.several import task_configs
from lozo_bench.data.sets import Data
from lozo_bench.evaluation.evaluate import Evaluator
from lozo_bench.evaluation.several import EvaluatorByTask
from lozo_bench.models.load import Loaded
from lozo_bench.objectives.losses import Objective
from lozo_bench.objectives.options import Scorer
from lozo_bench.objectives.several import ObjectiveByTask
from lozo_bench.training.objective_and_metrics import SETS, objective_and_evaluators
from lozo_bench.tuning.base import Tuned


def objectives_of_tasks(
    config: Config,
    with_features: bool,
    loaded: Loaded,
    tuned: Tuned,
    data: Data,
    scorer_of: Callable[[Data], Scorer],
) -> tuple[Objective, dict[str, Evaluator]]:
    """Return the objective, and the evaluator of each set by the set's name.

    Args:
        config: of the run.
        with_features: see `objective_and_evaluators`.
        loaded: the model and its tokenizer.
        tuned: what is trained of it.
        data: the rows, of each task if there are several.
        scorer_of: returns how the options of a task's rows are scored.
    """
    tasks = data.tasks or {"": data}
    made = {
        name: objective_and_evaluators(
            one, with_features, loaded, tuned, tasks[name], scorer_of(tasks[name])
        )
        for name, one in task_configs(config).items()
    }
    if not data.tasks:
        return made[""]
    by_task = {name: evaluators for name, (_, evaluators) in made.items()}
    objective = ObjectiveByTask(_shared(data, {name: each for name, (each, _) in made.items()}))
    return objective, {
        name: EvaluatorByTask(
            {task: evaluators[name] for task, evaluators in by_task.items()}, config.task.held_out
        )
        for name in SETS
    }


def _shared(data: Data, objectives: Mapping[str, Objective]) -> dict[str, Objective]:
    """Return each trained task's objective; tasks that share micro-batches have the same one."""
    first: dict[Hashable, Objective] = {}
    return {
        name: first.setdefault(data.kind(part.train[0]), objectives[name])
        for name, part in data.tasks.items()
        if part.train
    }
