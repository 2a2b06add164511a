"""Every row of a table over its own published grid: one sweep for each row and grid."""

from __future__ import annotations

from collections.abc import Sequence

from lozo_bench.config import TableConfig
from lozo_bench.errors import UserError
from lozo_bench.tables.cells import Run, Sweep, value


def over_grids(overrides: Sequence[str], plain: Sweep) -> list[list[str]]:
    """The overrides of each sweep.

    Args:
        overrides: those of the plain one.
        plain: what they come to, without any grid.

    Raises:
        UserError: the table has no grids, or more than one key for its columns.
    """
    table = plain.table
    if not table.grids:
        raise UserError("--grids: no grids are published for this table (table.grids)")
    if len(table.columns) != 1:
        raise UserError(f"--grids: given columns {table.columns}; allowed: a single key")
    column = table.columns[0]
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for run in plain.runs:
        row = tuple(f"{key}={value(run, key)}" for key in table.rows)
        columns = groups.setdefault((row, _grid(table, run)), [])
        if value(run, column) not in columns:
            columns.append(value(run, column))
    replaced = {*table.rows, *table.columns, "grid"}
    kept = [text for text in overrides if text.split("=", 1)[0] not in replaced]
    return [
        [*kept, *row, f"{column}={','.join(columns)}", *([f"grid={grid}"] if grid else [])]
        for (row, grid), columns in groups.items()
    ]


def _grid(table: TableConfig, run: Run) -> str:
    """The last that fits the run; empty if none does."""
    name = ""
    for rule in table.grids:
        if "grid" not in rule:
            raise UserError(f"table.grids: given {rule}; allowed: grid: NAME, and what it is for")
        conditions = {key: allowed for key, allowed in rule.items() if key != "grid"}
        if all(value(run, key) in allowed.split(",") for key, allowed in conditions.items()):
            name = rule["grid"]
    return name
