"""count_launches.py: what it counts, on operations whose counts are known."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import count_launches  # noqa: E402
from gpu.counting import AttentionCounter, LaunchCounter  # noqa: E402


def count(monkeypatch, *arguments):
    """Run the script and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["count_launches.py", *arguments])
    threads = torch.get_num_threads()
    try:
        return count_launches.main()
    finally:
        torch.set_num_threads(threads)


def test_kernels_copies_and_synchronizations_are_counted():
    counter, attention = LaunchCounter(distinct=2), AttentionCounter()
    x = torch.empty(4, 8, device="meta")
    with counter, attention:
        y = x @ x.T.contiguous()  # two kernels, and the view x.T
        float(y.sum())  # a kernel, and a wait for its result
        torch.ones(3).to("meta")  # a copy to the GPU
        assert y.cpu().shape == (4, 4)  # a wait
        torch.nn.functional.scaled_dot_product_attention(x, x, x)
    counts = counter.counts
    names = [key.split(" @ ")[0] for key in counts.launches.elements()]
    assert names == ["clone", "mm", "sum", "_to_copy"]
    assert counts.moved["clone @ "] == 2 * x.nbytes
    assert (counts.copies.total(), counts.copied) == (1, 12)
    waits = [key.split(" @ ")[0] for key in counts.synchronizations.elements()]
    assert len(waits) == 2
    assert waits[1] == "D2H 64 B"
    assert not counts.mixed
    assert attention.calls.total() == 1


def test_a_step_is_counted_with_its_lines_of_code(monkeypatch, capsys):
    small = ("opt-125m", "--layers", "1", "--batch", "1", "--length", "4")
    assert count(monkeypatch, *small, "--modes", "two_forwards") == 0
    out = capsys.readouterr().out
    assert re.search(r"two_forwards: a step: \d+ launches, 2 of them attention; ", out)
    assert "scripts/bench/modes.py:" in out


def test_help_describes_the_script(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        count(monkeypatch, "--help")
    assert stop.value.code == 0
    assert "without a GPU" in capsys.readouterr().out


def test_rows_that_the_model_cannot_process_are_refused(monkeypatch, capsys):
    assert count(monkeypatch, "opt-125m", "--length", "5000") == 2
    assert "--length: given 5000; allowed: from 2 to" in capsys.readouterr().err
