"""The journal: what is written can be read again, also from a damaged file."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lozo_bench.runs.journal import Journal, read, up_to

HEADER = {"digest": "0a1b2c3d"}
SPENT = {"backwards": 0, "examples": 0, "bad_steps": 0, "bad_in_a_row": 0, "sittings": 1}


def written(path, blocks, dtype=torch.float32):
    """Write a journal with one block per list of steps; a step is a list of tensors."""
    journal = Journal(path, 0, HEADER, {})
    step = 0
    for block in blocks:
        for answers in block:
            step += 1
            costs = {"forwards": 2 * step, "tokens": 777 * step, "elapsed_s": 0.1 * step}
            journal.step([answer.to(dtype) for answer in answers], SPENT | costs)
        journal.flush()
    journal.close()
    return path.read_bytes()


def steps(count, start=0):
    return [[torch.tensor([1.0 + i, -0.5 * i])] for i in range(start, start + count)]


def test_answers_are_read_back_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    answers = [
        [torch.randn(2, generator=generator)],
        [torch.randn(2, 5, generator=generator), torch.randn(3, generator=generator)],
        [],
        [torch.tensor([float("nan"), float("-inf")])],
    ]
    log = read(written(tmp_path / "j", [answers[:3], answers[3:]]))
    assert log.header["digest"] == "0a1b2c3d"
    assert len(log.steps) == 4
    for before, after in zip(answers, log.steps, strict=True):
        assert len(before) == len(after)
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert log.spent["forwards"] == 8
    assert not log.damage


def test_float64_answers_keep_all_their_bits(tmp_path):
    log = read(written(tmp_path / "j", [[[torch.tensor([1 / 3])]]], torch.float64))
    assert log.steps[0][0].dtype == torch.float64
    assert log.steps[0][0].item() == torch.tensor([1 / 3], dtype=torch.float32).double().item()


def test_evaluations_are_read_back(tmp_path):
    journal = Journal(tmp_path / "j", 0, HEADER, {})
    journal.evaluation(0, "zero_shot", {"accuracy": 0.5, "loss": 0.1 + 0.2})
    journal.flush()
    journal.close()
    log = read((tmp_path / "j").read_bytes())
    assert log.evaluations == {(0, "zero_shot"): {"accuracy": 0.5, "loss": 0.1 + 0.2}}


def test_a_journal_cut_off_at_any_byte_yields_the_complete_blocks(tmp_path):
    data = written(tmp_path / "j", [steps(3), steps(2, 3), steps(4, 5)])
    ends = read(data).ends
    assert [last for _, last in ends] == [0, 0, 3, 5, 9]  # the header and its copy first
    for length in range(len(data)):
        log = read(data[:length])
        whole = [last for end, last in ends if end <= length]
        assert len(log.steps) == (whole[-1] if whole else 0)
        assert bool(log.damage) == (length not in [0, *(end for end, _ in ends)])


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_reading_stops_before_a_block_with_a_flipped_bit(tmp_path_factory, at, bit):
    data = written(tmp_path_factory.mktemp("log") / "j", [steps(3), steps(2, 3), steps(4, 5)])
    ends = [(0, 0), *read(data).ends]
    at %= len(data)
    flipped = bytearray(data)
    flipped[at] ^= 1 << bit
    log = read(bytes(flipped))
    assert len(log.steps) == max(last for end, last in ends if end <= at)
    assert "damaged" in log.damage


def test_up_to_cuts_at_the_end_of_a_block(tmp_path):
    data = written(tmp_path / "j", [steps(3), steps(2, 3)])
    assert len(read(up_to(read(data), data, 3)).steps) == 3
    assert len(read(up_to(read(data), data, 4)).steps) == 3
    assert read(up_to(read(data), data, 0)).header == read(data).header
    assert up_to(read(data), data, 5) == data


def test_steps_are_appended_to_an_existing_journal(tmp_path):
    written(tmp_path / "j", [steps(3)])
    journal = Journal(tmp_path / "j", 3, {"digest": "not written again"}, {})
    for answers in steps(2, 3):
        journal.step(answers, {})
    journal.flush()
    journal.close()
    log = read((tmp_path / "j").read_bytes())
    assert [float(answers[0][0]) for answers in log.steps] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert log.header["digest"] == "0a1b2c3d"


def test_a_full_disk_leaves_the_file_unchanged_and_loses_no_steps(tmp_path, monkeypatch):
    before = written(tmp_path / "j", [steps(3)])
    journal = Journal(tmp_path / "j", 3, HEADER, {})
    for answers in steps(2, 3):
        journal.step(answers, {})

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            journal.flush()
    assert (tmp_path / "j").read_bytes() == before
    journal.flush()
    journal.close()
    assert len(read((tmp_path / "j").read_bytes()).steps) == 5


def test_twenty_thousand_steps_of_two_losses_take_at_most_160_kB(tmp_path):
    generator = torch.Generator().manual_seed(0)
    loss = 0.7 + 0.1 * torch.randn(20_000, generator=generator)
    slope = 1e-3 * torch.randn(20_000, generator=generator)
    answers = [[torch.stack(pair)] for pair in zip(loss, slope, strict=True)]
    data = written(tmp_path / "j", [answers[i : i + 100] for i in range(0, 20_000, 100)])
    assert len(data) <= 160_000
