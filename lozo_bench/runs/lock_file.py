"""Reads a lock file, whatever has been put in its place."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

from lozo_bench.errors import UserError
from lozo_bench.runs.files import parse_json
from lozo_bench.runs.lock_owner import LockOwner

# A lock has a few hundred bytes. More is not read.
_LARGEST = 2**16


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock file that was read: its owner (None if it is damaged) and its modification time."""

    owner: LockOwner | None
    token: str
    modified: float


def read_lock(path: Path) -> LockFile | None:
    """Read the lock at ``path``; return None if there is nothing.

    A file without read permission counts as a damaged one: it is stale by its time alone.

    Raises:
        UserError: something else than a file is there.
    """
    try:
        with open_lock(path) as file:
            return parse_lock(file)
    except FileNotFoundError:
        return None
    except PermissionError:
        return _without_owner(path.lstat())


def open_lock(path: Path) -> BinaryIO:
    """Open the lock at ``path``, without following a link or waiting for a pipe's writer.

    Unlike stat, opening the file makes an NFS client ask the server again.

    Raises:
        FileNotFoundError: there is nothing.
        UserError: something else than a file is there.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENXIO}:  # a link, or a socket
            raise _is_no_lock(path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _is_no_lock(path)
    return os.fdopen(handle, "rb")


def parse_lock(file: BinaryIO) -> LockFile:
    """Read an open lock file."""
    status = os.fstat(file.fileno())
    try:
        owner = LockOwner(**parse_json(file.read(_LARGEST)))
    except (ValueError, TypeError):
        return _without_owner(status)
    kinds = {"pid": int, "life": int}
    typed = all(type(getattr(owner, x.name)) is kinds.get(x.name, str) for x in fields(owner))
    # The token becomes part of a file's name.
    if not typed or not re.fullmatch(r"[\w-]{1,64}", owner.token, re.ASCII):
        return _without_owner(status)
    return LockFile(owner, owner.token, status.st_mtime)


def _without_owner(status: os.stat_result) -> LockFile:
    """Return a lock that is empty or damaged. A takeover needs a token: it is the inode."""
    return LockFile(None, f"{status.st_ino:x}", status.st_mtime)


def _is_no_lock(path: Path) -> UserError:
    try:
        mode = path.lstat().st_mode
    except OSError:
        mode = 0
    kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no file"
    return UserError(f"{path}: it is {kind}, but a run keeps its lock in this file; remove it")
