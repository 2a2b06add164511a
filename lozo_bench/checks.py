"""The checks of a config that a type cannot express: ranges, and what goes together."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

from lozo_bench.config import Config, Dtype, Kind, Metric, TaskConfig, TrainAs
from lozo_bench.errors import UserError, bad_value, did_you_mean


def check_keys(plain: Mapping[str, Any], schema: Any = Config, node: str = "") -> None:
    """Refuse keys that the schema does not have; ``+key=value`` gets them past Hydra.

    Raises:
        UserError: naming the key and those there are.
    """
    hints = typing.get_type_hints(schema)
    for name, value in plain.items():
        if name not in hints:
            where = f"; {node} has: " if node else "; there are: "
            raise UserError(
                f"{node}{'.' if node else ''}{name}: no such key{did_you_mean(name, hints)}"
                f"{where}{', '.join(hints)}"
            )
        if dataclasses.is_dataclass(hints[name]):
            check_keys(value, hints[name], f"{node}.{name}".lstrip("."))


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LARGEST_SEED = 2**32 - 1  # of numpy's RandomState, which the published demonstrations use
_PROJECT = re.compile(r"[^/\\#?%:]{1,128}")  # what wandb takes


def check(config: Config) -> None:
    """Check the ranges that types cannot express.

    Raises:
        UserError: the first key that is out of range.
    """
    counts = {
        "rank.value": config.rank.value,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "eval_batch_size": config.eval_batch_size,
        "eval_every": config.eval_every,
        "log_every": config.log_every,
        "task.max_length": config.task.max_length,
        "checkpoint.every": config.checkpoint.every,
        "checkpoint.keep": config.checkpoint.keep,
    }
    if config.micro_batch_size is not None:
        counts["micro_batch_size"] = config.micro_batch_size
    if config.engine.candidates_per_forward is not None:
        counts["engine.candidates_per_forward"] = config.engine.candidates_per_forward
    for key, count in counts.items():
        if count < 1:
            raise bad_value(key, count, "a whole number >= 1")
    for key, count in {
        "seed.value": config.seed.value,
        "engine.max_rank": config.engine.max_rank,
        "engine.max_bad_steps": config.engine.max_bad_steps,
        "task.invented_rows": config.task.invented_rows,
        "evaluation.shots": config.evaluation.shots,
    }.items():
        if count < 0:
            raise bad_value(key, count, "a whole number >= 0")
    for key, name in {
        "model.name": config.model.name,
        "task.name": config.task.name,
        "sweep": config.sweep,
    }.items():
        if not _NAME.fullmatch(name):
            raise bad_value(key, name, "letters, digits, '.', '_' and '-': it names a folder")
    if config.model.autocast is not None:
        _check_autocast(config.model.autocast, config.model.dtype)
    evaluation = config.evaluation
    if not 0 <= evaluation.seed <= _LARGEST_SEED:
        allowed = f"a whole number from 0 to {_LARGEST_SEED}"
        raise bad_value("evaluation.seed", evaluation.seed, allowed)
    if evaluation.calibrate_shown and not evaluation.calibrated:
        allowed = "false, as evaluation.calibrated is false"
        raise bad_value("evaluation.calibrate_shown", True, allowed)
    if not 0 < config.parallel.timeout_s < float("inf"):
        raise bad_value("parallel.timeout_s", config.parallel.timeout_s, "a number of seconds > 0")
    if not _PROJECT.fullmatch(config.tracking.project):
        raise bad_value("tracking.project", config.tracking.project, r"a name without / \ # ? % :")


def _check_autocast(given: str, dtype: Dtype) -> None:
    if dtype is not Dtype.fp32:
        raise bad_value("model.autocast", given, f"null, as model.dtype={dtype.value} is half")
    if given not in ("bf16", "fp16"):
        raise bad_value("model.autocast", given, "null, bf16 or fp16")


def check_prompts(config: Config, kind: Kind) -> None:
    """Check that the task has what a model of this kind is asked with.

    Raises:
        UserError: the task is for the other kind of model, or its words do not make classes.
    """
    task = config.task
    one_place = kind is not Kind.causal or task.joined
    if one_place and task.train_as is TrainAs.language_model:
        raise bad_value(
            "task.train_as",
            "language_model",
            f"classification: of task={task.name} a {kind.value} model gives no text, only scores",
        )
    if kind is Kind.classifier:
        _check_classes(task)
        return
    if kind is Kind.masked:
        other, asked, prompt = "causal", "task.template", task.template
        key, words = "task.label_words", task.label_words
    else:
        other, asked, prompt = "masked", "task.prompt", task.prompt
        key, words = "task.options", task.options
    if task.template is None and task.prompt is None:
        raise UserError(
            f"task={task.name}: a task for a classifier head, and model={config.model.name} is "
            f"{kind.value}; say model.kind=classifier, choose another task, or give {asked}"
        )
    if prompt is None:
        raise UserError(
            f"task={task.name}: a task for {other} models only, and model={config.model.name} is "
            f"{kind.value}; choose a {other} model, a task that has {asked}, or give {asked}"
        )
    _check_metric(task)
    if task.source.get("options") and task.metric is not Metric.accuracy:
        allowed = "accuracy: the rows have options of their own, and no classes in common"
        raise bad_value("task.metric", task.metric.value, allowed)
    if kind is Kind.causal and (task.answer is not None or task.source.get("options")):
        return  # written, or chosen among a row's own options
    if len(words) < 2:
        raise bad_value(key, words, "at least two, one for each class")
    labels = task.source.get("labels")
    if labels is not None and len(labels) != len(words):
        raise bad_value(key, words, f"as many as task.source.labels, which are {labels}")
    if len(set(words)) < len(words):
        raise bad_value(key, words, "words that differ from each other")


_WRITTEN = (Metric.squad, Metric.drop, Metric.drop_official)


def _check_metric(task: TaskConfig) -> None:
    """Written answers are judged as such and trained as text; chosen ones by what was chosen."""
    written = task.answer is not None
    if written is not (task.metric in _WRITTEN):
        allowed = [metric.value for metric in Metric if (metric in _WRITTEN) is written]
        what = "task.answer is given" if written else "task.answer is not given"
        raise bad_value("task.metric", task.metric.value, f"{', '.join(allowed)}, as {what}")
    if written and task.train_as is TrainAs.classification:
        raise bad_value("task.train_as", "classification", "language_model: answers are written")


def class_count(task: TaskConfig) -> int:
    """How many classes a classifier head has to tell apart: labels, else words or options."""
    return len(task.source.get("labels") or task.label_words or task.options)


def _check_classes(task: TaskConfig) -> None:
    chosen = task.answer is None and not task.source.get("options")
    if not chosen or class_count(task) < 2:
        raise bad_value(
            "model.kind",
            Kind.classifier.value,
            f"causal or masked, as the rows of task={task.name} have no classes in common",
        )
    fields = task.source.get("fields", {})
    if len(fields) > 2:
        raise bad_value(
            "model.kind",
            Kind.classifier.value,
            f"causal or masked: a classifier reads one text or two, and task={task.name} has "
            f"{', '.join(fields)}",
        )
