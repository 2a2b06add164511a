"""Checkpoints are written atomically, and a failed save leaves the one before unchanged."""

from __future__ import annotations

import errno
import json
import os
import resource

import pytest
import torch

from lozo_bench.runs.checkpoints import Checkpoint, Checkpoints
from lozo_bench.runs.files import sealed


def state(step):
    tensors = {"engine/X/w": torch.full((3, 2), float(step)), "optimizer/t": torch.tensor(step)}
    return Checkpoint(step, tensors, {"best": None})


def saved(folder, *steps, keep=5):
    states = Checkpoints(folder / "checkpoints", keep)
    for step in steps:
        states.save(state(step))
    return states


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_checkpoint_is_read_back_as_it_was_saved(tmp_path):
    tensors = {
        "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "flag": torch.tensor(True),
        "nothing": torch.zeros(0, 3),
    }
    states = Checkpoints(tmp_path / "checkpoints", 2)
    states.save(Checkpoint(12, tensors, {"best": {"step": 10}}))
    found = states.newest(12)
    assert (found.step, found.metadata) == (12, {"best": {"step": 10}})
    for name, x in tensors.items():
        assert found.tensors[name].dtype == x.dtype
        assert torch.equal(found.tensors[name], x)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    saved(tmp_path, 10, 20, 30, keep=2)
    assert names(tmp_path) == [
        "step-00000020.json", "step-00000020.safetensors",
        "step-00000030.json", "step-00000030.safetensors",
    ]  # fmt: skip


def test_newest_returns_no_step_after_the_limit(tmp_path):
    states = saved(tmp_path, 10, 20, 30)
    assert states.newest(25).step == 20
    assert states.newest(5) is None
    assert states.newest().step == 30


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, caplog, suffix, damage):
    states = saved(tmp_path, 10, 20)
    path = tmp_path / "checkpoints" / f"step-00000020{suffix}"
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        middle = len(data) // 2
        data[middle] ^= 255
        path.write_bytes({"cut": data[:middle], "flipped": data, "empty": b""}[damage])
    assert states.newest(99).step == 10
    if (damage, suffix) != ("gone", ".json"):  # it was never complete, so there is no warning
        assert "step-00000020.safetensors is damaged and is skipped" in caplog.text


def test_after_a_crash_anywhere_a_whole_checkpoint_remains(tmp_path, monkeypatch):
    """Each sync and each rename of a save fails once."""
    states = saved(tmp_path, 10)
    calls = {"count": 0, "fail_at": 0}

    def failing(original):
        def call(*arguments):
            calls["count"] += 1
            if calls["count"] == calls["fail_at"]:
                raise OSError(28, "No space left on device")
            return original(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr("pathlib.Path.replace", failing(type(tmp_path).replace))
        for fail_at in range(1, 7):
            calls |= {"count": 0, "fail_at": fail_at}
            with pytest.raises(OSError, match="No space left"):
                states.save(state(20))
            survivor = states.newest(99)
            assert survivor.step in (10, 20)
            assert torch.equal(
                survivor.tensors["engine/X/w"], state(survivor.step).tensors["engine/X/w"]
            )
    calls["fail_at"] = 0
    states.save(state(20))
    assert states.newest(99).step == 20


def test_no_pickle_is_loaded(tmp_path):
    """A checkpoint from an untrusted source cannot run code: only safetensors and JSON are read."""
    states = saved(tmp_path, 10)
    path = tmp_path / "checkpoints" / "step-00000010.safetensors"
    torch.save({"evil": 1}, path)
    line = json.loads(path.with_suffix(".json").read_text())
    import hashlib

    line = {key: line[key] for key in ("step", "told")}
    line = sealed(line | {"blake2b": hashlib.blake2b(path.read_bytes()).hexdigest()})
    path.with_suffix(".json").write_text(json.dumps(line))
    assert states.newest(99) is None


def test_a_full_disk_within_safetensors_is_an_oserror_and_changes_nothing(tmp_path):
    """safetensors reports it as an error of its own, with the system's number in the text."""
    states = saved(tmp_path, 10)
    before = names(tmp_path)
    larger = Checkpoint(20, {"x": torch.zeros(10_000)}, {"best": None})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            states.save(larger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.errno == errno.EFBIG
    assert refused.value.filename == str(tmp_path / "checkpoints" / "step-00000020.safetensors")
    assert names(tmp_path) == before
    assert states.newest(99).step == 10


def test_what_a_process_left_that_was_killed_while_it_wrote_is_removed(tmp_path):
    states = saved(tmp_path, 10)
    (tmp_path / "checkpoints" / ".tmpaB3xYz").write_bytes(b"half of the weights")
    states.save(state(20))
    assert not (tmp_path / "checkpoints" / ".tmpaB3xYz").exists()


def test_no_flipped_bit_of_the_json_file_is_believed(tmp_path):
    states = Checkpoints(tmp_path / "checkpoints", 2)
    best = {"step": 9, "dev": {"accuracy": 0.5, "loss": 0.25}}
    states.save(Checkpoint(18, {"w": torch.zeros(1)}, {"best": best}))
    path = tmp_path / "checkpoints" / "step-00000018.json"
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found = states.newest()
        assert found is None or found.metadata == {"best": best}
    path.write_bytes(data)
    assert states.newest().metadata == {"best": best}


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing", "link to itself"])
def test_a_checkpoint_that_is_no_file_is_skipped(tmp_path, suffix, kind):
    states = saved(tmp_path, 10, 20)
    path = tmp_path / "checkpoints" / f"step-00000020{suffix}"
    path.unlink()
    make = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link to nothing": lambda: path.symlink_to("nowhere"),
        "link to itself": lambda: path.symlink_to(path),
    }
    make[kind]()
    (tmp_path / "checkpoints" / "step-notes.json").write_text("not a checkpoint")
    assert states.newest().step == 10
    states.set_skipped_aside()
    assert states.steps() == [10]
    assert os.path.lexists(f"{path}.unusable")
