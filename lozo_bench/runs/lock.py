"""A lock file that lets only one process work in a run's folder, on NFS too.

It does not rely on the machines' clocks. The file ``lock`` names its owner. A process writes it
completely under another name and then hard-links it to ``lock``, in which only one process can
succeed. The owner renews the file's modification time while the run is going on. A lock is stale

- at once, if its process ran on this machine and has ended;
- at once, if it belongs to an earlier start of this SLURM job, before the job was requeued;
- otherwise, if it was not renewed for three minutes, measured by the file server's clock only; a
  time further ahead than that is no renewal either.

A stale lock with token T is taken over in two steps: link ``lock.T``, in which again only one
process can succeed, and rename it to ``lock`` while that still has token T.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from lozo_bench.errors import UserError
from lozo_bench.runs.lock_file import LockFile, open_lock, parse_lock, read_lock
from lozo_bench.runs.lock_owner import LockOwner, myself

LOCK = "lock"
RENEW_EVERY_S = 20.0
STALE_S = 180.0
_DRAFT = ".lock-"
_DRAFT_STALE_S = 3600.0
# Error numbers of file systems without hard links, such as some FUSE and SMB mounts.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


class Busy(UserError):  # noqa: N818  # not an error: another process runs the cell
    """Another process runs the cell or is about to."""


class Lock:
    """The exclusive right to work in ``folder``. A context manager that holds the lock.

    Raises:
        Busy: on entering, if a running process owns the lock.
        UserError: on entering, if a folder or a link has the lock's name.
        OSError: the disk is full or the permission is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self.lost = ""
        self._me: LockOwner | None = None
        self._renewed = 0.0
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        me = myself()
        with _draft(self.path.parent, me) as draft:
            _acquire(draft, self.path, me)
        self._me, self.lost, self._renewed = me, "", time.monotonic()
        self._closed.clear()
        _clear(self.path, me)
        threading.Thread(target=self._keep_renewing, name="lock", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_own_process():
            return
        self._closed.set()
        found = _read_file(self.path)
        if found and self._me and found.token == self._me.token:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Return if this process still owns the lock. Fast enough to be called in every step.

        Raises:
            UserError: another process took the lock over, or it could not be renewed in time.
        """
        if not self._is_own_process():
            return
        # A process that was suspended renews the lock itself before it continues, without waiting
        # for the renewing thread.
        if time.monotonic() - self._renewed > 3 * RENEW_EVERY_S:
            self._renew()
        if self.lost:
            raise UserError(
                f"{self.path}: {self.lost}; the run stops here, and its progress is saved"
            )

    def _is_own_process(self) -> bool:
        """Return whether this process took the lock itself and was not forked from the owner."""
        return self._me is not None and self._me.pid == os.getpid()

    def _keep_renewing(self) -> None:
        while not self._closed.wait(RENEW_EVERY_S) and not self.lost:
            self._renew()

    def _renew(self) -> None:
        assert self._me is not None
        try:
            with open_lock(self.path) as file:
                found = parse_lock(file)
                if found.token == self._me.token:
                    os.utime(file.fileno())  # sets the time by the file server's clock
                    self._renewed = time.monotonic()
                    return
        except FileNotFoundError:
            lost = "it was removed during the run"
        except UserError:
            lost = "it was replaced during the run"
        except OSError as error:
            # The file server may come back in time. After STALE_S, other processes may take over.
            if time.monotonic() - self._renewed < STALE_S:
                return
            lost = f"it could not be renewed for {STALE_S:.0f} s ({error.strerror})"
        else:
            lost = f"it was taken over by {found.owner or 'another process'}"
        if not self._closed.is_set():
            self.lost = lost


def lock_owner(folder: Path) -> LockOwner | None:
    """Return the running process that owns the lock of ``folder``, or None."""
    path = folder / LOCK
    found = _read_file(path)
    if found is None:
        return None
    me = myself()
    if _is_alive(found, me, lambda: _server_time(folder, me)):
        return found.owner or LockOwner("an unknown host", 0, "", found.token, "", "", "", 0)
    return None


def _acquire(draft: Path, path: Path, me: LockOwner) -> None:
    """Link the draft to ``path``; if a stale lock is there, take it over.

    Raises:
        Busy: a running process owns the lock.
    """
    while not _link(draft, path):
        found = read_lock(path)
        if found is None:
            continue  # it was released just now
        if found.token == me.token:
            return  # our first link succeeded, but the file server's reply was lost
        if _is_alive(found, me, lambda: _touched(draft)):
            owner = found.owner or "an unknown process (its lock is damaged, and counts for 3 min)"
            raise Busy(f"{path.parent}: {owner} is running this cell, so it is skipped")
        takeover = path.with_name(f"{path.name}.{found.token}")
        _acquire(draft, takeover, me)
        now = read_lock(path)
        if now and now.token == found.token:
            with suppress(FileNotFoundError):  # another process has just taken the lock over
                takeover.replace(path)
        else:
            takeover.unlink(missing_ok=True)
        # The next attempt takes the lock or finds its new owner.


def _link(draft: Path, path: Path) -> bool:
    """Link the draft to ``path``; return False if ``path`` exists."""
    try:
        path.hardlink_to(draft)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        with path.open("xb") as file:
            file.write(draft.read_bytes())
        return True
    except FileExistsError:
        return False


def _is_alive(found: LockFile, me: LockOwner, now: Callable[[], float]) -> bool:
    """Return whether a lock's owner is still running; ``now`` returns the file server's time."""
    owner = found.owner
    if owner and owner.shares_pids_with(me):
        return not owner.has_ended()
    if owner and owner.is_earlier_start_of(me):
        return False
    # A time far ahead is not from the owner's renewals either: they set the server's present time.
    return abs(now() - found.modified) <= STALE_S


def _read_file(path: Path) -> LockFile | None:
    """Read the lock; None if there is none, or if something else than a file is there."""
    try:
        return read_lock(path)
    except UserError:
        return None


@contextmanager
def _draft(folder: Path, me: LockOwner) -> Iterator[Path]:
    """Write a file that names this process as the owner, under a unique name."""
    path = folder / f"{_DRAFT}{me.token}"
    try:
        path.write_text(json.dumps(asdict(me)), encoding="utf-8")
        yield path
    finally:
        path.unlink(missing_ok=True)


def _touched(path: Path) -> float:
    """Return the file server's time: the modification time of our file, just touched."""
    os.utime(path)
    return path.stat().st_mtime


def _server_time(folder: Path, me: LockOwner) -> float:
    try:
        with _draft(folder, me) as probe:
            return _touched(probe)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}:
            raise
        return time.time()  # without write permission, the local clock is the best one available


def _clear(path: Path, me: LockOwner) -> None:
    """Remove files that killed processes left; call this only while owning the lock."""
    for takeover in path.parent.glob(f"{LOCK}.*"):
        if takeover.is_file() and not takeover.name.startswith(f"{LOCK}.{me.token}"):
            takeover.unlink(missing_ok=True)
    now = _touched(path)
    for old in path.parent.glob(f"{_DRAFT}*"):
        found = _read_file(old)
        if found is None:
            continue
        if found.owner and found.owner.shares_pids_with(me):
            abandoned = found.owner.has_ended()
        else:
            abandoned = now - found.modified > _DRAFT_STALE_S
        if abandoned:
            old.unlink(missing_ok=True)
