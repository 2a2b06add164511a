"""The provenance of a result."""

from __future__ import annotations

import mmap
import sys

import pytest
import torch

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


def test_versions_lists_the_packages_a_result_depends_on():
    assert {"python", "lozo-bench", "torch", "transformers", "hydra-core"} <= set(versions())
    assert versions()["torch"] == torch.__version__


def test_git_state_is_the_commit_and_whether_files_changed():
    state = git_state()
    assert state is None or (len(state["commit"]) == 40 and isinstance(state["dirty"], bool))
