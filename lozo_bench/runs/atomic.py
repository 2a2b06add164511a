"""Writes files atomically: under another name, synced to disk, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write the file ``path`` with the function ``write`` in one atomic step.

    After a crash at any moment, ``path`` is either the old file or the complete new one. A
    half-written file may remain as ``path`` with the suffix ``.partial``; the next call overwrites
    it.

    Raises:
        OSError: the disk is full or the permission is missing; the old file is unchanged.
    """
    draft = path.with_name(f"{path.name}.partial")
    draft.unlink(missing_ok=True)  # a pipe would wait for a reader, a link lead elsewhere
    try:
        write(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    draft.replace(path)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, see `write_whole`."""
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that renames in it survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
