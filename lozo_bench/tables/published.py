"""The numbers of the papers and of their authors' logs, to print beside our results."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lozo_bench.config.schema import Shown
from lozo_bench.errors import UserError, did_you_mean

PUBLISHED = Path(__file__).parent / "published"
LOGGED = "authors' logs"
_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """Numbers such as ``90.5 (1.2)`` by row and column, and their source.

    ``label`` says what they are: cells that a paper prints, or runs that its authors logged.
    """

    source: str = ""
    label: str = "published"
    numbers: Mapping[tuple[_Key, _Key], str] = field(default_factory=dict)

    def at(self, row: _Key, column: _Key) -> str:
        """Return the number; an empty string if none is known."""
        return self.numbers.get((row, column), "")


def read_published(name: str | None, row_keys: int, show: Shown = Shown.test) -> Published:
    """Read the numbers that stand beside a table: comments with the source, then a header and rows.

    ``published/NAME.csv`` has test metrics in percent, and ``published/NAME_SHOW.csv``, such as
    ``mezo_memory.csv``, what else a table shows, in the paper's own unit. A source that begins with
    "authors' logs:" is not of printed cells, and the numbers say so. The first ``row_keys`` columns
    identify the row; each further column is a column of the table.

    Returns:
        The numbers; none if none of this kind are known.

    Raises:
        UserError: there is no file of this name for anything that a table shows.
    """
    if name is None:
        return Published()
    path = _file(name, show)
    if not path.is_file():
        known = sorted({name_and_show(file)[0] for file in PUBLISHED.glob("*.csv")})
        if name in known:
            return Published()
        raise UserError(
            f"table.published: there is no {name}{did_you_mean(name, known)}; "
            f"there are: {', '.join(known)}"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    source = "; ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    header, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    numbers: dict[tuple[_Key, _Key], str] = {
        (tuple(row[:row_keys]), (column,)): number
        for row in rows
        for column, number in zip(header[row_keys:], row[row_keys:], strict=True)
        if number
    }
    logged = source.startswith(f"{LOGGED}: ")
    if not logged:
        return Published(source, numbers=numbers)
    return Published(source.removeprefix(f"{LOGGED}: "), LOGGED, numbers)


def name_and_show(file: Path) -> tuple[str, Shown]:
    """Return the ``table.published`` and the ``table.show`` that a file is for."""
    for show in Shown:
        if show is not Shown.test and file.stem.endswith(f"_{show.value}"):
            return file.stem.removesuffix(f"_{show.value}"), show
    return file.stem, Shown.test


def _file(name: str, show: Shown) -> Path:
    return PUBLISHED / (f"{name}.csv" if show is Shown.test else f"{name}_{show.value}.csv")
