"""bench_population.py: three ways of scoring a population do the same work, and a row for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import bench_population
from bench import models


def bench(monkeypatch, *arguments):
    """Run the script with these arguments and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["bench_population.py", *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        return bench_population.main()
    finally:
        torch.set_num_threads(threads)


def test_a_quick_run_prints_a_row_for_each_way_and_writes_the_numbers(
    monkeypatch, capsys, tmp_path
):
    generator = torch.get_rng_state()
    assert bench(monkeypatch, "--quick", "--json", tmp_path / "found.json") == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert json.loads(out.splitlines()[-1]) == found
    assert list(found["modes"]) == ["prefix", "full", "published"]
    for name, row in found["modes"].items():
        assert any(line.startswith(name) for line in out.splitlines())
        assert 0 < row["s_min"] <= row["s_median"] <= row["s_max"]
        assert row["peak_MiB"] > 0
    assert found["modes"]["full"]["of_full"] == found["modes"]["published"]["of_published"] == 1
    assert found["largest_difference_of_losses"] < 1e-5
    assert found["torch"] == torch.__version__
    assert torch.equal(torch.get_rng_state(), generator)


def test_both_ways_with_modules_have_the_same_losses_in_every_turn():
    sizes = models.KNOWN["roberta-large"].overridden(3, 64, 100)
    model = models.random_model(
        models.config_of("roberta-large", sizes), torch.float64, bench_population.CPU
    )
    job = bench_population.Job(model, rows=3, tokens=6, population=2, rank=2)
    ours, published = bench_population.Prefix(job), bench_population.Published(job)
    published.model.double()
    for i in (0, 1, 2, 0):
        found = ours.turn(i)
        torch.testing.assert_close(found, published.turn(i).double(), rtol=0, atol=1e-9)
        assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize(("option", "value"), [("--layers", 1), ("--hidden", 100), ("--rows", 0)])
def test_a_size_that_cannot_be_used_is_refused(option, value, monkeypatch, capsys):
    assert bench(monkeypatch, option, value) == 2
    assert capsys.readouterr().err.startswith(f"{option}: given {value}; allowed: a ")
