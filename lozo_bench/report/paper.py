"""The paper's table of an experiment: our numbers, the published ones and the differences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lozo_bench.config.schema import Shown, TableConfig
from lozo_bench.errors import UserError
from lozo_bench.report.contents import Contents
from lozo_bench.runs.choices import choices_of
from lozo_bench.tables.cells import Run, Sweep
from lozo_bench.tables.show import notes, printed, title, unit_of
from lozo_bench.tables.table import Entry, Key, Table, build_table

_MADE_UP = " - on made-up rows: the numbers are meaningless"


def paper_tables(runs: Sequence[Contents]) -> list[dict[str, Any]]:
    """Return the papers' tables that these runs of a sweep belong to, for the page.

    A table that cannot be made of them is a line that says why.
    """
    by_table: dict[str, list[Contents]] = {}
    for run in runs:
        config = run.result.config.get("table")
        if isinstance(config, Mapping) and config.get("title"):
            by_table.setdefault(str(sorted(config.items(), key=str)), []).append(run)
    return [_table(members) for members in by_table.values()]


def _table(runs: Sequence[Contents]) -> dict[str, Any]:
    config = runs[0].result.config
    try:
        node = OmegaConf.merge(OmegaConf.structured(TableConfig), config["table"])
        settings = OmegaConf.to_object(node)
        assert isinstance(settings, TableConfig)
        if (config.get("task") or {}).get("invented_rows"):
            settings.title += _MADE_UP
        table = build_table([Sweep(settings, _runs(runs, settings), "")])
    except (UserError, OmegaConfBaseException) as error:
        line = f"the paper's table cannot be made: {' '.join(str(error).split())}"
        return {"caption": config["table"]["title"], "header": [], "rows": [], "notes": [line]}
    return _as_rows(table)


def _runs(runs: Sequence[Contents], config: TableConfig) -> list[Run]:
    """Return the runs with a value for every key that the table or any run's command has."""
    all_choices = choices_of([run.folder for run in runs])
    keys = dict.fromkeys(key for choices in all_choices for key in choices)
    keys |= dict.fromkeys([*config.rows, *config.columns, config.over])
    return [
        Run({key: _choice(key, choices, run) for key in keys}, Path(run.folder), run.cell.command)
        for run, choices in zip(runs, all_choices, strict=True)
    ]


def _choice(key: str, choices: Mapping[str, str], run: Contents) -> str:
    return choices.get(key) or run.chosen.get(key) or ""


def _as_rows(table: Table) -> dict[str, Any]:
    config = table.config
    most = max((entry.seeds for entry in table.entries.values()), default=0)
    rows = [
        [
            *({"text": title(table.config, name)} for name in row),
            *(_cell(table, row, column, most) for column in table.columns),
        ]
        for row in table.rows
    ]
    columns = [", ".join(title(table.config, name) for name in column) for column in table.columns]
    header = [
        *({"name": key, "number": False} for key in config.rows),
        *({"name": name, "number": True} for name in columns),
    ]
    return {
        "caption": config.title,
        "label": table.published.label,
        "header": header,
        "rows": rows,
        "notes": [line.strip() for line in notes(table)],
    }


def _cell(table: Table, row: Key, column: Key, most: int) -> dict[str, Any]:
    entry = table.entries.get((row, column))
    number = "-" if entry is None else printed(entry, most, unit_of(entry, table))
    published = table.published.at(row, column)
    cell = {"text": number, "published": published}
    if entry is not None and entry.tests and (difference := _difference(table, entry, published)):
        cell["difference"] = difference
    return cell


def _difference(table: Table, entry: Entry, published: str) -> str:
    """Return our mean minus the published one: ``+0.4``; empty if they cannot be compared.

    Costs are published in units of their own.
    """
    found = re.match(r"-?\d+(\.\d+)?", published)
    if found is None or table.config.show is not Shown.test:
        return ""
    unit = unit_of(entry, table)
    ours = round(unit.factor * entry.mean, unit.digits)
    return f"{ours - float(found[0]):+.{unit.digits}f}".replace("-", "\N{MINUS SIGN}")
