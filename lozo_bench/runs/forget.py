"""Removes the folders of failed runs: ``lozo-status --forget failed``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from lozo_bench.errors import UserError, counted, printable
from lozo_bench.runs.lock import Lock
from lozo_bench.runs.outcome import FAILED, RESULT


def forget_failed(folders: Iterable[Path]) -> Iterator[str]:
    """Remove the folder of each run that failed, and yield a line for each and for their number.

    A folder with a result is kept, and so is one that a process works in.
    """
    removed = 0
    for folder in folders:
        try:
            if not (folder / FAILED).is_file() or (folder / RESULT).exists():
                continue
            with Lock(folder):
                shutil.rmtree(folder)
        except (UserError, OSError) as error:  # it runs again, or may not be written
            yield printable(f"kept {folder}: {error}")
            continue
        removed += 1
        yield printable(f"removed {folder}")
    yield f"{counted(removed, 'failed run')} removed"
