"""Ranges and combinations that types cannot express."""

from __future__ import annotations

import dataclasses

import pytest

from lozo_bench.checks import check, check_prompts, class_count
from lozo_bench.config import (
    Config,
    Kind,
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


def config(**changes):
    return Config(**{"model": MODEL, "task": TASK} | changes)


def test_a_sound_config_passes():
    check(config())
    check_prompts(config(), Kind.causal)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": RankConfig(0)}, "rank.value: given 0; allowed: a whole number >= 1"),
        ({"seed": SeedConfig(-1)}, "seed.value: given -1; allowed: a whole number >= 0"),
        ({"steps": 0}, "steps: given 0; allowed: a whole number >= 1"),
        ({"batch_size": -4}, "batch_size: given -4; allowed: a whole number >= 1"),
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
def test_a_value_out_of_range_is_one_line(changes, message):
    with pytest.raises(UserError) as caught:
        check(config(**changes))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("task", "classes"),
    [
        (TASK, 2),
        (TaskConfig(name="t", label_words=["a", "b", "c"]), 3),
        (TaskConfig(name="t", prompt="x", options=["a"], source={"labels": ["0", "1"]}), 2),
    ],
)
def test_a_head_has_as_many_classes_as_there_are_labels_or_words(task, classes):
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
            "task.options: given [' a', ' b']; allowed: as many as task.source.labels, which are",
        ),
        (
            TaskConfig(name="t", template="*mask*", label_words=["a", "a"]),
            Kind.masked,
            "task.label_words: given ['a', 'a']; allowed: words that differ from each other",
        ),
        (
            TaskConfig(name="t", source={"labels": ["0", "1"]}),
            Kind.masked,
            "a task for a classifier head, and model=m is masked; say model.kind=classifier",
        ),
        (
            TaskConfig(name="t", prompt="x", answer="{answer}", options=["a", "b"]),
            Kind.classifier,
            "allowed: causal or masked, as the rows of task=t have no classes in common",
        ),
        (
            TaskConfig(
                name="t", prompt="x", source={"options": {"column": "x"}, "labels": ["0", "1"]}
            ),
            Kind.classifier,
            "allowed: causal or masked, as the rows of task=t have no classes in common",
        ),
        (
            TaskConfig(name="t", source={"labels": ["0", "1"], "fields": {"a": 1, "b": 2, "c": 3}}),
            Kind.classifier,
            "a classifier reads one text or two, and task=t has a, b, c",
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
def test_a_task_that_does_not_suit_the_model_is_told(task, kind, message):
    with pytest.raises(UserError) as caught:
        check_prompts(config(task=task), kind)
    assert message in str(caught.value)
