"""How much memory the host has left, and copies of tensors in a file or in that memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lozo_bench.engine.stored import Kept, Stored, UnnamedFile

log = logging.getLogger(__name__)

_MEMORY, _CGROUP, _CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), "/sys/fs/cgroup"
_LEFT_FREE = 2**31  # of the host's memory
_ALIGNMENT = 64


class HostCopies:
    """Makes copies of tensors in a file, and of small ones in the host's memory.

    Args:
        scratch: the folder of the file; None: everything is copied to memory.
    """

    def __init__(self, scratch: Path | None) -> None:
        self._scratch = scratch
        self._file: UnnamedFile | None = None
        self._taken = 0

    def reserve(self, tensors: list[Tensor]) -> None:
        """Make room for copies of these tensors in a file.

        They will be in memory if there is room there and none on the disk.

        Raises:
            OSError: they fit neither onto the disk nor into memory.
        """
        size = sum(_aligned(x.nbytes) for x in tensors)
        self._file, self._taken = None, 0
        if self._scratch is None or not size:
            return
        try:
            self._file = UnnamedFile(self._scratch, size)
        except OSError as error:
            free = available_bytes()
            if free is not None and size + _LEFT_FREE > free:
                raise
            log.warning(
                "%.1f GB of weights of the best step do not fit into %s (%s); they are kept in "
                "memory",
                size / 1e9,
                self._scratch,
                error.strerror,
            )

    def copy(self, x: Tensor) -> Tensor:
        """Return a contiguous copy of a tensor in memory."""
        return torch.empty(x.shape, dtype=x.dtype).copy_(x.detach())

    def store(self, x: Tensor) -> Kept:
        """Return a copy in the file; in memory if `reserve` made no file."""
        if self._file is None:
            return self.copy(x)
        stored = Stored(self._file, self._taken, x)
        self._taken += _aligned(x.nbytes)
        stored.copy_(x)
        return stored


def available_bytes() -> int | None:
    """Return how much more memory this process can take; None where the system does not say.

    Within a cgroup, as in a container or a SLURM job, that is less than what the machine has.
    """
    free = _field(_MEMORY, "MemAvailable:")
    if free is None:
        return None
    return min([free * 1024, *_left_in_cgroups()])


def _left_in_cgroups() -> Iterator[int]:
    """Yield the rest of each limit that applies to this process, for both versions of cgroups."""
    if not _CGROUP.exists():
        return
    for line in _CGROUP.read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, limit, used = Path(_CGROUPS), "memory.max", "anon"
        elif "memory" in controllers.split(","):
            root, limit, used = Path(_CGROUPS, "memory"), "memory.limit_in_bytes", "total_rss"
        else:
            continue
        here = root / path.lstrip("/")
        for folder in (here, *here.parents):
            try:
                most = (folder / limit).read_text().strip()
            except OSError:  # the root has no limit, and a container does not see its parents
                continue
            taken = _field(folder / "memory.stat", used)
            if most.isdigit() and taken is not None:
                yield max(0, int(most) - taken)


def _field(file: Path, name: str) -> int | None:
    try:
        rows = (line.split() for line in file.read_text().splitlines())
        return next((int(row[1]) for row in rows if row[0] == name), None)
    except OSError:
        return None


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
