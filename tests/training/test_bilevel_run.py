"""Runs of Bilevel-ZOFO: what they cost, which rows they read, how they resume and are exported."""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import combinations

import cells
import pytest
from omegaconf import OmegaConf
from test_resume import StopAtCheck, assert_same_run

from lozo_bench.config.task_list import with_task_lists
from lozo_bench.errors import Stopped, UserError
from lozo_bench.parallel.team import Team
from lozo_bench.training.build_run import build_run
from lozo_bench.training.checks import typed
from lozo_bench.training.plan import plan_run
from lozo_bench.training.replay import rebuild
from lozo_bench.training.run import run

SHORT = [
    "optimizer=bilevel_zofo", "tuning=two_level_lora", "optimizer.inner_steps=3", "steps=8",
    "eval_every=4", "batch_size=4", "optimizer.lr_s=0.01", "optimizer.lr=1e-4",
    "task.source.train=30", "task.source.dev=10", "task.source.test=10", "eval_batch_size=5",
]  # fmt: skip
UPPER = {4, 7}  # of 8 steps, with T = 3, as published


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Leave the figures out, which would take most of the time."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    run(cells.config(*SHORT), folder)
    return folder


def test_result_json_counts_the_passes_of_both_levels(whole):
    result = cells.result(whole)
    lower, upper = 8 - len(UPPER), len(UPPER)
    assert (result["steps"], result["forwards"], result["backwards"]) == (
        8,
        lower + upper * (2 + 4),  # the embedded model has no dropout
        lower + upper * 2,
    )
    events = [json.loads(line) for line in (whole / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events] == sorted(UPPER)


def test_dev_is_evaluated_with_both_copies_and_the_better_one_is_tested(whole):
    rows = [row for row in cells.rows(whole) if "dev_loss" in row]
    assert [row["step"] for row in rows] == [4, 8]
    for row in rows:
        copies = [(row[f"dev/{copy}.accuracy"], -row[f"dev/{copy}.loss"]) for copy in "ps"]
        assert (row["dev_accuracy"], -row["dev_loss"]) == max(copies)
        assert copies[0] != copies[1]


@pytest.mark.parametrize("checks", range(1, 19, 2))
def test_a_run_stopped_at_any_check_resumes_to_the_same_bits(tmp_path, whole, checks):
    """The checks are in evaluations, and before the first pass of a lower or an upper step."""
    with pytest.raises(Stopped):
        run(cells.config(*SHORT), tmp_path, StopAtCheck(checks))
    run(cells.config(*SHORT), tmp_path)
    assert_same_run(whole, tmp_path)


def test_upper_lower_dev_and_test_rows_are_four_sets():
    """Of 1,000 training rows, 666 are lower and 334 upper ones, as published."""
    config, _ = typed(
        cells.config(
            *SHORT[:2], "task.source.train=1000", "task.source.dev=50", "task.source.test=50"
        )
    )
    parts = build_run(config, plan_run(config), Team()).parts
    assert {name: count for name, (count, _) in parts.rows.sizes().items()} == {
        "": 666, "upper": 334,
    }  # fmt: skip
    sets = {"dev": set(map(digest, parts.data.dev)), "test": set(map(digest, parts.data.test))}
    for name in ("", "upper"):
        batches = parts.rows.batches(name)
        numbers = {i for _ in range(200) for i in next(batches)}
        sets[name] = {digest(parts.data.train[i]) for i in numbers}
    assert (len(sets[""]), len(sets["upper"])) == (666, 334)
    for one, other in combinations(sets.values(), 2):
        assert not one & other


def digest(row):
    return hashlib.sha256(repr(row.rows).encode()).hexdigest()


@pytest.mark.parametrize(
    ("copy", "adapter"),
    [("p", "lora"), ("s", "lora"), ("s", "ia3"), ("s", "prefix"), ("p", "prompt")],
)
def test_the_export_is_the_model_that_was_tested(tmp_path, copy, adapter):
    folder, out, again = tmp_path / "run", tmp_path / "out", tmp_path / "again"
    (folder / ".hydra").mkdir(parents=True)
    config = cells.config(
        *SHORT, f"optimizer.eval_with={copy}", "checkpoint.kind=full", "checkpoint.every=4",
        "checkpoint.keep=9", "optimizer.lr=1e-2", "optimizer.lr_p=0.01",
        f"tuning=two_level_{adapter}",
    )  # fmt: skip
    OmegaConf.save(config, folder / ".hydra" / "config.yaml", resolve=True)
    result = run(config, folder)
    saved = rebuild(folder, result["best_step"]).save(out)
    again.mkdir()
    plain = ["optimizer=zero_shot", "model=local", f"model.path={out}", *SHORT[8:]]
    if adapter in ("prefix", "prompt"):
        assert saved == "weights and tensors"
        plain += [f"model.adapter={out}", f"tuning={adapter}"]
    else:
        assert saved == "weights"
    found = run(cells.config(*plain), again)["metrics"]["test"]
    assert found["accuracy"] == result["metrics"]["test"]["accuracy"]
    assert found["loss"] == pytest.approx(result["metrics"]["test"]["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["tuning=lora"], r"^tuning: Lora is given; allowed with BilevelZofo: two_level_lora"),
        (["optimizer=lozo"], r"^tuning: TwoLevel is given; allowed with Lozo: other tunings"),
    ],
)
def test_the_tuning_and_the_optimizer_go_together(tmp_path, options, message):
    given = [f"{x}" for x in SHORT if x.split("=")[0] not in ("optimizer", "tuning")]
    kept = [x for x in given if not x.startswith("optimizer.") or "lozo" not in options[0]]
    pair = {"optimizer": "bilevel_zofo", "tuning": "two_level_lora"}
    pair |= dict(option.split("=") for option in options)
    with pytest.raises(UserError, match=message):
        run(cells.config(*(f"{k}={v}" for k, v in pair.items()), *kept), tmp_path)


SEVERAL = [
    "optimizer=bilevel_zofo_multitask", "tuning=two_level_lora", "task=[reviews,topics]",
    "optimizer.inner_steps=2", "steps=6", "eval_every=3", "batch_size=4", "log_every=1",
    "tracking=files", "model.device=cpu", "checkpoint.every=2",
    *(f"task.tasks.{task}.source.{name}={count}" for task in ("reviews", "topics")
      for name, count in (("train", 24), ("dev", 6), ("test", 6))),
]  # fmt: skip


def test_meta_training_is_evaluated_with_theta_and_resumes_to_the_same_bits(tmp_path):
    config, whole, stopped = with_task_lists(SEVERAL), tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    result = run(cells.composed(*config), whole)
    assert {"mean", "reviews.accuracy", "topics.accuracy"} <= result["metrics"]["test"].keys()
    with pytest.raises(Stopped):
        run(cells.composed(*config), stopped, StopAtCheck(6))
    run(cells.composed(*config), stopped)
    assert_same_run(whole, stopped)


def test_a_run_without_an_upper_step_says_so(tmp_path):
    run(cells.config(*SHORT, "steps=2", "eval_every=2"), tmp_path)
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line)["event"] == "theta_never_moves"
