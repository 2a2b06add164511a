"""What a snapshot of an engine copies, when, and to where."""

from __future__ import annotations

import errno
import gc
import os

import pytest
import torch

from lozo_bench.engine import host_memory, stored
from lozo_bench.engine import snapshot as snapshot_file
from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.host_memory import HostCopies, available_bytes
from lozo_bench.engine.in_place import InPlace
from lozo_bench.engine.snapshot import Snapshot
from lozo_bench.engine.stored import put
from lozo_bench.engine.subspace import Subspace, along
from lozo_bench.engine.tensors import fingerprint, fingerprints, same_bits
from lozo_bench.randomness.draws import Draws

W, B = "X/weight", "X/bias"


@pytest.fixture
def copied(monkeypatch):
    """Collect the shape of each copy to the host."""
    shapes, copy = [], HostCopies.copy

    def counted(self, x):
        shapes.append(tuple(x.shape))
        return copy(self, x)

    monkeypatch.setattr(HostCopies, "copy", counted)
    return shapes


def fused(rounding="stochastic", dtype=torch.bfloat16, max_rank=4):
    net = torch.nn.Linear(40, 30).to(dtype).eval()
    X = dict(net.named_parameters())
    return Fused(net, X, Folder(rounding, Draws(0)), max_rank)


def walk(engine, periods):
    """Move along two directions of each period."""
    for t in periods:
        f = Draws(1).normal("P", t, {"V": (40, 2), "U0": (30, 2), "U1": (30, 2), "z": (30, 1)})
        V = {"weight": f["V"]}
        for u in ("U0", "U1"):
            P = Subspace({"weight": f[u]}, V, {"bias": f["z"]})
            engine.move(P, along(P, 1e-3))


def test_until_a_fold_no_weight_is_copied(copied):
    engine = fused()
    walk(engine, range(2))
    before = engine.snapshot()
    wanted = fingerprint(engine.state())
    walk(engine, [2])
    assert (30, 40) not in copied
    assert before.tensors()[W] is engine.X["weight"]
    assert fingerprint(before.tensors()) == wanted
    assert fingerprint(before.on_cpu()) == wanted
    assert before.on_cpu()[W].data_ptr() != engine.X["weight"].data_ptr()
    engine.load_state(before.tensors())
    assert (30, 40) not in copied
    assert fingerprint(engine.tensors()) == wanted


@pytest.mark.parametrize("rounding", ["stochastic", "residual"])
@pytest.mark.parametrize("what", ["fold", "flush", "decay", "load"])
def test_a_weight_is_copied_once_before_it_is_written_to(copied, rounding, what):
    engine = fused(rounding)
    before_all = engine.state()
    walk(engine, range(6))
    snapshot, wanted = engine.snapshot(), fingerprint(engine.state())
    match what:
        case "fold":
            walk(engine, range(6, 14))
        case "flush":
            engine.flush()
        case "decay":
            engine.decay(0.1)
            walk(engine, range(6, 9))
        case "load":
            engine.load_state(before_all)
    assert not same_bits(engine.tensors(), snapshot.tensors())
    assert fingerprint(snapshot.tensors()) == wanted
    residual = rounding == "residual" and what != "load"
    assert copied.count((30, 40)) == 1 + residual
    engine.load_state(snapshot.tensors())
    assert fingerprint(engine.tensors()) == wanted


def test_a_snapshot_that_nobody_holds_copies_nothing(copied):
    engine = fused()
    snapshot = engine.snapshot()
    del snapshot
    gc.collect()
    walk(engine, range(8))
    assert (30, 40) not in copied


def test_in_place_the_copies_of_the_snapshot_before_are_used_again():
    net = torch.nn.Linear(40, 30).eval()
    engine = InPlace(dict(net.named_parameters()))
    first = engine.snapshot()
    address = first.tensors()[W].data_ptr()
    walk(engine, [0])
    second = engine.snapshot(spare=first)
    assert second.tensors()[W].data_ptr() == address
    assert same_bits(second.tensors(), engine.state())
    assert first.tensors() == {}


def test_the_copy_before_a_fold_goes_to_the_memory_of_the_one_before(copied):
    engine = fused()
    snapshot, t = None, 0
    addresses = set()
    for _ in range(3):  # with a snapshot in between that no fold follows
        snapshot = engine.snapshot(spare=engine.snapshot(spare=snapshot))
        wanted = fingerprint(engine.tensors())
        walk(engine, range(t, t + 6))
        t += 6
        assert fingerprint(snapshot.tensors()) == wanted
        addresses.add(snapshot.tensors()[W].data_ptr())
    assert copied.count((30, 40)) == len(addresses) == 1


def test_a_weight_that_is_written_to_behind_the_engines_back_is_no_silent_error():
    engine = fused()
    snapshot = engine.snapshot()
    with torch.no_grad():
        engine.X["weight"].add_(1)
    with pytest.raises(RuntimeError, match=r"X/weight: written to outside of the engine"):
        snapshot.tensors()


def test_two_states_with_the_same_weights_hash_these_once():
    engine = fused()
    walk(engine, range(2))
    snapshot = engine.snapshot()
    walk(engine, [2])
    now, then = fingerprints(engine.tensors(), snapshot.tensors())
    assert now == fingerprint(engine.tensors())
    assert then == fingerprint(snapshot.tensors()) != now


@pytest.fixture
def all_large(monkeypatch):
    """Let tensors of any size go to a file, in pieces of 64 bytes."""
    monkeypatch.setattr(snapshot_file, "LEAST_BYTES", 1)
    monkeypatch.setattr(stored, "PIECE_BYTES", 64)


WEIGHTS = {
    "X/w": torch.randn(30, 40).bfloat16().T,
    "X/p": torch.randn(33, dtype=torch.float64),
    "folder/residual/w": torch.randn(7, 9).bfloat16(),
    "keep": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.empty(0, 3),
}


def test_weights_are_copied_to_a_file_without_a_name(all_large, copied, tmp_path):
    snapshot = Snapshot(WEIGHTS, scratch=tmp_path)
    assert copied == [(), (0, 3)]
    assert not list(tmp_path.iterdir())
    assert fingerprint(snapshot.tensors()) == fingerprint(WEIGHTS)
    assert same_bits(snapshot.on_cpu(), WEIGHTS)
    for name, x in WEIGHTS.items():
        again = torch.zeros_like(x)  # with the strides of x
        put(again, snapshot.tensors()[name])
        assert torch.equal(again, x)


def test_the_file_of_the_snapshot_before_is_written_over(all_large, tmp_path):
    first = Snapshot(WEIGHTS, scratch=tmp_path)
    place = first.tensors()["X/w"]
    changed = {name: x + 1 for name, x in WEIGHTS.items()}
    second = Snapshot(changed, scratch=tmp_path, spare=first)
    assert second.tensors()["X/w"] is place
    assert fingerprint(second.tensors()) == fingerprint(changed)


@pytest.mark.parametrize("rounding", ["stochastic", "residual"])
def test_an_engine_restores_what_is_in_a_file(all_large, copied, rounding, tmp_path):
    engine = fused(rounding)
    walk(engine, range(6))
    snapshot, wanted = engine.snapshot(tmp_path), fingerprint(engine.state())
    walk(engine, range(6, 14))
    assert (30, 40) not in copied
    assert fingerprint(engine.tensors()) != wanted
    assert fingerprint(snapshot.tensors()) == wanted
    engine.load_state(snapshot.tensors())
    assert fingerprint(engine.tensors()) == wanted


def test_in_place_restores_what_is_in_a_file(all_large, copied, tmp_path):
    engine = InPlace(dict(torch.nn.Linear(40, 30).eval().named_parameters()))
    snapshot, wanted = engine.snapshot(tmp_path), fingerprint(engine.state())
    walk(engine, [0])
    engine.load_state(snapshot.tensors())
    assert fingerprint(engine.tensors()) == wanted
    assert copied == []


def test_a_full_disk_leaves_the_copies_in_memory_if_there_is_room(
    all_large, monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(os, "posix_fallocate", full)
    snapshot = Snapshot(WEIGHTS, scratch=tmp_path)
    assert same_bits(snapshot.tensors(), WEIGHTS)
    assert f"do not fit into {tmp_path} (No space left on device)" in caplog.text


def test_a_disk_and_a_memory_without_room_are_an_error_of_the_folder(
    all_large, monkeypatch, tmp_path
):
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as raised:
        Snapshot(WEIGHTS, scratch=tmp_path)
    assert raised.value.filename == str(tmp_path)
    assert not list(tmp_path.iterdir())


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("cgroup", "limits", "left"),
    [
        ("", {}, 8_000_000),
        ("0::/a/b\n", {"a/b": ("memory.max", "max", "anon 5")}, 8_000_000),
        ("0::/a/b\n", {"a": ("memory.max", "3000000", "file 9\nanon 5")}, 2_999_995),
        (
            "4:cpu:/\n3:memory:/job\n",
            {"memory/job": ("memory.limit_in_bytes", "7000", "total_rss 8000")},
            0,
        ),
    ],
    ids=["none", "no limit", "version 2", "version 1"],
)
def test_the_limit_of_a_container_or_a_job_counts(monkeypatch, tmp_path, cgroup, limits, left):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 7813 kB\n")
    (tmp_path / "cgroup").write_text(cgroup)
    for folder, (name, limit, stat) in limits.items():
        (tmp_path / "fs" / folder).mkdir(parents=True)
        (tmp_path / "fs" / folder / name).write_text(f"{limit}\n")
        (tmp_path / "fs" / folder / "memory.stat").write_text(f"{stat}\n")
    monkeypatch.setattr(host_memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(host_memory, "_CGROUPS", str(tmp_path / "fs"))
    assert available_bytes() == pytest.approx(left, rel=1e-3)
    monkeypatch.setattr(host_memory, "_MEMORY", tmp_path / "absent")
    assert available_bytes() is None
