"""The lines of a text file, checked character by character."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lozo_bench.errors import bad_data

_SAVE = "save the file as UTF-8 text"


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line, which ends at a newline and nothing else.

    Raises:
        UserError: The file is not UTF-8 text; the message names ``path:line``.
    """
    # A binary file has line breaks at \n only; str.splitlines would also break at U+2028.
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path}:{number}"
            if number == 1:
                _check_start(where, raw)
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                problem = f"byte {raw[error.start]:#04x} is not UTF-8; {_SAVE}"
                raise bad_data(where, problem) from error
            if "\0" in text:
                problem = f"there is a NUL character: it is damaged, or not UTF-8; {_SAVE}"
                raise bad_data(where, problem)
            yield number, text.removesuffix("\n").removesuffix("\r")


def _check_start(where: str, raw: bytes) -> None:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise bad_data(where, f"the file is UTF-16 or UTF-32; {_SAVE}")
    if b"\r" in raw[:-1] and not raw.endswith(b"\n"):
        raise bad_data(where, f"the lines end with CR alone; {_SAVE} whose lines end with LF")
