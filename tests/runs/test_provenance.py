"""The provenance of a result."""

from __future__ import annotations

import mmap
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

import lozo_bench
from lozo_bench.runs import provenance
from lozo_bench.runs.provenance import git_state, peak_memory_bytes, reset_peak_memory, versions

CPU = torch.device("cpu")


@pytest.mark.skipif(
    sys.platform != "linux", reason="the peak memory of a CPU process can be reset on Linux only"
)
def test_the_peak_memory_can_be_reset_for_each_cell():
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    # Take new pages from the system: the allocator could reuse memory that earlier tests freed.
    with mmap.mmap(-1, 100_000_000) as block:
        block.write(b"1" * len(block))
    assert peak_memory_bytes(CPU) - before > 90_000_000
    reset_peak_memory(CPU)
    assert peak_memory_bytes(CPU) - before < 50_000_000


def test_where_the_peak_cannot_be_reset_it_is_said_to_be_that_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr("lozo_bench.runs.provenance._RESET_PEAK", tmp_path / "absent" / "refs")
    assert reset_peak_memory(CPU) == "process"


def test_what_an_earlier_cell_left_does_not_count_as_the_next_one_s_memory():
    left = [torch.ones(20_000_000)]
    left.append(left)  # only a garbage collection frees it
    del left
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    torch.ones(20_000_000)
    assert peak_memory_bytes(CPU) - before > 60_000_000


def test_versions_lists_the_packages_a_result_depends_on():
    assert {"python", "lozo-bench", "torch", "transformers", "hydra-core"} <= set(versions())
    assert versions()["torch"] == torch.__version__


def test_a_package_without_metadata_has_the_version_it_says_and_an_absent_one_none(monkeypatch):
    def not_installed(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(provenance, "version", not_installed)
    monkeypatch.setitem(sys.modules, "wandb", None)
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["lozo-bench"] == lozo_bench.__version__
    assert "wandb" not in found


def test_git_state_is_the_commit_and_whether_files_changed():
    state = git_state()
    if not (Path(__file__).parents[2] / ".git").exists():
        assert state is None
    else:
        assert len(state["commit"]) == 40
        assert isinstance(state["dirty"], bool)


def test_the_peaks_of_all_gpus_are_added(monkeypatch):
    peaks, reset = [7, 5, 0], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    first_of_several = torch.device("cuda", 0)
    assert reset_peak_memory(first_of_several) == "run"
    assert reset == [0, 1, 2]
    assert peak_memory_bytes(first_of_several) == 12
