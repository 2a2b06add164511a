"""bench_allocation.py: the three kinds of run make the passes that they should, and are timed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import bench_allocation


def test_a_small_run_prints_a_line_for_each_kind_and_writes_the_numbers(
    monkeypatch, capsys, tmp_path
):
    small = ["--layers", "2", "--hidden", "32", "--rows", "20", "--batch", "4", "--repeats", "1"]
    out = tmp_path / "numbers.json"
    monkeypatch.setattr(sys, "argv", ["bench_allocation.py", *small, "--out", str(out)])
    threads = torch.get_num_threads()
    try:
        bench_allocation.main()
    finally:
        torch.set_num_threads(threads)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    backwards = {line["kind"]: line["backwards"] for line in lines if "kind" in line}
    # An epoch of 5 steps, with an allocation before each, on all of the 5 batches.
    assert backwards == {"uniform": 5, "online": 5, "separate": 5 + 5 * 5}
    assert lines[0]["wall_ratio"] == {"median": 1.0, "lower": 1.0, "upper": 1.0}
    assert {"load_before", "load_after", "settings"} <= lines[-1].keys()
    assert json.loads(out.read_text())["kinds"].keys() == backwards.keys()
