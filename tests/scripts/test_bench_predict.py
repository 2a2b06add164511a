"""bench_predict.py: both ways choose the same options."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import bench_predict


def test_both_ways_choose_the_same_options(monkeypatch, capsys):
    words = ["--rows", "24", "--repeats", "1", "--task", "entailment"]
    monkeypatch.setattr(sys, "argv", ["bench_predict.py", *words])
    bench_predict.main()
    assert "24 rows, equal choices: 24\n" in capsys.readouterr().out
