"""A longer run goes on from a finished shorter one, to the same bits as one from the beginning."""

from __future__ import annotations

import logging
import shutil

import cells
import pytest
from test_resume import assert_same_run

from lozo_bench.runs.blocks import read_header
from lozo_bench.training.run import run
from lozo_bench.training.trainer import Trainer

# 13 is a multiple of neither eval_every nor log_every, and less than the 24 of the longer run.
SHORTER = ["steps=13", "eval_every=4", "log_every=2", "checkpoint.every=4"]
LONGER = ["steps=24", "eval_every=4", "log_every=2", "checkpoint.every=4"]
METHODS = {"mezo": [], "adamw": [], "lozo_m": ["checkpoint.kind=full"]}


def made(folder, *overrides):
    folder.mkdir(parents=True, exist_ok=True)
    run(cells.config(*overrides), folder)
    return folder


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("optimizer", METHODS)
def test_a_longer_run_is_the_run_from_the_beginning(tmp_path, optimizer, caplog):
    given = [f"optimizer={optimizer}", *METHODS[optimizer]]
    whole = made(tmp_path / "elsewhere" / "whole", *given, *LONGER)
    shorter = made(tmp_path / "runs" / "shorter", *given, *SHORTER)
    before = contents(shorter)
    with caplog.at_level(logging.INFO):
        longer = made(tmp_path / "runs" / "longer", *given, *LONGER)
    assert_same_run(whole, longer)
    assert contents(shorter) == before
    assert "of " + str(shorter) in next(m for m in caplog.messages if m.startswith("goes on from"))
    assert cells.result(longer)["sittings"] == 2
    assert read_header((longer / "journal.bin").read_bytes())["steps"] == 24


def test_the_steps_of_the_shorter_run_are_not_made_again(tmp_path, monkeypatch):
    made(tmp_path / "shorter", *SHORTER)
    steps = []
    make = Trainer._make_step
    monkeypatch.setattr(
        Trainer, "_make_step", lambda self, t, rows: (steps.append(t), make(self, t, rows))
    )
    made(tmp_path / "longer", *LONGER)
    assert steps == list(range(14, 25))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["schedule=linear"], "with schedule=linear a step depends on how many there are"),
        (
            ["optimizer=mezo", "optimizer.directions_schedule=linear", "optimizer.directions=2"],
            "with optimizer.total_steps a step depends on how many there are",
        ),
    ],
)
def test_a_run_that_looks_at_its_end_starts_over_and_says_why(tmp_path, caplog, given, why):
    shorter = made(tmp_path / "shorter", *given, "steps=4")
    with caplog.at_level(logging.INFO):
        longer = made(tmp_path / "longer", *given, "steps=6")
    line = next(m for m in caplog.messages if m.startswith("starts from the beginning"))
    assert str(shorter) in line
    assert line.endswith(why)
    assert cells.result(longer)["sittings"] == 1


def test_a_first_order_run_without_a_full_state_starts_over_and_says_so(tmp_path, caplog):
    shorter = made(tmp_path / "shorter", "optimizer=adamw", "steps=4")
    shutil.rmtree(shorter / "checkpoints")
    with caplog.at_level(logging.INFO):
        made(tmp_path / "longer", "optimizer=adamw", "steps=6")
    assert any("kept no full state that can be used" in m for m in caplog.messages)


@pytest.mark.parametrize("other", [["seed=s1"], ["optimizer.lr=1e-5"], ["eval_every=4"]])
def test_a_run_that_differs_in_more_than_its_length_is_no_beginning(tmp_path, caplog, other):
    made(tmp_path / "shorter", "steps=4")
    with caplog.at_level(logging.INFO):
        made(tmp_path / "longer", "steps=6", *other)
    assert not any(str(tmp_path / "shorter") in message for message in caplog.messages)


def test_rerun_all_starts_from_the_beginning(tmp_path):
    made(tmp_path / "shorter", "steps=4")
    longer = made(tmp_path / "longer", "steps=6", "rerun=all")
    assert cells.result(longer)["sittings"] == 1


def test_a_larger_budget_of_a_search_goes_on_from_a_smaller_one(tmp_path, caplog):
    given = [
        "optimizer=bbt_v2", "tuning=deep_prompt", "model=tiny_roberta", "optimizer.popsize=2",
        "optimizer.intrinsic_dim=8", "eval_every=3", "task.source.train=8", "task.source.dev=4",
        "task.source.test=4",
    ]  # fmt: skip
    smaller, larger = "optimizer.budget=8", "optimizer.budget=16"
    whole = made(tmp_path / "elsewhere" / "whole", *given, larger)
    made(tmp_path / "runs" / "shorter", *given, smaller)
    with caplog.at_level(logging.INFO):
        longer = made(tmp_path / "runs" / "longer", *given, larger)
    assert any(message.startswith("goes on from step") for message in caplog.messages)
    assert_same_run(whole, longer)


def test_a_run_that_gave_up_early_gives_up_at_the_same_step(tmp_path):
    given = ["patience=2", "eval_every=2", "optimizer.lr=0"]
    shorter = made(tmp_path / "shorter", *given, "steps=12")
    longer = made(tmp_path / "longer", *given, "steps=20")
    one, other = cells.result(shorter), cells.result(longer)
    assert one["steps"] == other["steps"] == 6
    assert one["weights"] == other["weights"]
