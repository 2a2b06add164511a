"""Files that are whole or not there: written beside, synced, and renamed into place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file, and put it at ``path`` in one step.

    A crash at any moment leaves the file that was there before, or the new one; what was left
    half-written, ``path`` with ``.partial`` at its end, is overwritten next time.

    Raises:
        OSError: no room, or no permission; the file that was there is untouched.
    """
    draft = path.with_name(f"{path.name}.partial")
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
    """`write_whole` for a text."""
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
