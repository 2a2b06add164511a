"""Where a run continues after its files were damaged, lost or replaced; nothing usable is lost."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from lozo_bench.errors import UserError
from lozo_bench.runs.blocks import unpack
from lozo_bench.runs.checkpoints import Checkpoints
from lozo_bench.runs.history import HistoryWriter
from lozo_bench.runs.recall import recall

EVERY, STEPS = 5, 20


def made(folder, digest="d1", replayable=False, steps=STEPS, name="first"):
    """Write the journal and checkpoints of a run that was interrupted after some steps."""
    folder.mkdir(exist_ok=True)
    past, _ = recall(folder, digest, replayable)
    states = Checkpoints(folder / "checkpoints", keep=2)
    header = past.header or {"digest": digest, "wandb_id": name}
    history = HistoryWriter(folder, past, header, EVERY, states, replayable, lambda: None)
    for step in range(past.known + 1, steps + 1):
        history.step_made(step, [torch.tensor([1.0 / step])], {"forwards": 2 * step})
        if step % EVERY == 0:
            history.evaluated(step, "dev", {"accuracy": 0.5, "loss": 1 / step})
            best = {"step": step, "dev": {"accuracy": 0.5, "loss": 1 / step}}
            history.save_state(step, {"w": torch.full((2,), float(step))}, {"best": best})
    history.flush()
    history.close()
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def make_former(folder):
    """Turn the checkpoints into those of a former version."""
    for path in (folder / "checkpoints").glob("*.json"):
        line = json.loads(path.read_text())
        former = {key: line[key] for key in ("step", "told", "blake2b")}
        path.write_text(json.dumps(former) + "\n")


@pytest.mark.parametrize("replayable", [False, True])
@pytest.mark.parametrize("damage", ["gone", "empty", "headers", "middle"])
def test_a_run_continues_from_its_checkpoint_without_its_journal(
    tmp_path, caplog, replayable, damage
):
    folder = made(tmp_path / "run", replayable=replayable)
    whole, _ = recall(folder, "d1", replayable)
    path = folder / "journal.bin"
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        for at in (len(data) // 2,) if damage == "middle" else (0, unpack(bytes(data), 0)[1]):
            data[at] ^= 1
        path.write_bytes(b"" if damage == "empty" else data)
    states = sorted(path.name for path in (folder / "checkpoints").iterdir())
    past, _ = recall(folder, "d1", replayable)
    assert (past.known, past.state_step) == (20, 20)
    assert past.header == whole.header
    assert past.log.evaluations == whole.log.evaluations
    assert past.spent() == whole.spent()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == states
    assert (folder / "journal.bin.damaged").exists() == (damage in ("headers", "middle"))
    assert "journal.bin" in caplog.text
    # It is written on, and read again as a run that was never damaged.
    made(folder, replayable=replayable, steps=25)
    again, _ = recall(folder, "d1", replayable)
    assert (again.known, again.losses(25)) == (25, [torch.tensor([1.0 / 25])])
    # If the checkpoints are lost then, a run that can be replayed begins before the lost part.
    shutil.rmtree(folder / "checkpoints")
    last, _ = recall(folder, "d1", replayable)
    assert last.known == (10 if replayable and damage == "middle" else 0)


def test_a_damaged_header_is_replaced_by_its_copy(tmp_path, caplog):
    folder = made(tmp_path / "run", replayable=True)
    path = folder / "journal.bin"
    whole, data = recall(folder, "d1", replayable=True)
    shutil.rmtree(folder / "checkpoints")
    path.write_bytes(data[:9] + b"?" + data[10:])
    past, _ = recall(folder, "d1", replayable=True)
    assert (past.known, past.header) == (20, whole.header)
    assert "copy is used" in caplog.text
    assert (folder / "journal.bin.damaged").exists()
    assert recall(folder, "d1", replayable=True)[0].known == 20


def test_a_crash_within_a_block_leaves_no_file_aside(tmp_path):
    folder = made(tmp_path / "run", replayable=True)
    data = (folder / "journal.bin").read_bytes()
    (folder / "journal.bin").write_bytes(data[:-7])
    recall(folder, "d1", replayable=True)
    assert not (folder / "journal.bin.damaged").exists()


@pytest.mark.parametrize("former", [False, True])
def test_checkpoints_of_another_run_are_not_used_and_kept(tmp_path, caplog, former):
    folder = made(tmp_path / "run", steps=8)
    other = made(tmp_path / "other", digest="d2", steps=10, name="second")
    if former:
        make_former(other)
    copied = {}
    for path in (other / "checkpoints").glob("step-00000010*"):
        copied[path.name] = shutil.copy(path, folder / "checkpoints") and path.read_bytes()
    past, _ = recall(folder, "d1", replayable=False)
    assert past.state_step == 5
    assert "step-00000010.safetensors" in caplog.text
    for name, data in copied.items():
        assert (folder / "checkpoints" / f"{name}.unusable").read_bytes() == data


def test_a_run_of_a_former_version_continues(tmp_path):
    make_former(folder := made(tmp_path / "run", steps=12))
    past, _ = recall(folder, "d1", replayable=False)
    assert (past.known, past.state_step) == (10, 10)


@pytest.mark.parametrize(("old", "new"), [('"step": 10, "dev"', '"step": 5, "dev"'), ("best", "c")])
def test_a_former_checkpoint_that_contradicts_the_journal_is_not_used(tmp_path, old, new):
    make_former(folder := made(tmp_path / "run", steps=12))
    path = folder / "checkpoints" / "step-00000010.json"
    path.write_text(path.read_text().replace(old, new))
    assert recall(folder, "d1", replayable=False)[0].state_step == 5


@pytest.mark.parametrize("replayable", [False, True])
def test_a_former_checkpoint_without_its_journal_is_refused_and_everything_kept(
    tmp_path, replayable
):
    make_former(folder := made(tmp_path / "run", replayable=replayable))
    (folder / "journal.bin").rename(tmp_path / "journal.bin")
    before = contents(folder)
    with pytest.raises(UserError, match=r"journal\.bin: is missing, and the checkpoint of step 20"):
        recall(folder, "d1", replayable)
    assert contents(folder) == before
    (tmp_path / "journal.bin").rename(folder / "journal.bin")
    assert recall(folder, "d1", replayable)[0].known == 20
