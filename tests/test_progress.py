"""Long work tells how far it is where somebody looks on."""

from __future__ import annotations

import logging

import pytest

from lozo_bench.progress import progress


@pytest.mark.parametrize(("terminal", "level", "told"), [
    ("1", logging.INFO, True),
    ("0", logging.INFO, False),
    ("1", logging.WARNING, False),  # a process for which another one speaks
])  # fmt: skip
def test_a_bar_is_shown_on_a_terminal_by_the_process_that_speaks(
    monkeypatch, capsys, caplog, terminal, level, told
):
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    caplog.set_level(level, "lozo_bench")
    assert list(progress([3, 1, 2], "test: to tokens")) == [3, 1, 2]
    printed = capsys.readouterr()
    assert ("test: to tokens" in printed.err) is told
    assert printed.out == ""
