"""Fingerprints: the bytes of tensors reach the host in pieces."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
import torch

from lozo_bench.engine import to_host
from lozo_bench.engine.tensors import fingerprint, fingerprints
from lozo_bench.engine.to_host import bytes_of

GENERATOR = torch.Generator().manual_seed(0)
TENSORS = {
    "b": torch.randn(7, 33, generator=GENERATOR).bfloat16(),
    "a": torch.randn(1001, generator=GENERATOR, dtype=torch.float64),
    "not contiguous": torch.randn(30, 20, generator=GENERATOR).T,
    "empty": torch.empty(0, 3),
    "number": torch.tensor(2.5),
    "mask": torch.tensor([True, False]),
}


def written_out(tensors):
    """The definition: names, dtypes, shapes and bytes, one tensor after another."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        x = tensors[name].contiguous()
        hasher.update(f"{name} {x.dtype} {tuple(x.shape)};".encode())
        hasher.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


@pytest.fixture(params=["on the CPU", "through two buffers"])
def where(request, monkeypatch):
    """Tensors that are read where they are, and tensors that pass through buffers of 64 bytes."""
    monkeypatch.setattr(to_host, "PIECE_BYTES", 64)
    if request.param == "through two buffers":
        arriving = []

        class Late:
            """A copy that is complete only when it was waited for, as on a GPU."""

            def __init__(self, device):
                self.rows = list(arriving)
                arriving.clear()

            def synchronize(self):
                for host, right in self.rows:
                    host.copy_(right)

        class Buffer:
            def __init__(self):
                self.bytes = torch.zeros(64, dtype=torch.uint8)

            def __getitem__(self, part):
                return Destination(self.bytes[part])

        class Destination:
            def __init__(self, host):
                self.host = host

            def copy_(self, here, non_blocking):
                assert non_blocking
                arriving.append((self.host, here.clone()))
                return self.host

        monkeypatch.setattr(to_host, "_is_on_gpu", lambda x: True)
        monkeypatch.setattr(to_host, "_buffer", Buffer)
        monkeypatch.setattr(to_host, "_after_all", Late)


def test_a_fingerprint_is_that_of_all_bytes(where):
    assert fingerprint(TENSORS) == written_out(TENSORS)
    assert fingerprint({}) == written_out({})


def test_two_fingerprints_hash_what_both_begin_with_once(where, monkeypatch):
    other = {**TENSORS, "mask": torch.tensor([False, False]), "one more": torch.ones(3)}
    hashed = []

    def counted(tensors):
        tensors = list(tensors)
        hashed.extend(tensors)
        return bytes_of(tensors)

    monkeypatch.setattr("lozo_bench.engine.tensors.bytes_of", counted)
    assert fingerprints(TENSORS, other) == (written_out(TENSORS), written_out(other))
    assert sum(x is TENSORS["a"] for x in hashed) == 1
    assert len(hashed) == 3 + 3 + 4


def test_tensors_on_the_cpu_are_not_copied():
    x = {"x": torch.zeros(5_000_000)}
    tracemalloc.start()
    pieces = [len(data) for _, data in bytes_of(x.values())]
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert sum(pieces) == 20_000_000
    (piece,) = (data for _, data in bytes_of([x["x"][:4]]))
    x["x"][0] = 1.0
    assert bytes(piece[:4]) != bytes(4)
