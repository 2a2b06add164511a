"""Config checks of ranges and combinations that types cannot express."""

from __future__ import annotations

import dataclasses

import pytest

from lozo_bench.config.checks import check, check_keys, check_prompts, class_count
from lozo_bench.config.schema import (
    Config,
    Kind,
    LossKind,
    Metric,
    ModelConfig,
    RankConfig,
    SeedConfig,
    TaskConfig,
    TrackingConfig,
    TrainAs,
)
from lozo_bench.errors import UserError

MODEL = ModelConfig(name="m", path="p")
TASK = TaskConfig(name="t", prompt="{x}", options=[" a", " b"])
BY_TOKENS = dataclasses.replace(TASK, train_as=TrainAs.language_model)


def config(**changes):
    return Config(**{"model": MODEL, "task": TASK} | changes)


def test_a_valid_config_passes_all_checks():
    check(config())
    check_prompts(config(), Kind.causal)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": RankConfig(0)}, "rank.value: given 0; allowed: a whole number >= 1"),
        ({"seed": SeedConfig(-1)}, "seed.value: given -1; allowed: a whole number >= 0"),
        ({"steps": 0}, "steps: given 0; allowed: a whole number >= 1"),
        ({"batch_size": -4}, "batch_size: given -4; allowed: a whole number >= 1"),
        ({"hinge_margin": 0.0}, "hinge_margin: given 0.0; allowed: a number > 0"),
        (
            {"loss": LossKind.hinge, "task": BY_TOKENS},
            "loss: given 'hinge'; allowed: cross_entropy, because task.train_as=language_model has "
            "no wrong options",
        ),
        (
            {"task": TaskConfig(name="t", metric=Metric.perplexity)},
            "task.select: given 'dev_metric'; allowed: dev_loss or last, because a lower "
            "task.metric=perplexity is better",
        ),
        ({"eval_every": 0}, "eval_every: given 0; allowed: a whole number >= 1"),
        (
            {"tracking": TrackingConfig(project="a/b")},
            "tracking.project: given 'a/b'; allowed: a name without / \\ # ? % :",
        ),
        (
            {"sweep": "../up"},
            "sweep: given '../up'; allowed: letters, digits, '.', '_' and '-': it names a folder",
        ),
    ],
)
def test_one_bad_value_is_reported_in_one_line(changes, message):
    with pytest.raises(UserError) as caught:
        check(config(**changes))
    assert str(caught.value) == message


def test_all_bad_values_of_a_config_are_reported_at_once_one_line_each():
    with pytest.raises(UserError) as caught:
        check(config(steps=0, rank=RankConfig(0), seed=SeedConfig(-1), sweep="../up"))
    assert str(caught.value).splitlines() == [
        "rank.value: given 0; allowed: a whole number >= 1",
        "steps: given 0; allowed: a whole number >= 1",
        "seed.value: given -1; allowed: a whole number >= 0",
        "sweep: given '../up'; allowed: letters, digits, '.', '_' and '-': it names a folder",
    ]


def test_all_unknown_keys_of_a_config_are_reported_at_once_one_line_each():
    with pytest.raises(UserError) as caught:
        check_keys({"stepz": 1, "model": {"name": "m", "pth": "p"}, "seed": {"value": 0}})
    first, second = str(caught.value).splitlines()
    assert first.startswith("stepz: no such key (did you mean 'steps'?); there are: ")
    assert second.startswith("model.pth: no such key (did you mean 'path'?); model has: ")


@pytest.mark.parametrize(
    ("task", "classes"),
    [
        (TASK, 2),
        (TaskConfig(name="t", label_words=["a", "b", "c"]), 3),
        (TaskConfig(name="t", prompt="x", options=["a"], source={"labels": ["0", "1"]}), 2),
    ],
)
def test_the_number_of_classes_is_that_of_labels_else_words_else_options(task, classes):
    assert class_count(task) == classes
    check_prompts(config(task=task), Kind.classifier)


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        (TASK, Kind.masked, "a task for causal models only, and model=m is masked"),
        (
            TaskConfig(name="t", template="*mask*", label_words=["a", "b"]),
            Kind.causal,
            "a task for masked models only, and model=m is causal",
        ),
        (
            TaskConfig(name="t", prompt="x", options=[" a"]),
            Kind.causal,
            "task.options: given [' a']; allowed: at least two, one for each class",
        ),
        (
            TaskConfig(name="t", prompt="x", options=[" a", " b"], source={"labels": ["0"]}),
            Kind.causal,
            "task.options: given [' a', ' b']; allowed: one for each of task.source.labels",
        ),
        (
            TaskConfig(name="t", template="*mask*", label_words=["a", "a"]),
            Kind.masked,
            "task.label_words: given ['a', 'a']; allowed: words that are all different",
        ),
        (
            TaskConfig(name="t", source={"labels": ["0", "1"]}),
            Kind.masked,
            "a task for a classifier head, and model=m is masked; set model.kind=classifier",
        ),
        (
            TaskConfig(name="t", prompt="x", answer="{answer}", options=["a", "b"]),
            Kind.classifier,
            "allowed: causal or masked, because the rows of task=t share no classes",
        ),
        (
            TaskConfig(
                name="t", prompt="x", source={"options": {"column": "x"}, "labels": ["0", "1"]}
            ),
            Kind.classifier,
            "allowed: causal or masked, because the rows of task=t share no classes",
        ),
        (
            TaskConfig(name="t", source={"labels": ["0", "1"], "fields": {"a": 1, "b": 2, "c": 3}}),
            Kind.classifier,
            "a classifier reads one or two texts, and task=t has a, b, c",
        ),
        (
            dataclasses.replace(TASK, joined=True, train_as=TrainAs.language_model),
            Kind.causal,
            "task.train_as: given 'language_model'; allowed: classification: of task=t a causal",
        ),
        (
            dataclasses.replace(TASK, train_as=TrainAs.language_model),
            Kind.masked,
            "task.train_as: given 'language_model'; allowed: classification: of task=t a masked",
        ),
    ],
)
def test_a_task_that_does_not_suit_the_model_is_refused(task, kind, message):
    with pytest.raises(UserError) as caught:
        check_prompts(config(task=task), kind)
    assert message in str(caught.value)
