"""Listing GPUs without CUDA, and assigning them to cells."""

from __future__ import annotations

import pytest

from lozo_bench.launch.gpus import GpuPool, listed_gpus, visible

LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22)
  MIG 3g.20gb     Device  0: (UUID: MIG-a)
  MIG 3g.20gb     Device  1: (UUID: MIG-b)
"""


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        ("0,2", ["0", "2"]),
        (" 1 , GPU-8f", ["1", "GPU-8f"]),
        ("", []),
        ("-1", []),
        ("0,-1,2", ["0"]),
    ],
)
def test_visible_gpus_are_read_from_cuda_visible_devices(monkeypatch, variable, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible() == names


def test_without_cuda_visible_devices_nvidia_smi_lists_the_gpus(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: X (UUID: GPU-7)'\n")
    program.chmod(0o755)
    assert visible() == ["GPU-7"]
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert visible() == []


def test_a_gpu_with_mig_is_replaced_by_its_instances():
    assert listed_gpus(LISTED) == ["GPU-11", "MIG-a", "MIG-b"]


def test_the_gpu_with_the_fewest_cells_is_assigned_next():
    pool = GpuPool(["a", "b", "c"])
    assert [pool.take() for _ in range(4)] == ["a", "b", "c", "a"]
    pool.give_back("b")
    assert pool.take() == "b"
    pool.give_back("a")
    pool.give_back("a")
    assert [pool.take(), pool.take()] == ["a", "a"]


def test_without_gpus_none_is_assigned():
    pool = GpuPool([])
    pool.give_back(pool.take())
    assert pool.take() is None
