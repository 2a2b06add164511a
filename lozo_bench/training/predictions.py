"""Writes what a run's model answers on its test rows, row by row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lozo_bench.config.schema import Config, Kind, TaskConfig
from lozo_bench.config.several import task_configs
from lozo_bench.evaluation.answers import Answers
from lozo_bench.evaluation.predictions import Wording, prediction
from lozo_bench.runs.atomic import write_text
from lozo_bench.training.build_run import BuiltRun

PREDICTIONS = "predictions.jsonl"


def write_predictions(config: Config, built: BuiltRun, folder: Path) -> Path:
    """Write ``predictions.jsonl`` with the test rows; the model has the tested step's weights."""
    test = built.parts.data.test
    answers = Answers(built.parts.evaluators["test"], test, config.eval_batch_size)
    words = wordings(config, built)
    rows = [prediction(e, a, words[e.task]) for e, a in zip(test, answers, strict=True)]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / PREDICTIONS, "".join(lines))
    return folder / PREDICTIONS


def wordings(config: Config, built: BuiltRun) -> dict[str, Wording]:
    """Return how the rows of each task are shown; the only task of a run has the name ''."""
    tokenizer, masked = built.loaded.tokenizer, built.loaded.kind is Kind.masked

    def decode(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=not masked))

    tasks = built.parts.data.tasks or {"": built.parts.data}
    return {
        name: Wording(decode, tasks[name].layout.label_ids if masked else (), names_of(one.task))
        for name, one in task_configs(config).items()
    }


def names_of(task: TaskConfig) -> list[str]:
    """Return the names of a task's classes: its labels, or else the words of its options."""
    labels = task.source.get("labels")
    return [str(label) for label in labels] if labels else [o.strip() for o in task.options]
