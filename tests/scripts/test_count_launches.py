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
from bench import models, modes  # noqa: E402
from gpu.counting import AttentionCounter, Counts, LaunchCounter, triton_kernels  # noqa: E402


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


def counted(name, layers, length, options, mode="answer_only"):
    """Return what a step of a bfloat16 model does on a GPU, and a fold's launches per matrix."""
    config = models.config_of(name, models.KNOWN[name].overridden(layers, None, None))
    model = models.random_model(config, torch.bfloat16, torch.device("meta"))
    masked = models.is_masked(config)
    counter = LaunchCounter(max(2, options) if masked else options)
    with counter, AttentionCounter(), triton_kernels(counter):
        job = modes.work(model, masked, 16, length, options)
        running = modes.modes(job, 2, 32, None)[mode]()
        running.step()
        counter.counts = step = Counts()
        running.step()
        counter.counts = Counts()
        running.refill()
        counter.counts = fold = Counts()
        running.fold()
    matrices = sum(x.ndim >= 2 for x in job.X.values())
    return step, sum(n for key, n in fold.launches.items() if "engine/fold" in key) / matrices


SHAPES = {
    "opt-13b, 16 x 200": ("opt-13b", 40, 200, 1, 2300),
    "opt-13b, 16 x 30, 2 options": ("opt-13b", 40, 30, 2, 1200),
    "opt-1.3b, 16 x 30, 2 options": ("opt-1.3b", 24, 30, 2, 750),
    "roberta-large, 16 x 60": ("roberta-large", 24, 60, 2, 750),
    "llama-2-7b, 16 x 30, 2 options": ("llama-2-7b", 32, 30, 2, 1800),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_of_lozo_starts_few_kernels_and_copies_next_to_nothing(shape):
    """With 32 columns of closed periods; the numbers grow linearly with the layers."""
    name, layers, length, options, most = SHAPES[shape]
    (two, fold), (four, _) = (counted(name, n, length, options) for n in (2, 4))
    each = (four.launches.total() - two.launches.total()) / 2
    assert two.launches.total() + (layers - 2) * each <= most
    assert four.copied <= 1000
    assert not four.mixed
    ours = [key for key in four.synchronizations if "finite.py" in key]
    assert sum(four.synchronizations[key] for key in ours) == 1
    assert 1 <= fold <= 3
