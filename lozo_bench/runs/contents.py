"""Hashes of large files of models and data, each read only once per machine.

The digest of a run names files above 16 MiB by their size only. So a run also records hashes of
their contents, and is not continued with others. A hash is remembered in
``$XDG_CACHE_HOME/lozo_bench`` (``~/.cache/lozo_bench``), in a file per path, for as long as the
inode, size and modification time stay the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from lozo_bench.errors import UserError
from lozo_bench.runs.files import is_intact, parse_json, read_file, sealed

log = logging.getLogger(__name__)

_PIECE_BYTES = 4 * 2**20
_AT_ONCE = 4
# Reading more than this takes long enough for a line in the log.
_SLOW_BYTES = 2**30


def content_hashes(files: Sequence[Path]) -> dict[str, str]:
    """Return the hash of each file's content, by its path.

    Raises:
        UserError: a file cannot be read.
    """
    remembered = {file: _remembered(file) for file in files}
    new = [file for file in files if remembered[file] is None]
    if new:
        remembered |= dict(zip(new, _hash_all(new), strict=True))
    return {str(file): known for file, known in remembered.items() if known is not None}


def check_contents(recorded: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse large files that are not those with which a run began.

    Args:
        recorded: the hashes that the run recorded; empty if a former version began it.
        now: the hashes of today's files.

    Raises:
        UserError: a file has another content.
    """
    for path, known in recorded.items():
        if now.get(path, known) != known:
            raise UserError(
                f"{path}: its content is not the one with which this run began (now "
                f"{now[path][:8]}, then {known[:8]}); put the file back, or run again with "
                "rerun=all"
            )


def _hash_all(files: Sequence[Path]) -> list[str]:
    size = sum(file.stat().st_size for file in files)
    if size > _SLOW_BYTES:
        log.info("reading %d large files (%.1f GB) once, to recognize them", len(files), size / 1e9)
    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        bar = progress.add_task("reading large files", total=size)
        return list(pool.map(lambda file: _hash(file, lambda n: progress.advance(bar, n)), files))


def _hash(path: Path, advance: Callable[[int], None]) -> str:
    digest, piece = hashlib.blake2b(digest_size=16), bytearray(_PIECE_BYTES)
    try:
        identity = _identity(path)
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(piece):
                digest.update(memoryview(piece)[:count])
                advance(count)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    _remember(path, identity | {"blake2b": digest.hexdigest()})
    return digest.hexdigest()


def _identity(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {
        "path": str(path),
        "inode": found.st_ino,
        "bytes": found.st_size,
        "mtime_ns": found.st_mtime_ns,
    }


def _remembered(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        entry = parse_json(read_file(_entry(path)) or b"")
        identity = _identity(path)
        if is_intact(entry) and {key: entry.get(key) for key in identity} == identity:
            return str(entry["blake2b"])
    return None


def _remember(path: Path, entry: Mapping[str, Any]) -> None:
    """Write an entry; without a cache folder that can be written, the file is read every time."""
    target = _entry(path)
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as draft:
            json.dump(sealed(entry), draft)
        Path(draft.name).replace(target)


def _entry(path: Path) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()
    return Path(cache) / "lozo_bench" / f"{name}.json"
