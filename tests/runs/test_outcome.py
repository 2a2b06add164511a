"""``failed.json``: each process of a run can write it."""

from __future__ import annotations

import os
from pathlib import Path

from lozo_bench.runs.outcome import Code, Failure, read_failure, write_failure


def test_two_processes_can_record_their_failures_at_the_same_time(tmp_path, monkeypatch, caplog):
    replace = Path.replace

    def interrupted_by_another_process(draft, target):
        monkeypatch.undo()
        monkeypatch.setattr(os, "getpid", lambda: 1)
        write_failure(tmp_path, Failure("the other's reason", Code.bad_input, ""))
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", interrupted_by_another_process)
    write_failure(tmp_path, Failure("its own reason", Code.bad_input, ""))
    assert caplog.text == ""
    assert read_failure(tmp_path).reason == "its own reason"
    assert [path.name for path in tmp_path.iterdir()] == ["failed.json"]


def test_only_the_first_process_of_a_run_writes_into_its_folder(tmp_path, monkeypatch, command):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")  # ranks are 0 and 1: refused when the processes join
    code, _, err = command("steps=4", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    assert "RANK" in err
    assert not (tmp_path / "run" / "failed.json").exists()
