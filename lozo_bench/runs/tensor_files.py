"""What safetensors leaves to its callers: errors of the system, and files of killed processes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Raise what safetensors reports of the system, such as a full disk, as an OSError of ``path``.

    It passes such an error on as text only: ``I/O error: No space left on device (os error 28)``.
    """
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def remove_unfinished(folder: Path) -> None:
    """Remove the files of processes that were killed while safetensors wrote.

    It writes to ``.tmp`` and six random characters, and renames the file when it is complete. Call
    this only while no other process writes to the folder.
    """
    for left in folder.glob(".tmp" + "[A-Za-z0-9]" * 6):
        left.unlink(missing_ok=True)
