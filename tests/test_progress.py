"""The progress bar for long work outside the trainer."""

from __future__ import annotations

import logging

import pytest

from lozo_bench.progress import progress


@pytest.mark.parametrize(("terminal", "level", "shown"), [
    ("1", logging.INFO, True),
    ("0", logging.INFO, False),
    ("1", logging.WARNING, False),  # a process other than the first of a run
])  # fmt: skip
def test_only_the_first_process_shows_a_bar_and_only_on_a_terminal(
    monkeypatch, capsys, caplog, terminal, level, shown
):
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    caplog.set_level(level, "lozo_bench")
    assert list(progress([3, 1, 2], "test: to tokens")) == [3, 1, 2]
    printed = capsys.readouterr()
    assert ("test: to tokens" in printed.err) is shown
    assert printed.out == ""
