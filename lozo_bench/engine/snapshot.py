"""Snapshots of an engine's state, which copy a weight only when it is about to be written to.

A run keeps the state of its best step. The fused engine writes to the weights only when it folds.
Until then the weights themselves are a part of the snapshot, and nothing of their size is copied.
What changes with every step, the pending updates, is copied at once. Copies of weights go to a
file, so that the process never holds a second copy of its model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from weakref import WeakSet

from torch import Tensor

from lozo_bench.engine.host_memory import HostCopies
from lozo_bench.engine.stored import Kept, Stored
from lozo_bench.engine.tensors import on_cpu

# Tensors that are as large as the weights, and how large one must be to go to a file.
LARGE, LEAST_BYTES = ("X/", "folder/residual/"), 2**20


class Snapshot:
    """The tensors of an engine at one moment.

    Args:
        tensors: all tensors by name.
        shared: the names of those that are not copied yet; whoever writes to one of them calls
            `keep` first.
        scratch: a folder for the copies of weights; None: they are in memory.
        spare: a snapshot that is not needed any more; its copies are written over, which is several
            times faster than writing to new memory, and needs no second place on the disk.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        shared: Collection[str] = (),
        scratch: Path | None = None,
        spare: Snapshot | None = None,
    ) -> None:
        old = {} if spare is None else spare._released()
        self._names = list(tensors)
        self._shared = {name: tensors[name] for name in shared}
        self._versions = {name: _version(x) for name, x in self._shared.items()}
        self._copies = HostCopies(scratch)
        self._reserved = False
        self._spare = {
            name: old[name]
            for name, x in tensors.items()
            if _alike(old.get(name), x)
            and (isinstance(old[name], Stored) or scratch is None or not _is_large(name, x))
        }
        del old
        own = {name: x for name, x in tensors.items() if name not in self._shared}
        self._reserve(own)
        self._own: dict[str, Kept] = {name: self._copy(name, x) for name, x in own.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Snapshot:
        """Return a snapshot that consists of these tensors, which nobody else writes to."""
        snapshot = cls({})
        snapshot._names, snapshot._own = list(tensors), dict(tensors)
        return snapshot

    def keep(self, name: str) -> None:
        """Copy a tensor, if it is not copied yet, because it is about to be written to."""
        if name not in self._shared:
            return
        self._check(name)
        if not self._reserved:
            self._reserve(self._shared)
            self._reserved = True
        self._own[name] = self._copy(name, self._shared.pop(name))

    def tensors(self) -> dict[str, Kept]:
        """Return the tensors as they were; they must not be changed."""
        for name in self._shared:
            self._check(name)
        every: dict[str, Kept] = {**self._own, **self._shared}
        return {name: every[name] for name in self._names}

    def on_cpu(self) -> dict[str, Tensor]:
        """Return the tensors as they were, as contiguous ones on the CPU that no engine has."""
        own = {name: x.load() if isinstance(x, Stored) else x for name, x in self._own.items()}
        every = own | on_cpu(self._shared)
        return {name: every[name] for name in self.tensors()}

    def _check(self, name: str) -> None:
        if _version(self._shared[name]) != self._versions[name]:
            raise RuntimeError(
                f"{name}: written to outside of the engine since the snapshot of the best step"
            )

    def _reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Make room for what has none in the copies of the snapshot before."""
        new = [x for name, x in tensors.items() if name not in self._spare and _is_large(name, x)]
        self._copies.reserve(new)

    def _copy(self, name: str, x: Tensor) -> Kept:
        there = self._spare.pop(name, None)
        if there is None:
            return self._copies.store(x) if _is_large(name, x) else self._copies.copy(x)
        there.copy_(x.detach())
        return there

    def _released(self) -> dict[str, Kept]:
        memory = self._spare | self._own
        self._own, self._spare, self._shared, self._names = {}, {}, {}, []
        return memory


class Snapshots:
    """The snapshots of an engine that somebody still holds."""

    def __init__(self) -> None:
        self._held: WeakSet[Snapshot] = WeakSet()

    def take(
        self,
        tensors: Mapping[str, Tensor],
        shared: Collection[str],
        scratch: Path | None,
        spare: Snapshot | None,
    ) -> Snapshot:
        """Take a snapshot; see `Snapshot`."""
        snapshot = Snapshot(tensors, shared, scratch, spare)
        self._held.add(snapshot)
        return snapshot

    def keep(self, *names: str) -> None:
        """Copy tensors that are about to be written to into every snapshot that shares them."""
        for snapshot in list(self._held):
            for name in names:
                snapshot.keep(name)


def _is_large(name: str, x: Tensor) -> bool:
    return name.startswith(LARGE) and x.nbytes >= LEAST_BYTES


def _alike(old: Kept | None, x: Tensor) -> bool:
    return old is not None and old.shape == x.shape and old.dtype == x.dtype


def _version(x: Tensor) -> int:
    """Return how often a tensor was written to; one made in inference mode does not tell."""
    return 0 if x.is_inference() else x._version
