"""Which GPUs there are, without asking CUDA, and whose turn it is."""

from __future__ import annotations

import pytest

from lozo_bench.launch.gpus import Deck, listed_gpus, visible

LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22)
  MIG 3g.20gb     Device  0: (UUID: MIG-a)
  MIG 3g.20gb     Device  1: (UUID: MIG-b)
"""


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ("0,2", ["0", "2"]),
        (" 1 , GPU-8f", ["1", "GPU-8f"]),
        ("", []),
        ("-1", []),
        ("0,-1,2", ["0"]),
    ],
)
def test_what_cuda_may_see_is_what_the_environment_says(monkeypatch, told, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert visible() == names


def test_without_a_word_from_the_environment_nvidia_smi_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: X (UUID: GPU-7)'\n")
    program.chmod(0o755)
    assert visible() == ["GPU-7"]
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert visible() == []


def test_a_gpu_that_is_divided_counts_by_its_parts():
    assert listed_gpus(LISTED) == ["GPU-11", "MIG-a", "MIG-b"]


def test_the_gpu_with_the_fewest_cells_comes_next():
    deck = Deck(["a", "b", "c"])
    assert [deck.take() for _ in range(4)] == ["a", "b", "c", "a"]
    deck.give_back("b")
    assert deck.take() == "b"
    deck.give_back("a")
    deck.give_back("a")
    assert [deck.take(), deck.take()] == ["a", "a"]


def test_without_gpus_nothing_is_dealt():
    deck = Deck([])
    deck.give_back(deck.take())
    assert deck.take() is None
