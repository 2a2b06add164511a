"""bench_bilevel.py prints the peaks of three methods and the time of an outer iteration."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import bench_bilevel


def test_a_small_run_compares_memory_and_time(monkeypatch, capsys):
    small = ["--layers", "1", "--hidden", "64", "--rows", "2", "--tokens", "8", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_bilevel.py", *small, "--inner-steps", "2"])
    monkeypatch.setattr(bench_bilevel, "_peak", {"adamw": 100, "sgd": 105, "adam": 400}.get)
    threads = torch.get_num_threads()
    try:
        bench_bilevel.main()
    finally:
        torch.set_num_threads(threads)
    memory, times = map(json.loads, capsys.readouterr().out.splitlines())
    assert memory["sgd_by_adamw"] == 1.05
    assert times["seconds"].keys() == {"iteration", "counted"}
    assert times["iteration_by_counted"]["median"] > 0


def test_a_zeroth_order_step_above_needs_no_gradient_of_the_weights(monkeypatch, capsys):
    sizes = ["--layers", "2", "--hidden", "64", "--rows", "4", "--tokens", "16"]
    peaks = {}
    for method in ("adamw", "sgd", "adam"):
        command = ["bench_bilevel.py", *sizes, "--inner-steps", "1", "--peak-of", method]
        monkeypatch.setattr(sys, "argv", command)
        bench_bilevel.main()
        peaks[method] = int(capsys.readouterr().out)
    assert peaks["sgd"] < peaks["adam"]
