"""Reads what a report says of one run from its folder; what is damaged is said, not hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from lozo_bench.api.result import Result
from lozo_bench.errors import UserError, counted, printable
from lozo_bench.report.curves import Curves, curves_of
from lozo_bench.runs.blocks import header_of
from lozo_bench.runs.files import read_end, read_file
from lozo_bench.runs.hydra_files import HYDRA, files_chosen, own_choices, read_yaml, values_of
from lozo_bench.runs.outcome import METRICS
from lozo_bench.runs.row import read_numbers
from lozo_bench.runs.status import CellStatus

Row = Mapping[str, Any]
LOG = "train.log"
_LOG_BYTES = 3000
_LOG_LINES = 40


@dataclass(frozen=True, slots=True)
class Contents:
    """What the folder of a run holds.

    Args:
        cell: its status.
        result: its config and, if it is finished, its result.
        header: the header of its journal; empty if there is none.
        given: the values that its command gives, by key.
        chosen: the chosen file of each group.
        values_from: a line that says where all other values are from.
        last: the last row of its metrics, which says what it had cost.
        curves: what was measured.
        log: the last lines of its log.
        problems: what could not be read, a line each.
    """

    cell: CellStatus
    result: Result
    header: Mapping[str, Any]
    given: Mapping[str, str]
    chosen: Mapping[str, str]
    values_from: str
    last: Row
    curves: Curves
    log: Sequence[str]
    problems: Sequence[str]

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.cell.folder


def read_contents(cell: CellStatus) -> Contents:
    """Read the folder of a run. What cannot be read is among the `problems`."""
    folder = cell.folder
    problems: list[str] = []
    result = _result(cell, problems)
    rows = _rows(folder / METRICS, problems)
    try:
        header = header_of(folder)
    except (UserError, ValueError) as error:
        header = {}
        problems.append(str(error))
    return Contents(
        cell,
        result,
        header,
        {str(key): value for key, value in own_choices(folder).items()},
        files_chosen(folder),
        values_of(folder),
        rows[-1] if rows else {},
        curves_of(result, rows),
        _log(folder / LOG, problems),
        problems,
    )


def _result(cell: CellStatus, problems: list[str]) -> Result:
    try:
        return Result.read(cell.folder)
    except (UserError, OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        problems.append(f"the config cannot be read: {' '.join(str(error).split())}")
        config = read_yaml(cell.folder / HYDRA / "config.yaml")
        return Result(cell.folder, cell.state.value, cell.note, config)


def _rows(path: Path, problems: list[str]) -> list[Row]:
    """Return the rows of the metrics; a line that is damaged is a problem and left out."""
    try:
        data = read_file(path) or b""
    except UserError as error:
        problems.append(str(error))
        return []
    rows, damaged = [], []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        row = read_numbers(line)
        if row is not None:
            rows.append(row)
        elif line and number < len(lines):  # the last line of a running run may be incomplete
            damaged.append(number)
    if damaged:
        listed = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        problems.append(
            f"{METRICS}: {counted(len(damaged), 'line')} cannot be read and "
            f"{'is' if len(damaged) == 1 else 'are'} left out (line {listed})"
        )
    return rows


def _log(path: Path, problems: list[str]) -> list[str]:
    try:
        data = read_end(path, _LOG_BYTES + 1)
    except UserError as error:
        problems.append(str(error))
        return []
    lines = printable(data.decode("utf-8", "backslashreplace")).splitlines()
    if len(data) > _LOG_BYTES:
        lines = lines[1:] or lines  # the first one is cut
    return lines[-_LOG_LINES:]


def node_of(config: Row, name: str) -> Row:
    """Return a node of a config; empty if the config has none."""
    node = config.get(name)
    return node if isinstance(node, Mapping) else {}


def name_of(config: Row, node: str) -> str:
    """Return the name of a task or a model; empty if the config has none."""
    return str(node_of(config, node).get("name", ""))
