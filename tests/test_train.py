"""How the command ends: its exit code, and what it refuses before anything is written."""

from __future__ import annotations

import os
import signal

import programs
import pytest

SHORT = [
    "experiment=smoke", "steps=1", "eval_every=1", "task.source.train=32", "task.source.dev=8",
    "task.source.test=8", "model.device=cpu",
]  # fmt: skip


def test_a_token_on_the_command_line_is_refused_before_anything_is_written(command, tmp_path):
    token = "hf_" + "x1" * 12
    code, out, err = command(f"+model.token={token}", *SHORT)
    assert code == 2
    assert err.startswith("model.token: contains an access token")
    assert len(err.splitlines()) == 1
    assert token not in out + err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        (
            [],
            "command line are from conf/tuned/full/lozo-tiny_opt-reviews.yaml",
        ),
        (["optimizer=sgd"], "there is no conf/tuned/full/sgd-tiny_opt-reviews.yaml: values not"),
    ],
)
def test_a_run_logs_which_file_its_values_come_from(command, choices, line):
    code, _, err = command(*choices, *SHORT)
    assert code == 0
    assert line in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["optimizer.lr=-1"], 2), (["-m", "optimizer.eps=-1,1"], 1), (["-m", "rank.value=1,2"], 0)],
)
def test_a_run_has_its_own_exit_code_and_a_sweep_1_if_any_cell_failed(command, arguments, expected):
    assert command(*arguments, *SHORT)[0] == expected


def test_a_failed_sweep_does_not_change_the_exit_code_of_the_next_one(command):
    local = ["-m", "hydra/launcher=local"]
    assert command(*local, "optimizer.eps=-1", *SHORT)[0] == 1
    assert command(*local, "rank.value=1", *SHORT)[0] == 0


@pytest.mark.parametrize(("mode", "expected"), [([], 3), (["-m"], 0)])
def test_a_cell_that_another_process_runs_does_not_fail_the_sweep(
    command, tmp_path, mode, expected
):
    from lozo_bench.runs.lock import Lock

    assert command(*SHORT)[0] == 0
    (result,) = tmp_path.rglob("result.json")
    with Lock(result.parent):
        code, _, err = command(*mode, *SHORT, "rerun=all")
    assert code == expected
    assert "is running this cell" in err


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["a run", "a sweep"])
def test_ctrl_c_ends_with_130_and_a_line_that_says_how_to_continue(tmp_path, mode):
    """In a sweep of one process, the remaining cells do not start."""
    arguments = [*mode, f"seed.value={'0,1' if mode else 0}", *SHORT, "steps=20000", "log_every=1"]
    with programs.start(tmp_path, *arguments, "eval_every=20000") as process:
        programs.wait_for(
            lambda: any(path.stat().st_size for path in tmp_path.rglob("metrics.jsonl"))
        )
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in err.splitlines()[-1]
    assert "the same command continues" in err.splitlines()[-1]
    assert len(list(tmp_path.rglob("metrics.jsonl"))) == 1


def test_a_working_folder_that_was_removed_is_one_line(command, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PWD", str(gone))
    gone.rmdir()
    code, _, err = command(*SHORT)
    monkeypatch.chdir(tmp_path)
    assert (code, err.splitlines()) == (
        2, [f"{gone}: this folder was removed; cd to a folder that exists and start again"]
    )  # fmt: skip


def test_a_log_that_cannot_be_opened_is_one_line(command, tmp_path):
    (tmp_path / "run" / "train.log").mkdir(parents=True)
    code, _, err = command(*SHORT, f"hydra.run.dir={tmp_path / 'run'}")
    (line,) = err.splitlines()
    assert code == 2
    assert line.startswith(f"{tmp_path / 'run' / 'train.log'}: Is a directory; ")
