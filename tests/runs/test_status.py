"""The status command: the state of each cell, the command to run it, and the exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lozo_bench.after import status as command
from lozo_bench.runs.hydra_files import command_of, values_of
from lozo_bench.runs.lock import LOCK, Lock
from lozo_bench.runs.lock_owner import myself
from lozo_bench.runs.outcome import Failure, write_failure
from lozo_bench.runs.planned import not_begun, write_planned
from lozo_bench.runs.status import (
    CellState,
    CellStatus,
    counts,
    print_table,
    status_of,
    statuses_below,
)


def make(folder, *overrides, hydra=(), mode="RUN", cwd=None, result=None, steps=0, **sources):
    """Write a cell's folder as Hydra and a run would leave it."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save({"steps": 40, "sweep": "x", "name": "${sweep}"}, folder / ".hydra/config.yaml")
    OmegaConf.save(list(overrides), folder / ".hydra" / "overrides.yaml")
    settings = {
        "overrides": {"task": list(overrides), "hydra": [f"hydra.mode={mode}", *hydra]},
        "runtime": {
            "cwd": str(cwd or Path.cwd()),
            "config_sources": [
                {"path": path, "schema": "file", "provider": provider}
                for provider, path in sources.items()
            ],
        },
        "job": {"config_name": "config"},
        "mode": mode,
    }
    OmegaConf.save({"hydra": settings}, folder / ".hydra" / "hydra.yaml")
    rows = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(1, steps + 1)]
    if rows:
        (folder / "metrics.jsonl").write_text("".join(rows))
    if result is not None:
        (folder / "result.json").write_text(json.dumps({"metrics": {"test": {"accuracy": result}}}))
    return folder


def test_the_line_about_default_values_names_every_file_that_may_set_one(tmp_path):
    folder = make(tmp_path / "cell", main=str(tmp_path / "conf"))
    path = folder / ".hydra" / "hydra.yaml"
    settings = OmegaConf.load(path)
    choices = {"tuned": "lora/mezo-m-t", "optimizer": "mezo", "method": "mezo_lora_head"}
    settings.hydra.runtime.choices = {**choices, "experiment": None, "variant": "n4"}
    OmegaConf.save(settings, path)
    assert values_of(folder) == (
        "there is no conf/tuned/lora/mezo-m-t.yaml: values not given on the command line are from "
        "conf/optimizer/mezo.yaml and conf/method/mezo_lora_head.yaml and conf/variant/n4.yaml"
    )
    assert values_of(folder, 1e-6) == values_of(folder)  # a file of the user's may set it
    settings.hydra.runtime.choices = choices | {"method": None}
    OmegaConf.save(settings, path)
    assert values_of(folder, 1e-6).endswith(
        "conf/optimizer/mezo.yaml. Its optimizer.lr=1e-06 was not tuned for this model and task: "
        "compare -m optimizer.lr=1e-07,1e-06,1e-05"
    )
    settings.hydra.runtime.choices = {**choices, "experiment": None, "variant": "n4"}
    OmegaConf.save(settings, path)
    (tmp_path / "conf" / "tuned" / "lora").mkdir(parents=True)
    (tmp_path / "conf" / "tuned" / "lora" / "mezo-m-t.yaml").touch()
    assert values_of(folder) == (
        "values not given on the command line are from conf/tuned/lora/mezo-m-t.yaml and "
        "conf/variant/n4.yaml"
    )


@pytest.fixture
def lozo_status(monkeypatch, capfd):
    """Run the command in this process: lozo_status("DIR") -> (exit code, out, err)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lozo-status", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            command.main()
        printed = capfd.readouterr()
        return stop.value.code, printed.out, printed.err

    return run


def states(root):
    return {cell.folder.name: cell.state for cell in statuses_below(root)}


def test_each_state_is_recognized(tmp_path):
    make(tmp_path / "t/m/finished", result=0.75)
    write_failure(make(tmp_path / "t/m/failed"), Failure("out of luck", 2, ""))
    make(tmp_path / "t/m/stopped", steps=7)
    with Lock(make(tmp_path / "t/m/running", steps=12)):
        found = {cell.folder.name: cell for cell in statuses_below(tmp_path)}
    assert {name: cell.state.name for name, cell in found.items()} == {
        name: name for name in ("finished", "failed", "stopped", "running")
    }
    assert found["finished"].score == 0.75
    assert found["failed"].note == "out of luck"
    assert found["stopped"].note == "step 7 of 40"
    assert found["running"].note.startswith("step 12 of 40, process ")
    assert f"{os.getpid()} on {myself().host}" in found["running"].note


def test_a_failed_cell_that_runs_again_is_running(tmp_path):
    folder = make(tmp_path / "cell")
    write_failure(folder, Failure("out of luck", 1, ""))
    with Lock(folder):
        assert states(tmp_path) == {"cell": CellState.running}
    assert states(tmp_path) == {"cell": CellState.failed}


def test_a_cell_with_the_lock_of_a_dead_process_is_stopped(tmp_path):
    folder = make(tmp_path / "cell")
    owner = dataclasses.replace(myself(), started="1")
    (folder / LOCK).write_text(json.dumps(dataclasses.asdict(owner)))
    assert states(tmp_path) == {"cell": CellState.stopped}


@pytest.mark.parametrize("written", ["", '{"step": 3}\n{"st', "{"])
def test_an_incomplete_row_does_not_count_as_a_step(tmp_path, written):
    folder = make(tmp_path / "cell")
    (folder / "metrics.jsonl").write_text(written)
    assert statuses_below(tmp_path)[0].note == f"step {3 if 'step' in written else 0} of 40"


def test_a_damaged_result_is_a_failure_that_says_what_to_do(tmp_path):
    (make(tmp_path / "cell") / "result.json").write_text("{")
    (cell,) = statuses_below(tmp_path)
    assert cell.state is CellState.failed
    assert "rerun=all" in cell.note


def test_a_cell_that_has_just_begun_is_listed(tmp_path):
    """Hydra writes its three files one after the other."""
    folder = make(tmp_path / "cell")
    (folder / ".hydra" / "hydra.yaml").unlink()
    assert states(tmp_path) == {"cell": CellState.stopped}
    (folder / ".hydra" / "config.yaml").write_text("")
    assert statuses_below(tmp_path)[0].note == "step 0 of ?"


def test_cells_are_found_at_any_depth_except_within_cells(tmp_path):
    make(tmp_path / "a/b/c/d")
    make(tmp_path / "e")
    make(tmp_path / "e/wandb/inner")  # within a cell
    (tmp_path / "f/.hydra").mkdir(parents=True)
    assert [cell.folder for cell in statuses_below(tmp_path)] == [
        tmp_path / "a/b/c/d",
        tmp_path / "e",
    ]
    assert [cell.folder for cell in statuses_below(tmp_path / "e")] == [tmp_path / "e"]


def test_the_command_has_the_overrides_of_this_cell_only(tmp_path):
    folder = make(
        tmp_path / "cell",
        "optimizer=lozo", "task.prompt=It is {a}; 'so'", "seed=s0", "rerun=all",
        hydra=[
            "hydra/launcher=local", "hydra.launcher.at_once=4", "++hydra.launcher.gpus=1",
            "hydra.sweeper.max_batch_size=2", "hydra.run.dir=elsewhere", "hydra.sweep.dir=my runs",
        ],
        mode="MULTIRUN",
        main="/conf",
        **{"command-line": "my conf"},
    )  # fmt: skip
    assert shlex.split(command_of(folder)) == [
        "lozo-train", "--config-dir=my conf", "optimizer=lozo", "task.prompt=It is {a}; 'so'",
        "seed=s0", "hydra.sweep.dir=my runs",
    ]  # fmt: skip


def test_the_command_of_a_single_run_keeps_its_folder(tmp_path):
    folder = make(tmp_path / "cell", "seed=s0", hydra=["hydra.run.dir=mine"])
    assert command_of(folder) == "lozo-train seed=s0 hydra.run.dir=mine"


def test_from_another_folder_the_command_begins_with_cd(tmp_path):
    folder = make(tmp_path / "cell", "seed=s0", cwd="/some where")
    assert command_of(folder) == "cd '/some where' && lozo-train seed=s0"


def test_in_a_pipe_the_table_is_not_wrapped_and_commands_follow(tmp_path, capfd):
    long = "model_" + "x" * 150
    write_failure(make(tmp_path / long / "bad", "rank=r0"), Failure("[bold]rank[/bold]", 2, ""))
    make(tmp_path / long / "half", "rank=r1", steps=3)
    make(tmp_path / "good", "rank=r2", result=0.5)
    print_table(statuses_below(tmp_path))
    out = capfd.readouterr().out
    assert f"│ {long}/half │ stopped  │        │ step 3 of 40 │" in out
    assert "│ 0.5000 │" in out
    assert f"  {long}/bad: [bold]rank[/bold]\n    lozo-train rank=r0\n" in out
    assert f"  {long}/half: step 3 of 40\n    lozo-train rank=r1\n" in out
    assert "\n3 cells: 1 finished, 1 stopped, 1 failed\n" in out


def test_counts_leave_out_states_without_cells():
    cell = CellStatus(Path("a"), CellState.finished, 0.5, "", "")
    assert counts([cell]) == "1 cell: 1 finished"


def test_the_exit_code_is_1_if_any_cell_failed(tmp_path, lozo_status):
    make(tmp_path / "good", result=0.5)
    make(tmp_path / "half")
    code, out, _ = lozo_status(tmp_path)
    assert code == 0
    assert "2 cells: 1 finished, 1 stopped" in out
    write_failure(make(tmp_path / "bad"), Failure("no", 2, ""))
    assert lozo_status(tmp_path)[0] == 1


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_runs_is_a_one_line_error(tmp_path, lozo_status, name):
    (tmp_path / "empty").mkdir()
    code, out, err = lozo_status(tmp_path / name)
    assert (code, out) == (2, "")
    assert err.startswith(f"{tmp_path / name}: no ")
    assert len(err.splitlines()) == 1


def test_the_default_folder_is_outputs(tmp_path, lozo_status, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "outputs" / "cell", result=0.5)
    assert "1 cell: 1 finished" in lozo_status()[1]


def test_torch_is_not_imported():
    code = "import sys, lozo_bench.after.status; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "False"


NESTED = "[" * 100_000


def _pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _loop(path):
    path.unlink(missing_ok=True)
    path.symlink_to(path)


BAD = {
    "no test metrics": ("result.json", '{"metrics": {"test": {}}}'),
    "metrics that are no numbers": ("result.json", '{"metrics": {"test": {"accuracy": [1]}}}'),
    "another checksum": ("result.json", '{"metrics": {"test": {"f1": 1}}, "checksum": "0"}'),
    "odd bytes": ("result.json", b"\xff\xfe"),
    "deep nesting": ("result.json", NESTED),
    "a pipe": ("result.json", _pipe),
    "a link to itself": ("result.json", _loop),
    "a folder": ("result.json", Path.mkdir),
    "rows without a step": ("metrics.jsonl", '{"loss": 1}\n{"step": "x"}\n{"step": 1e999}\n'),
    "rows of odd bytes": ("metrics.jsonl", b"\xff\n[]\n"),
    "rows in a pipe": ("metrics.jsonl", _pipe),
    "a failure of odd bytes": ("failed.json", b"\xff"),
    "a failure of other types": ("failed.json", '{"reason": 1, "code": 2, "command": []}'),
    "a lone surrogate": ("failed.json", '{"reason": "\\ud800", "code": 2, "command": ""}'),
    "a failure in a folder": ("failed.json", Path.mkdir),
    "a journal in a pipe": ("journal.bin", _pipe),
    "a command of other types": (".hydra/hydra.yaml", "hydra: {overrides: [1], mode: RUN}"),
    "an impossible date": (".hydra/hydra.yaml", "hydra: 2026-99-99"),
    "a pipe of Hydra's": (".hydra/hydra.yaml", _pipe),
    "nested YAML": (".hydra/hydra.yaml", "[" * 5000),
}


@pytest.mark.timeout(60)
def test_a_damaged_folder_is_a_row_among_the_others(tmp_path, lozo_status):
    good = make(tmp_path / "good", result=0.5)
    for number, (name, content) in enumerate(BAD.values()):
        path = make(tmp_path / f"bad{number}") / name
        if callable(content):
            content(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
    make(tmp_path / os.fsdecode(b"odd \xff name"))
    code, out, err = lozo_status(tmp_path)
    assert (code, err) == (1, "")
    assert f"{len(BAD) + 2} cells: 1 finished" in out
    assert status_of(good).state is CellState.finished


def test_a_folder_that_cannot_be_entered_is_a_row(tmp_path, monkeypatch):
    make(tmp_path / "good", result=0.5)
    (tmp_path / "closed").mkdir()
    original = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert states(tmp_path) == {"good": CellState.finished, "closed": CellState.failed}


def test_cells_whose_names_do_not_tell_them_apart_say_what_differs(tmp_path, lozo_status):
    """The second run's command does not give the value: it has the config's."""
    make(tmp_path / "m" / "lozo-s0-1cd946a1", "steps=60", "seed=s0", result=0.5)
    make(tmp_path / "m" / "lozo-s1-86bf1d93", "seed=s1", result=0.5)
    out = lozo_status(tmp_path)[1]
    assert "│ lozo-s0-1cd946a1 │ steps=60 │ finished" in out
    assert "│ lozo-s1-86bf1d93 │ steps=40 │ finished" in out


def test_failed_cells_are_forgotten_and_no_others(tmp_path, lozo_status, capfd):
    for name in ("failed", "finished", "running", "stopped"):
        folder = make(tmp_path / name, result=0.5 if name == "finished" else None, steps=3)
        if name != "stopped":
            write_failure(folder, Failure("out of luck", 1, ""))
    command.sys.argv = ["lozo-status", str(tmp_path), "--forget", "failed"]
    with Lock(tmp_path / "running"):
        command.main()
    out = capfd.readouterr().out.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finished", "running", "stopped"]
    assert out[0] == f"removed {tmp_path / 'failed'}"
    assert out[1].startswith(f"kept {tmp_path / 'running'}: ")
    assert out[2] == "1 failed run removed"


def test_cells_that_have_not_begun_are_counted(tmp_path):
    make(tmp_path / "task" / "begun")
    write_planned(tmp_path, [tmp_path / "task" / name for name in ("begun", "waiting", "next")])
    assert [path.name for path in not_begun(tmp_path)] == ["next", "waiting"]
    assert not_begun(tmp_path / "task") == not_begun(tmp_path)
    (tmp_path / "cells.json").write_text("{")
    assert not_begun(tmp_path) == []
    found = statuses_below(tmp_path)
    assert counts(found, 2) == "3 cells: 1 stopped, 2 not begun"


def test_cells_behind_symbolic_links_are_found_once(tmp_path):
    make(tmp_path / "disk" / "sweep" / "cell")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / "moved").symlink_to(tmp_path / "disk" / "sweep")
    (outputs / "moved" / "latest").symlink_to("cell")
    (outputs / "up").symlink_to(tmp_path)
    assert len(statuses_below(outputs)) == 1
    assert not_begun(outputs) == []
