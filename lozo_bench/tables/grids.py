"""Sweeps in which every row of a table covers its own published grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lozo_bench.config.schema import TableConfig
from lozo_bench.errors import UserError
from lozo_bench.tables.cells import choice_of


def over_grids(
    overrides: Sequence[str], table: TableConfig, plain: Sequence[Mapping[str, str]]
) -> list[list[str]]:
    """Return the overrides of one sweep for each pair of row and grid.

    Args:
        overrides: the overrides of the sweep without grids.
        table: the table that this sweep fills.
        plain: the choices of each of its runs.

    Raises:
        UserError: the table has no grids, or its columns have more than one key.
    """
    if not table.grids:
        raise UserError("--grids: no grids are published for this table (table.grids)")
    if len(table.columns) != 1:
        raise UserError(f"--grids: given columns {table.columns}; allowed: exactly one key")
    column = table.columns[0]
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for run in plain:
        row = tuple(f"{key}={choice_of(run, key)}" for key in table.rows)
        columns = groups.setdefault((row, _grid(table, run)), [])
        if choice_of(run, column) not in columns:
            columns.append(choice_of(run, column))
    replaced = {*table.rows, *table.columns, "grid"}
    kept = [text for text in overrides if text.split("=", 1)[0] not in replaced]
    return [
        [*kept, *row, f"{column}={','.join(columns)}", *([f"grid={grid}"] if grid else [])]
        for (row, grid), columns in groups.items()
    ]


def _grid(table: TableConfig, run: Mapping[str, str]) -> str:
    """Return the name of the last grid whose conditions the run meets; empty if there is none."""
    name = ""
    for rule in table.grids:
        if "grid" not in rule:
            raise UserError(f"table.grids: given {rule}; allowed: grid: NAME and conditions")
        conditions = {key: allowed for key, allowed in rule.items() if key != "grid"}
        if all(choice_of(run, key) in allowed.split(",") for key, allowed in conditions.items()):
            name = rule["grid"]
    return name
