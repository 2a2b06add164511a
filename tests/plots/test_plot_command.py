"""``lozo-plot`` draws the runs below a folder, or says in one line why it cannot."""

from __future__ import annotations

import sys

import pytest

from lozo_bench.plots import main


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nope"], "nope: no such folder; give the folder that contains the runs"),
        (["."], ".: no runs in it or below it"),
        ([".", "--show", "lost"], "--show: given 'lost'; allowed: loss, dev, gap"),
    ],
)
def test_a_mistake_is_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lozo-plot", *words])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"
