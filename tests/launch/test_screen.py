"""The progress of a running sweep on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from lozo_bench.launch.screen import Screen
from lozo_bench.runs.status import CellState, CellStatus


def cell(name, state, accuracy=None, note=""):
    return CellStatus(Path("outputs") / name, state, accuracy, note, "lozo-train")


@pytest.fixture
def shown(monkeypatch, capfd):
    def show(terminal):
        monkeypatch.setenv("TTY_COMPATIBLE", "1" if terminal else "0")
        with Screen(3) as screen:
            screen.started("good", "5")
            screen.ended("good", cell("good", CellState.finished, 0.5))
            screen.started("bad (lr=1e-3)", None)
            screen.ended("bad (lr=1e-3)", cell("bad", CellState.failed, note="killed by [SIGKILL]"))
        return capfd.readouterr()

    return show


def test_without_a_terminal_each_start_and_end_is_a_line(shown):
    assert shown(terminal=False).err.splitlines() == [
        "[1/3] good started on GPU 5",
        "good finished: test 0.5000",
        "[2/3] bad (lr=1e-3) started",
        "bad (lr=1e-3) failed: killed by [SIGKILL]",
    ]


def test_a_terminal_shows_a_bar_and_lines_for_failures_only(shown):
    err = shown(terminal=True).err
    assert "0 running, 1 failed" in err
    assert "bad (lr=1e-3) failed: killed by [SIGKILL]" in err
    assert "started" not in err
    assert "good" not in err


def test_nothing_is_printed_to_standard_output(shown):
    assert shown(terminal=False).out == ""
