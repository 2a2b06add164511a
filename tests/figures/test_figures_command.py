"""The command lozo-figures: what it prints, what it draws, and its exit codes."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from finished import finish

from lozo_bench.config.paths import CONF
from lozo_bench.display.trackers import wandb_sweep
from lozo_bench.figures import main
from lozo_bench.tables.cells import MADE_UP, configs, sweep

NARROW = ["lozo_ablation", "scale=tiny", "rank=r2", "optimizer.nu=50,100"]


@pytest.fixture
def figures(console):
    """A function: figures("NAME", ...) returns (exit code, standard output, standard error)."""
    return partial(console, main.main, "lozo-figures")


def test_without_a_name_the_command_lists_the_figures(figures):
    code, out, _ = figures()
    assert code == 0
    assert re.search(r"^lozo_ablation +LOZO, Figure 4: training loss by rank and by nu", out, re.M)


def test_a_mistake_is_one_line_and_the_exit_code_is_2(figures):
    for arguments, line in {
        ("lozo_ablatio",): "lozo_ablatio: no such figure (did you mean 'lozo_ablation'?)",
        ("lozo_ablation", "rankk=r2"): "rankk: no such key (did you mean 'rank'?)",
    }.items():
        code, out, err = figures(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(line)
        assert err.count("\n") == 1


def test_what_is_finished_is_drawn_and_what_is_missing_is_listed(figures, tmp_path, monkeypatch):
    code, out, err = figures(*NARROW)
    assert (code, out) == (1, "")
    assert "lozo_ablation: no run is finished, so nothing is drawn" in err
    assert not list(tmp_path.glob("*.png"))
    commands = [line.strip() for line in err.splitlines() if line.startswith("  lozo-train rank")]
    with configs(CONF):
        (first,) = sweep(shlex.split(commands[0])[1:]).runs
    finish(first)
    figures(*NARROW, "--out", "a.svg")
    assert MADE_UP in (tmp_path / "a.svg").read_text(), "the picture says it too"
    code, out, err = figures(*NARROW, "--out", "a.pdf")
    assert (code, out) == (1, "a.pdf\n")
    assert "1 run is missing:" in err
    assert "\nall of them:\n  lozo-train -m experiment=lozo_ablation" in err
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    sent = []
    monkeypatch.setattr(wandb_sweep, "send_file", lambda *told: sent.append(told) or ["sweep-x"])
    code, out, _ = figures(*NARROW, "--out", "a.pdf", "--wandb")
    assert (code, out) == (1, "a.pdf\na.pdf is in wandb, in sweep-x\n")
    assert sent == [(Path("a.pdf"), [first.folder])]
    code, _, err = figures(*NARROW, "--out", "a.txt")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("--out: a.txt cannot be written")
