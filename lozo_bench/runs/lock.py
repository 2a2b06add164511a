"""One process at a time in a run's folder, on NFS too and whatever the clocks say.

The lock is a file that says who holds it. It is written whole under another name and linked into
place, which only one process can do, and its time of modification is renewed while the run goes on.
It counts as left behind

- at once, if its process was on this machine and is gone;
- at once, if it is of this SLURM job before it was put back into the queue;
- else after three minutes in which it was not renewed, by the clock of the file server alone.

A lock left behind, with token T, is taken over by linking ``lock.T``, which again only one process
can do, and renaming it over ``lock`` while that still has token T.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from lozo_bench.errors import UserError
from lozo_bench.runs.who import Holder, myself

LOCK = "lock"
BEAT_S = 20.0
STALE_S = 180.0
_CANDIDATE = ".lock-"
_FORGOTTEN_S = 3600.0
# What file systems without hard links answer: some FUSE and SMB mounts.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


class Busy(UserError):  # noqa: N818  # not an error: somebody else is at it
    """Another process runs the cell, or is about to."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A lock file as it was read: its holder, if the file can be made sense of, and its time."""

    holder: Holder | None
    token: str
    modified: float


class Lock:
    """The right to work in ``folder``. A context manager: the lock is held while it is open.

    Raises:
        Busy: on entering: a living process holds it.
        OSError: no room, or no permission.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self.lost = ""
        self._me: Holder | None = None
        self._renewed = 0.0
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        me = myself()
        with _candidate(self.path.parent, me) as candidate:
            _acquire(candidate, self.path, me)
        self._me, self.lost, self._renewed = me, "", time.monotonic()
        self._closed.clear()
        _clear(self.path, me)
        threading.Thread(target=self._beat, name="lock", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_here():
            return
        self._closed.set()
        seen = _read(self.path)
        if seen and self._me and seen.token == self._me.token:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Go on, if the lock is still held; cheap enough for every step.

        Raises:
            UserError: another process has taken it over, or it could not be renewed for too long.
        """
        if not self._is_here():
            return
        # A process that was suspended asks before it goes on, and does not wait for its thread.
        if time.monotonic() - self._renewed > 3 * BEAT_S:
            self._renew()
        if self.lost:
            raise UserError(f"{self.path}: {self.lost}; the run stops here, what it did is kept")

    def _is_here(self) -> bool:
        """Whether this is the process that took the lock, not one forked from it."""
        return self._me is not None and self._me.pid == os.getpid()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S) and not self.lost:
            self._renew()

    def _renew(self) -> None:
        assert self._me is not None
        try:
            with self.path.open("rb") as file:
                seen = _parse(file.read(), os.fstat(file.fileno()))
                if seen.token == self._me.token:
                    os.utime(file.fileno())  # the server's clock, not ours
                    self._renewed = time.monotonic()
                    return
        except FileNotFoundError:
            lost = "it was removed while the run went on"
        except OSError as error:
            # The file server may be back in time; after that, others take the lock for left behind.
            if time.monotonic() - self._renewed < STALE_S:
                return
            lost = f"it could not be renewed for {STALE_S:.0f} s ({error.strerror})"
        else:
            lost = f"it was taken over by {seen.holder or 'another process'}"
        if not self._closed.is_set():
            self.lost = lost


def holder(folder: Path) -> Holder | None:
    """The living process that holds the lock of ``folder``, if there is one."""
    path = folder / LOCK
    seen = _read(path)
    if seen is None:
        return None
    me = myself()
    if _lives(seen, me, lambda: _server_time(folder, me)):
        return seen.holder or Holder("an unknown host", 0, "", seen.token, "", "", "", 0)
    return None


def _acquire(candidate: Path, path: Path, me: Holder) -> None:
    """Put the candidate at ``path``, over a lock left behind if need be.

    Raises:
        Busy: a living process is there.
    """
    while not _put(candidate, path):
        seen = _read(path)
        if seen is None:
            continue  # released just now
        if seen.token == me.token:
            return  # the answer to our first try was lost on its way from the file server
        if _lives(seen, me, lambda: _touched(candidate)):
            who = seen.holder or "a process that left no name"
            raise Busy(f"{path.parent}: {who}, works on it; it is left alone")
        right = path.with_name(f"{path.name}.{seen.token}")
        _acquire(candidate, right, me)
        now = _read(path)
        if now and now.token == seen.token:
            with suppress(FileNotFoundError):  # cleared away, as the lock changed hands just now
                right.replace(path)
        else:
            right.unlink(missing_ok=True)
        # Once more, to see who is there.


def _put(candidate: Path, path: Path) -> bool:
    """Make ``path`` the candidate; False if something is there."""
    try:
        path.hardlink_to(candidate)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        with path.open("xb") as file:
            file.write(candidate.read_bytes())
        return True
    except FileExistsError:
        return False


def _lives(seen: _Seen, me: Holder, now: Callable[[], float]) -> bool:
    """Whether the process behind a lock still works; ``now`` tells the file server's time."""
    who = seen.holder
    if who and who.is_near(me):
        return not who.is_gone()
    if who and who.is_former(me):
        return False
    return (now() - seen.modified) <= STALE_S


def _read(path: Path) -> _Seen | None:
    try:
        # Opening, unlike asking for its status, makes an NFS client look again at the server.
        with path.open("rb") as file:
            return _parse(file.read(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return None


def _parse(data: bytes, status: os.stat_result) -> _Seen:
    try:
        who = Holder(**json.loads(data))
        return _Seen(who, who.token, status.st_mtime)
    except (ValueError, TypeError):
        # Empty or damaged: it has no token, and yet needs a name to be taken over by.
        return _Seen(None, f"{status.st_ino:x}", status.st_mtime)


@contextmanager
def _candidate(folder: Path, me: Holder) -> Iterator[Path]:
    """A file that says who we are, under a name that nobody else uses."""
    path = folder / f"{_CANDIDATE}{me.token}"
    try:
        path.write_text(json.dumps(asdict(me)), encoding="utf-8")
        yield path
    finally:
        path.unlink(missing_ok=True)


def _touched(path: Path) -> float:
    """The file server's time: that of a file of ours, just touched."""
    os.utime(path)
    return path.stat().st_mtime


def _server_time(folder: Path, me: Holder) -> float:
    try:
        with _candidate(folder, me) as probe:
            return _touched(probe)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}:
            raise
        return time.time()  # one who may only look has no better clock than this one


def _clear(path: Path, me: Holder) -> None:
    """Remove what killed processes left. The lock is held: no other token counts any more."""
    for right in path.parent.glob(f"{LOCK}.*"):
        if not right.name.startswith(f"{LOCK}.{me.token}"):
            right.unlink(missing_ok=True)
    now = _touched(path)
    for old in path.parent.glob(f"{_CANDIDATE}*"):
        seen = _read(old)
        if seen is None:
            continue
        if seen.holder and seen.holder.is_near(me):
            forgotten = seen.holder.is_gone()
        else:
            forgotten = now - seen.modified > _FORGOTTEN_S
        if forgotten:
            old.unlink(missing_ok=True)
