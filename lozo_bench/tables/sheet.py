"""Prints rows and columns of text: for a terminal, as Markdown or as LaTeX."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as Grid


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table as text.

    Args:
        title: stands above it.
        header: the names of the columns.
        rows: the cells.
        keys: the number of columns, from the first on, that say what a row is; all others hold
            numbers.
        notes: lines below it.
        dim: whether each row is less important than the others; empty if none is.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    keys: int
    notes: Sequence[str]
    dim: Sequence[bool] = ()


def plain_text(sheet: Sheet) -> str:
    """Return the table as text for a terminal, as wide as needed."""
    grid = Grid()
    for number, name in enumerate(sheet.header):
        grid.add_column(name, justify="left" if number < sheet.keys else "right", no_wrap=True)
    for row, dim in zip(sheet.rows, sheet.dim or [False] * len(sheet.rows), strict=True):
        grid.add_row(*row, style="dim" if dim else None)
    file = io.StringIO()
    Console(file=file, width=1000, highlight=False, markup=False).print(grid)
    return "\n".join([sheet.title, file.getvalue().rstrip(), *sheet.notes])


def markdown(sheet: Sheet) -> str:
    """Return the table as a Markdown pipe table."""
    rule = ["---"] * sheet.keys + ["---:"] * (len(sheet.header) - sheet.keys)
    rows = [[cell.replace("|", r"\|") for cell in row] for row in (sheet.header, *sheet.rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:])]
    return "\n".join([f"**{sheet.title}**", "", *lines, "", *(f"{note}  " for note in sheet.notes)])


def latex(sheet: Sheet) -> str:
    """Return the table as a LaTeX tabular for the booktabs package."""
    columns = "l" * sheet.keys + "r" * (len(sheet.header) - sheet.keys)
    lines = [" & ".join(map(_escaped, cells)) + r" \\" for cells in (sheet.header, *sheet.rows)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}} % {sheet.title}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {note}" for note in sheet.notes),
        ]
    )


def _escaped(cell: str) -> str:
    return cell.translate(_LATEX).strip()


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
