"""A command goes on when nobody reads what it prints, and says one line if it ends early."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from lozo_bench.launch.output import lasting_output
from lozo_bench.launch.signals import nothing_begun


class NoReader(io.TextIOWrapper):
    """A pipe that ``head`` has left."""

    def __init__(self, **options):
        read, write = os.pipe()
        os.close(read)
        super().__init__(os.fdopen(write, "wb"), **options)


def leads_to(stream):
    return str(Path(f"/proc/self/fd/{stream.fileno()}").readlink())


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("line_buffering", [True, False])
def test_what_nobody_reads_is_lost_without_an_error(monkeypatch, name, line_buffering):
    stream = NoReader(line_buffering=line_buffering)
    monkeypatch.setattr(sys, name, stream)
    with lasting_output():
        for _ in range(3):
            print("a line", file=getattr(sys, name))
    assert getattr(sys, name) is stream
    assert leads_to(stream) == os.devnull
    stream.close()


def test_a_full_disk_below_standard_output_is_said_once_on_standard_error(monkeypatch, capsys):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with lasting_output():
            print("a line", flush=True)
            print("a line", flush=True)
        assert leads_to(full) == os.devnull
    said = capsys.readouterr().err
    assert said.startswith(f"standard output: {os.strerror(errno.ENOSPC)}; ")
    assert len(said.splitlines()) == 1


def test_a_sweep_whose_output_nobody_reads_runs_all_its_cells(command, tmp_path, monkeypatch):
    stream = NoReader()
    monkeypatch.setattr(sys, "stdout", stream)
    code, _, err = command(
        "-m", "seed=s0,s1", "experiment=smoke", "steps=1", "eval_every=1", "tracking=files",
        "task.source.train=32", "task.source.dev=8", "task.source.test=8", "model.device=cpu",
    )  # fmt: skip
    stream.close()
    assert code == 0, err
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert sorted(result["config"]["seed"]["value"] for result in results) == [0, 1]


def forked(do):
    """Run a function in a fork of this process, and return its exit code."""
    pid = os.fork()
    if not pid:
        code = 70
        try:
            code = do() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path):
    """Libraries and helper programs print to numbers 1 and 2, whatever is open there."""

    def do():
        os.close(1)
        os.close(2)
        sys.stdout = sys.stderr = None
        with lasting_output(), (tmp_path / "journal").open("w") as file:
            print("printed")
            os.write(2, b"by a library")
            return 0 if file.fileno() > 2 else 1

    assert forked(do) == 0
    assert (tmp_path / "journal").read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_a_run_begins_is_one_line(tmp_path, number):
    def do():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with (tmp_path / "err").open("w") as file:
            os.dup2(file.fileno(), 2)
        with nothing_begun():
            os.kill(os.getpid(), number)
            time.sleep(60)

    assert forked(do) == 128 + number
    (line,) = (tmp_path / "err").read_text().splitlines()
    assert line == f"stopped by {number.name} before the run began; the same command starts it"
