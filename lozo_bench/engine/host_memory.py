"""How much memory the host has left, and copies of tensors in it or, without room, in a file."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_MEMORY, _CGROUP, _CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), "/sys/fs/cgroup"
_LEFT_FREE = 2**31  # of the host's memory
_ALIGNMENT = 64


class HostCopies:
    """Makes copies of tensors in the host's memory, or in a file if they do not fit into it.

    The system moves a file's pages to the disk when it needs the memory. The file has no name, so
    that it disappears with its last tensor.

    Args:
        scratch: the folder of the file; None: everything is copied to memory.
    """

    def __init__(self, scratch: Path | None) -> None:
        self._scratch = scratch
        self._file: Tensor | None = None
        self._taken = 0

    def reserve(self, tensors: list[Tensor]) -> None:
        """Decide where copies of these tensors will be.

        Raises:
            OSError: they fit neither into memory nor onto the disk.
        """
        size = sum(_aligned(x.nbytes) for x in tensors)
        free = available_bytes()
        if self._scratch is None or free is None or size + _LEFT_FREE <= free or not size:
            self._file = None
            return
        log.warning(
            "%.1f GB of weights of the best step do not fit into the %.1f GB of free memory; they "
            "are kept in a file in %s",
            size / 1e9,
            free / 1e9,
            self._scratch,
        )
        self._file, self._taken = _unnamed_file(self._scratch, size), 0

    def copy(self, x: Tensor) -> Tensor:
        """Return a contiguous copy of a tensor."""
        return self._empty(x).copy_(x.detach())

    def _empty(self, x: Tensor) -> Tensor:
        start, self._taken = self._taken, self._taken + _aligned(x.nbytes)
        if self._file is None or self._taken > len(self._file):
            return torch.empty(x.shape, dtype=x.dtype)
        return self._file[start : start + x.nbytes].view(x.dtype).view(x.shape)


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


def _unnamed_file(folder: Path, size: int) -> Tensor:
    """Return bytes that are in a file without a name.

    Raises:
        OSError: the disk has no room.
    """
    number, path = tempfile.mkstemp(prefix=".best-", dir=folder)
    try:
        # Without this, writing to a full disk would kill the process.
        os.posix_fallocate(number, 0, size)
        return torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        os.close(number)
        Path(path).unlink()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
