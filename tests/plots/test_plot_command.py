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


def test_a_run_of_two_folders_that_overlap_is_drawn_once(tmp_path, monkeypatch):
    cell = tmp_path / "sweep" / "cell"
    (cell / ".hydra").mkdir(parents=True)
    (cell / ".hydra" / "config.yaml").write_text("steps: 1\n")
    (cell / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    drawn = []
    monkeypatch.setattr(main, "draw", lambda panels, *_: drawn.append(panels))
    words = [str(tmp_path), str(tmp_path / "sweep"), "--x", "steps", "--show", "loss"]
    monkeypatch.setattr(sys, "argv", ["lozo-plot", *words])
    main.main()
    (((panel,),),) = drawn
    assert [len(curves) for curves in panel.curves.values()] == [1]
