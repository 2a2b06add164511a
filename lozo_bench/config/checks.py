"""Config checks that types cannot express: ranges, and which settings go together."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from lozo_bench.config.prompts import bad_prompts, check_prompt_suits
from lozo_bench.config.schema import (
    CARDS,
    Config,
    Dtype,
    EstimateConfig,
    EvaluationConfig,
    Kind,
    LossKind,
    Metric,
    Minimize,
    Select,
    TaskConfig,
    TrainAs,
)
from lozo_bench.config.several import of_task, task_configs
from lozo_bench.config.several_checks import bad_several
from lozo_bench.errors import UserError, bad_value, did_you_mean, raise_all


def check_keys(plain: Mapping[str, Any], schema: Any = Config, node: str = "") -> None:
    """Refuse keys that the schema does not have.

    Hydra itself refuses such keys unless they are given as ``+key=value``.

    Args:
        plain: the config, or one node of it, as plain values.
        schema: the dataclass that lists the allowed keys.
        node: the full key of ``plain`` in the config; empty for the root.

    Raises:
        UserError: lists every unknown key, each with the keys that exist beside it.
    """
    raise_all(_unknown_keys(plain, schema, node))


def _unknown_keys(plain: Mapping[str, Any], schema: Any, node: str) -> Iterator[UserError]:
    hints = typing.get_type_hints(schema)
    for name, value in plain.items():
        if name not in hints:
            where = f"; {node} has: " if node else "; there are: "
            yield UserError(
                f"{node}{'.' if node else ''}{name}: no such key{did_you_mean(name, hints)}"
                f"{where}{', '.join(hints)}"
            )
        elif dataclasses.is_dataclass(hints[name]):
            yield from _unknown_keys(value, hints[name], f"{node}.{name}".lstrip("."))
        elif node == "task" and name == "tasks":
            for task, keys in value.items():
                yield from _unknown_keys(keys, TaskConfig, f"task.tasks.{task}")


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Options of optimizers that no method takes below 0; each class checks all of its own.
_NOT_NEGATIVE = {"lr", "lr_p", "lr_s", "weight_decay"}
_LARGEST_SEED = 2**32 - 1  # the largest seed of numpy's RandomState, which draws demonstrations
_PROJECT = re.compile(r"[^/\\#?%:]{1,128}")  # the project names that wandb accepts


def check(config: Config) -> None:
    """Check the ranges that types cannot express.

    Raises:
        UserError: lists every key whose value is not allowed, one line for each.
    """
    raise_all(bad_values(config))


def bad_values(config: Config) -> Iterator[UserError]:
    """Yield an error for each key whose value is not in its range."""
    yield from _bad_counts(config)
    for key, name in {
        "model.name": config.model.name,
        "task.name": config.task.name,
        "sweep": config.sweep,
    }.items():
        if not _NAME.fullmatch(name):
            yield bad_value(key, name, "letters, digits, '.', '_' and '-': it names a folder")
    if config.model.autocast is not None:
        yield from _bad_autocast(config.model.autocast, config.model.dtype)
    yield from _bad_evaluation(config.evaluation)
    yield from _bad_perplexity(config)
    if config.patience is not None and config.task.select is Select.last:
        yield bad_value(
            "patience", config.patience, "null with task.select=last: no step is better"
        )
    for key in _NOT_NEGATIVE & config.optimizer.keys():
        value = config.optimizer[key]
        if isinstance(value, int | float) and value < 0:
            yield bad_value(f"optimizer.{key}", value, "a number >= 0")
    if config.max_seconds is not None and not 0 < config.max_seconds < float("inf"):
        yield bad_value("max_seconds", config.max_seconds, "a number of seconds > 0")
    if not 0 < config.hinge_margin < float("inf"):
        yield bad_value("hinge_margin", config.hinge_margin, "a number > 0")
    yield from _bad_estimate(config.estimate)
    yield from bad_several(config)
    for name, one in task_configs(config).items():
        yield from (of_task(name, error) for error in _bad_task(one))
    if not 0 < config.parallel.timeout_s < float("inf"):
        yield bad_value("parallel.timeout_s", config.parallel.timeout_s, "a number of seconds > 0")
    if not _PROJECT.fullmatch(config.tracking.project):
        yield bad_value("tracking.project", config.tracking.project, r"a name without / \ # ? % :")


def _bad_estimate(config: EstimateConfig) -> Iterator[UserError]:
    if config.card not in CARDS:
        allowed = f"{', '.join(CARDS)}{did_you_mean(config.card, CARDS)}"
        yield bad_value("estimate.card", config.card, allowed)
    if config.cards < 1:
        yield bad_value("estimate.cards", config.cards, "a whole number >= 1")


def _bad_counts(config: Config) -> Iterator[UserError]:
    counts = {
        "rank.value": config.rank.value,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "eval_batch_size": config.eval_batch_size,
        "eval_every": config.eval_every,
        "log_every": config.log_every,
        "checkpoint.every": config.checkpoint.every,
        "checkpoint.keep": config.checkpoint.keep,
    }
    if config.micro_batch_size is not None:
        counts["micro_batch_size"] = config.micro_batch_size
    if config.patience is not None:
        counts["patience"] = config.patience
    if config.max_queries is not None:
        counts["max_queries"] = config.max_queries
    if config.engine.candidates_per_forward is not None:
        counts["engine.candidates_per_forward"] = config.engine.candidates_per_forward
    for key, count in counts.items():
        if count < 1:
            yield bad_value(key, count, "a whole number >= 1")
    for key, count in {
        "seed.value": config.seed.value,
        "engine.max_rank": config.engine.max_rank,
        "engine.max_bad_steps": config.engine.max_bad_steps,
        "task.invented_rows": config.task.invented_rows,
        "evaluation.shots": config.evaluation.shots,
    }.items():
        if count < 0:
            yield bad_value(key, count, "a whole number >= 0")


def _bad_task(config: Config) -> Iterator[UserError]:
    yield from bad_prompts(config.task)
    if config.task.max_length < 1:
        yield bad_value("task.max_length", config.task.max_length, "a whole number >= 1")
    if config.loss is LossKind.hinge and config.task.train_as is TrainAs.language_model:
        allowed = "cross_entropy, because task.train_as=language_model has no wrong options"
        yield bad_value("loss", "hinge", allowed)


def _bad_perplexity(config: Config) -> Iterator[UserError]:
    if config.task.metric is not Metric.perplexity:
        return
    if config.task.select is Select.dev_metric:
        allowed = "dev_loss or last, because a lower task.metric=perplexity is better"
        yield bad_value("task.select", "dev_metric", allowed)
    if config.objective is Minimize.metric:
        allowed = "loss, of which task.metric=perplexity is the exponential"
        yield bad_value("objective", "metric", allowed)
    if config.predictions:
        yield bad_value("predictions", True, "false: with a perplexity there are no answers")


def _bad_evaluation(config: EvaluationConfig) -> Iterator[UserError]:
    if not 0 <= config.seed <= _LARGEST_SEED:
        yield bad_value("evaluation.seed", config.seed, f"a whole number from 0 to {_LARGEST_SEED}")
    if config.calibrate_shown and not config.calibrated:
        allowed = "false, as evaluation.calibrated is false"
        yield bad_value("evaluation.calibrate_shown", True, allowed)


def _bad_autocast(given: str, dtype: Dtype) -> Iterator[UserError]:
    if dtype is not Dtype.fp32:
        allowed = f"null, because model.dtype={dtype.value} is half precision already"
        yield bad_value("model.autocast", given, allowed)
    elif given not in ("bf16", "fp16"):
        yield bad_value("model.autocast", given, "null, bf16 or fp16")


def check_prompts(config: Config, kind: Kind) -> None:
    """Check that the task's prompt, answers and metric suit a model of this kind.

    Only the first mistake is reported, because each check relies on those before it.

    Raises:
        UserError: the task is for another kind of model, its words do not distinguish its classes,
            or its metric or training objective does not fit its answers.
    """
    task = config.task
    check_prompt_suits(task, kind)
    one_position = kind is not Kind.causal or task.joined
    if one_position and task.train_as is TrainAs.language_model:
        raise bad_value(
            "task.train_as",
            "language_model",
            f"classification: of task={task.name} a {kind.value} model scores the classes only",
        )
    if kind is Kind.classifier:
        _check_classes(task)
        return
    if kind is Kind.masked:
        other, needed, prompt = "causal", "task.template", task.template
        key, words = "task.label_words", task.label_words
    else:
        other, needed, prompt = "masked", "task.prompt", task.prompt
        key, words = "task.options", task.options
    if task.template is None and task.prompt is None:
        raise UserError(
            f"task={task.name}: a task for a classifier head, and model={config.model.name} is "
            f"{kind.value}; set model.kind=classifier, choose another task, or give {needed}"
        )
    if prompt is None:
        raise UserError(
            f"task={task.name}: a task for {other} models only, and model={config.model.name} is "
            f"{kind.value}; choose a {other} model, a task that has {needed}, or give {needed}"
        )
    _check_metric(task)
    own = task.source.get("options") and not task.source.get("same_options")
    if own and task.metric is not Metric.accuracy:
        allowed = "accuracy: every row has its own options, so there are no common classes"
        raise bad_value("task.metric", task.metric.value, allowed)
    if kind is Kind.causal and (task.answer is not None or task.source.get("options")):
        return  # the answer is written, or chosen among the options of its own row
    if len(words) < 2:
        raise bad_value(key, words, "at least two, one for each class")
    labels = task.source.get("labels")
    if labels is not None and len(labels) != len(words):
        raise bad_value(key, words, f"one for each of task.source.labels, which are {labels}")
    if len(set(words)) < len(words):
        raise bad_value(key, words, "words that are all different")


_WRITTEN = (Metric.squad, Metric.drop, Metric.drop_official, Metric.perplexity)


def _check_metric(task: TaskConfig) -> None:
    """Check that the metric and the training objective fit the kind of answer.

    Answers that are texts need a metric of text and train as language modelling. Answers
    that it chooses among options need a metric of choices.
    """
    written = task.answer is not None
    if written is not (task.metric in _WRITTEN):
        allowed = [metric.value for metric in Metric if (metric in _WRITTEN) is written]
        reason = "task.answer is given" if written else "task.answer is not given"
        raise bad_value("task.metric", task.metric.value, f"{', '.join(allowed)}, because {reason}")
    if written and task.train_as is TrainAs.classification:
        raise bad_value(
            "task.train_as", "classification", "language_model, because task.answer is given"
        )


def class_count(task: TaskConfig) -> int:
    """Return the number of classes of a classifier head.

    It is the number of labels; without labels, that of label words; without those, of options.
    """
    return len(task.source.get("labels") or task.label_words or task.options)


def _check_classes(task: TaskConfig) -> None:
    chosen = task.answer is None and not task.source.get("options")
    if not chosen or class_count(task) < 2:
        raise bad_value(
            "model.kind",
            Kind.classifier.value,
            f"causal or masked, because the rows of task={task.name} share no classes",
        )
    if len(task.texts) > 2:
        allowed = "one or two texts, because a classifier reads no more"
        raise bad_value("task.texts", task.texts, allowed)
    fields = task.source.get("fields", {})
    if len(fields) > 2 and not task.texts:
        raise bad_value(
            "model.kind",
            Kind.classifier.value,
            f"causal or masked: a classifier reads one or two texts, and task={task.name} has "
            f"{', '.join(fields)}; or give one or two texts with these fields as task.texts",
        )
