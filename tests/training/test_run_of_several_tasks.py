"""A run with several tasks: each keeps its own prompt, options and metric."""

from __future__ import annotations

import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from lozo_bench.config.paths import CONF
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config, TaskConfig
from lozo_bench.config.task_list import with_task_lists
from lozo_bench.errors import UserError
from lozo_bench.parallel.team import Team
from lozo_bench.tasks import synthetic
from lozo_bench.training.batcher import Batcher
from lozo_bench.training.build_run import build_run
from lozo_bench.training.checks import typed
from lozo_bench.training.plan import Plan, plan_run
from lozo_bench.training.replay import rebuild
from lozo_bench.training.splits import splits_of_tasks

COUNTS = {"train": 12, "dev": 6, "test": 6}


def sizes(at):
    return [f"{at}.source.{name}={count}" for name, count in COUNTS.items()]


def of(*tasks):
    """Return the overrides of a run with these tasks."""
    if len(tasks) == 1:
        return [f"task={tasks[0]}", *sizes("task")]
    own = [value for task in tasks for value in sizes(f"task.tasks.{task}")]
    return [f"task=[{','.join(tasks)}]", *own]


def built(*overrides):
    """Return the parts of a run before its first step."""
    register_resolver()
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", with_task_lists([*overrides, "tracking=files"]))
    config, _ = typed(composed)
    return build_run(config, plan_run(config), Team()).parts


@torch.inference_mode()
def loss(run, *numbers):
    parts = Batcher(run.data, run.objective, None).batch(numbers).parts
    return float(torch.cat([part.losses(1)[0] for part in parts]).double().mean())


@pytest.mark.parametrize("model", ["tiny_opt", "tiny_roberta"])
def test_a_mixed_batch_has_the_mean_loss_of_its_rows_each_by_its_own_options(model):
    both = built(*of("reviews", "topics"), f"model={model}")
    reviews, topics = (built(*of(task), f"model={model}") for task in ("reviews", "topics"))
    expected = (4 * loss(reviews, 0, 1, 2, 3) + 2 * loss(topics, 0, 1)) / 6
    assert loss(both, 12, 0, 1, 13, 2, 3) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["lozo", "reptile"])
def test_the_metrics_are_those_of_each_task_and_held_out_rows_are_not_read(
    optimizer, command, tmp_path, monkeypatch
):
    encoded = []
    rows = synthetic.Synthetic._rows

    class Watched(dict):
        def __getitem__(self, name):
            encoded.append(self.where)
            return super().__getitem__(name)

    def watched(self, split, key):
        for row in rows(self, split, key):
            fields = Watched(row.fields)
            fields.where = row.where
            object.__setattr__(row, "fields", fields)
            yield row

    monkeypatch.setattr(synthetic.Synthetic, "_rows", lambda *given: list(watched(*given)))
    train = ["steps=3", "eval_every=1", "batch_size=4", "tracking=files", "model.device=cpu"]
    choices = (*of("reviews", "topics", "entailment"), f"optimizer={optimizer}", *train)
    held_out = ("task.held_out=[entailment]", "task.mix=equal")
    code, out, err = command(*choices, *held_out)
    assert code == 0, err
    said = "task.mix=equal has no effect" in out + err
    assert said == (optimizer != "lozo"), "the others take a batch of each task"
    (file,) = tmp_path.rglob("result.json")
    result = json.loads(file.read_text())
    metrics = result["metrics"]
    assert list(metrics["dev"]) == [
        "mean", "loss", "reviews.accuracy", "reviews.loss", "topics.accuracy", "topics.loss",
    ]  # fmt: skip
    test = metrics["test"]
    assert test["mean"] == (test["reviews.accuracy"] + test["topics.accuracy"]) / 2
    assert test["held_out"] == test["entailment.accuracy"]
    assert {where.rpartition(":")[0] for where in encoded if where.startswith("entailment")} == {
        "entailment:test"
    }
    assert rebuild(file.parent, 3).weights == result["weights"]["last"]


def test_an_optimizer_that_asks_for_rows_of_a_held_out_task_is_refused():
    parts = built(*of("reviews", "topics"), "task.held_out=[topics]", "optimizer=lozo")
    assert set(parts.rows.tasks) == {"reviews"}
    with pytest.raises(UserError, match="the run trains reviews"):
        parts.rows._of_task("topics")


class TestRowsAlone:
    """A source that fails if rows for training are read."""

    __test__ = False

    def splits(self):
        raise AssertionError("rows of a task that is held out were read")

    def test(self):
        return ["row"]


def test_only_the_test_rows_of_a_held_out_task_are_read():
    config = Config(task=TaskConfig(tasks={"a": TaskConfig()}, held_out=["a"]))
    plan = Plan({"a": TestRowsAlone()}, None, None, False)
    splits = splits_of_tasks(config, plan)["a"]
    assert (splits.train, splits.dev, splits.test) == ([], [], ["row"])
