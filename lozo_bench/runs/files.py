"""Reads files that may be damaged or replaced, and moves them aside instead of deleting them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from lozo_bench.errors import UserError

CHECKSUM = "checksum"


def read_file(path: Path) -> bytes | None:
    """Return a file's bytes, or None if there is no file. Never waits for a named pipe.

    Raises:
        UserError: it is no file (a folder, a pipe, a link to nothing), or it cannot be read.
    """
    return _read(path, lambda file: file.read())


def read_start(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, as `read_file` does; empty if there is no file."""
    return _read(path, lambda file: file.read(count)) or b""


def read_end(path: Path, count: int) -> bytes:
    """Return the last bytes of a file, as `read_file` does; empty if there is no file."""

    def end(file: BinaryIO) -> bytes:
        file.seek(max(0, file.seek(0, os.SEEK_END) - count))
        return file.read()

    return _read(path, end) or b""


def _read(path: Path, part: Callable[[BinaryIO], bytes]) -> bytes | None:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise not_a_file(path)
            return part(file)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise not_a_file(path) from error
        return None
    except IsADirectoryError as error:
        raise not_a_file(path) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); make it readable, or move it away"
        ) from error


def not_a_file(path: Path) -> UserError:
    """Return the error for a folder, pipe, device or broken link where a file belongs."""
    return UserError(
        f"{path}: is {_kind(path)} where a run has a file; move it away and start the same "
        "command again"
    )


def _kind(path: Path) -> str:
    if path.is_symlink() and not os.path.exists(path):  # noqa: PTH110  # Path.exists may raise
        return "a link to nothing"
    mode = path.stat().st_mode
    kinds = {"a folder": stat.S_ISDIR, "a named pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
    return next((name for name, matches in kinds.items() if matches(mode)), "a device")


def check_is_file(path: Path) -> None:
    """Refuse a path that exists and is no file.

    Raises:
        UserError: it is a folder, a pipe, a device or a link to nothing.
    """
    if not os.path.lexists(path) or os.path.isfile(path):  # noqa: PTH113  # Path.is_file may raise
        return
    try:
        raise not_a_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); move it away") from error


def set_aside(path: Path, suffix: str = ".damaged") -> Path:
    """Rename a file to its name with a suffix, and a number if that name is taken.

    Returns:
        Its new path.
    """
    new = path.with_name(path.name + suffix)
    number = 1
    while os.path.lexists(new):
        number += 1
        new = path.with_name(f"{path.name}{suffix}-{number}")
    return path.rename(new)


def parse_json(data: bytes) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: it is not JSON in UTF-8, or is nested too deeply to be read.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_yaml(data: bytes) -> Any:
    """Return the content of a YAML file.

    Raises:
        ValueError: it is not YAML in UTF-8, or is nested too deeply to be read.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(data, Loader=loader)  # type: ignore[no-untyped-call]
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with its checksum, under the key ``checksum``, as the last item."""
    return {**content, CHECKSUM: _checksum(content)}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Return whether a content that `sealed` returned, or that JSON made of it, is unchanged."""
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return bool(content.get(CHECKSUM) == _checksum(rest))


def _checksum(content: Mapping[str, Any]) -> str:
    """Return a hash of what JSON keeps of the content, whatever its layout and order of keys."""
    kept = json.loads(json.dumps(content))
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
