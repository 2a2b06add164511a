"""Several tasks in one run: how they are asked for, their own configs, and what is refused."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from lozo_bench.config.checks import check, check_keys
from lozo_bench.config.digest import digest
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config, Kind, Metric, Select, TaskConfig
from lozo_bench.config.several import in_task, task_configs
from lozo_bench.config.several_checks import check_kind
from lozo_bench.config.task_list import with_task_lists
from lozo_bench.errors import UserError, bad_value


def several(held_out=(), **values):
    tasks = {"rte": TaskConfig(name="rte", max_length=512), "cb": TaskConfig(name="cb")}
    task = TaskConfig(name="two", tasks=tasks, held_out=list(held_out), **values)
    config = Config(task=task)
    config.model.name = "m"
    return config


def test_a_list_of_tasks_is_several_tasks_each_under_its_name():
    arguments = ["-m", "task=[rte, mine/sst2]", "task.tasks.rte.max_length=9", "seed=s0,s1"]
    assert with_task_lists(arguments) == [
        "-m", "task=several", "+task@task.tasks.rte=rte", "+task@task.tasks.sst2=mine/sst2",
        "task.tasks.rte.max_length=9", "seed=s0,s1",
    ]  # fmt: skip
    assert with_task_lists(["task=rte", "task=rte,cb"]) == ["task=rte", "task=rte,cb"]


@pytest.mark.parametrize(
    ("argument", "line"),
    [("task=[rte,cb,rte]", "rte is in it twice; what to do: "), ("task=[]", "given ''; allowed: ")],
)
def test_a_list_that_is_no_list_of_tasks_is_refused(argument, line):
    with pytest.raises(UserError, match=rf"^{re.escape(argument)}: {re.escape(line)}"):
        with_task_lists([argument])


def test_the_config_of_each_task_is_that_of_a_run_with_it_alone():
    single = Config(task=TaskConfig(name="rte"))
    assert task_configs(single) == {"": single}
    configs = task_configs(several(select=Select.last, invented_rows=6, max_length=300))
    assert [one.task.name for one in configs.values()] == ["rte", "cb"]
    assert [one.task.max_length for one in configs.values()] == [300, 256]
    assert {one.task.select for one in configs.values()} == {Select.last}
    assert {one.task.invented_rows for one in configs.values()} == {6}


def test_an_error_in_a_task_names_its_full_key():
    with pytest.raises(UserError) as refused, in_task("rte"):
        raise bad_value("task.options", ["a"], "task.label_words; see /data/task.options")
    assert str(refused.value) == (
        "task.tasks.rte.options: given ['a']; allowed: task.tasks.rte.label_words; "
        "see /data/task.options"
    )


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (several(["rt"]), r"task\.held_out: given 'rt'.*rte, cb \(did you mean 'rte'\?\)"),
        (several(["rte", "cb"]), r"task\.held_out: .*allowed: all tasks but one or more to train"),
        (several(prompt="{a}"), r"task\.prompt: .*what to do: task\.tasks\.rte\.prompt="),
        (Config(task=TaskConfig(name="a", source={"x": 1}, held_out=["b"])), r"task\.held_out: "),
    ],
)
def test_what_does_not_fit_several_tasks_is_refused_in_one_line(config, line):
    config.model.name = "m"
    with pytest.raises(UserError, match=f"^{line}") as refused:
        check(config)
    assert "\n" not in str(refused.value)


def test_values_of_each_task_are_checked_and_its_keys_known():
    config = several()
    config.task.tasks["cb"].max_length = 0
    config.task.tasks["rte"].metric = Metric.perplexity
    with pytest.raises(UserError) as refused:
        check(config)
    assert [line.partition(": ")[0] for line in str(refused.value).splitlines()] == [
        "task.tasks.rte.metric", "task.tasks.cb.max_length",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"task\.tasks\.rte\.promt: no such key \(did you mean"):
        check_keys({"task": {"tasks": {"rte": {"promt": "x"}}}})
    with pytest.raises(UserError, match=r"^model\.kind: given 'classifier'"):
        check_kind(several(), Kind.classifier)


def test_keys_that_came_later_leave_the_digest_of_one_task_and_of_several_as_it_is():
    one = {"name": "t", "options": ["a"]}
    later = {"tasks": {}, "held_out": [], "mix": "rows", "texts": []}
    assert digest({"task": one}) == digest({"task": one | later})
    two = {"name": "s", "tasks": {"t": one}}
    assert digest({"task": two}) == digest({"task": {"name": "s", "tasks": {"t": one | later}}})
    assert digest({"task": two}) != digest({"task": two | {"held_out": ["t"]}})


def test_optimizers_learn_the_names_of_the_trained_tasks():
    register_resolver()
    config = OmegaConf.create({"names": "${task_names:}", "name": "${task_set:}"})
    assert config.names == []
    config.task = {"tasks": {name: {} for name in "abcdef"}, "held_out": ["b"]}
    assert config.names == ["a", "c", "d", "e", "f"]
    assert config.name == "a-b-c-d-2_more"
