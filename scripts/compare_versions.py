"""Compare two versions of lozo_bench: the same commands must give the same bits.

python scripts/compare_versions.py BEFORE AFTER
python scripts/compare_versions.py 7392718 . --only 'optimizer=lozo*' --only tuning=full

BEFORE and AFTER are checkouts: folders, or git revisions of this repository. Each version runs
every optimizer, every tuning, both embedded models, the engine modes, bfloat16, metrics as
objectives and several options for 30 steps, and composes the configuration of every option of every
config group. The two versions run side by side, each in one process with one thread.

For each run it compares result.json (weights, metrics and all else except seconds, memory and
versions), the rows of metrics.jsonl, the content of journal.bin after the header, and which files
there are. Differences that are intended can be listed in scripts/compare/expected.txt, or given
with --expect. The exit code is 0 if nothing else differs, 1 if something does, 2 if the versions
could not be compared.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from compare.cells import Cell, configs, runs
from compare.outputs import Expected, differences, read_expected
from compare.side import Side, SideError, checkout_of
from rich.console import Console
from rich.table import Table

EXPECTED = Path(__file__).with_name("compare") / "expected.txt"


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one cell.

    Args:
        cell: what was run.
        seconds: the CPU time it took before and after.
        unexpected: what differs and should not, by name, each with a description.
        expected: what differs and may.
    """

    cell: Cell
    seconds: tuple[float, float]
    unexpected: dict[str, str]
    expected: dict[str, str]

    @property
    def verdict(self) -> str:
        """``differs``, ``expected`` or ``equal``."""
        if self.unexpected:
            return "differs"
        return "expected" if self.expected else "equal"

    def line(self) -> str:
        """Return the line that is printed."""
        before, after = self.seconds
        found = {**self.unexpected, **self.expected}
        what = "".join(f"\n          {name}: {text}" for name, text in found.items())
        return f"{self.verdict:8}  {before:6.1f} s {after:6.1f} s  {self.cell.name}{what}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and return the exit code."""
    args = _parser().parse_args(arguments)
    began = time.monotonic()
    try:
        expected = [*map(Expected.parse, args.expect), *read_expected(args.expected)]
        rows = _compare_all(args, expected)
    except (SideError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    for allowed in expected:
        if not any(allowed.covers(row.cell.name, what) for row in rows for what in row.expected):
            print(f"expected, but not seen: {allowed.cell} : {allowed.what}")
    return _report(rows, time.monotonic() - began)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", help="a checkout, or a git revision of this repository")
    parser.add_argument("after", help="the same")
    parser.add_argument("--steps", type=int, default=30, help="of each run")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="cells with such an override, e.g. optimizer=lozo*; several must all be there",
    )
    parser.add_argument("--no-configs", action="store_true", help="runs only, no configurations")
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="'CELL : WHAT'",
        help="a difference that is intended, as in the file of --expected",
    )
    parser.add_argument("--expected", type=Path, default=EXPECTED, help="a file with more of them")
    parser.add_argument("--out", type=Path, help="a JSON line for each cell goes into this file")
    parser.add_argument("--keep", type=Path, help="an empty folder to keep all outputs in")
    return parser


def chosen(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Return the cells that have an override for each of these patterns."""
    return [
        cell
        for cell in cells
        if all(any(fnmatch.fnmatchcase(o, pattern) for o in cell.overrides) for pattern in only)
    ]


def _compare_all(args: argparse.Namespace, expected: Sequence[Expected]) -> list[Row]:
    with ExitStack() as stack:
        checkouts = [stack.enter_context(checkout_of(v)) for v in (args.before, args.after)]
        cells = runs(checkouts, args.steps)
        if not args.no_configs:
            cells += configs(checkouts)
        cells = chosen(cells, args.only)
        if not cells:
            raise SideError(f"--only: no cell has {' and '.join(args.only)}")
        if args.keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-runs-")))
        else:
            folder = args.keep.resolve()
            if folder.is_dir() and any(folder.iterdir()):
                raise SideError(f"--keep: {args.keep} is not empty")
        out = None if args.out is None else stack.enter_context(args.out.open("w"))
        sides = [
            stack.enter_context(closing(Side(checkout, folder / name, cells)))
            for name, checkout in zip(("before", "after"), checkouts, strict=True)
        ]
        rows = []
        for row in compared(cells, sides, expected):
            rows.append(row)
            print(row.line(), flush=True)
            if out is not None:
                out.write(json.dumps(_as_json(row)) + "\n")
                out.flush()
        return rows


def compared(
    cells: Sequence[Cell], sides: Sequence[Side], expected: Sequence[Expected]
) -> Iterator[Row]:
    """Yield the outcome of each cell as soon as both versions have run it."""
    before, after = sides
    for cell, one, other in zip(cells, before.ended(), after.ended(), strict=True):
        found = differences(cell, one, other)
        allowed = {
            what: text
            for what, text in found.items()
            if any(one.covers(cell.name, what) for one in expected)
        }
        unexpected = {what: text for what, text in found.items() if what not in allowed}
        yield Row(cell, (one.seconds, other.seconds), unexpected, allowed)


def _as_json(row: Row) -> dict[str, object]:
    return {
        "cell": row.cell.name,
        "overrides": row.cell.overrides,
        "verdict": row.verdict,
        "unexpected": row.unexpected,
        "expected": row.expected,
        "seconds": row.seconds,
    }


def _report(rows: Sequence[Row], seconds: float) -> int:
    table = Table(title="compared", title_justify="left")
    for column in ("cells", "equal", "expected", "differs", "CPU s before", "CPU s after"):
        table.add_column(column, justify="left" if column == "cells" else "right")
    for name, trains in (("runs", True), ("configurations", False)):
        these = [row for row in rows if row.cell.trains is trains]
        counts = Counter(row.verdict for row in these)
        took = [f"{sum(row.seconds[side] for row in these):.0f}" for side in (0, 1)]
        verdicts = [str(counts[verdict]) for verdict in ("equal", "expected", "differs")]
        table.add_row(f"{len(these)} {name}", *verdicts, *took)
    Console(width=100).print(table)
    differing = [row for row in rows if row.unexpected]
    for row in differing:
        print(f"differs: {row.cell.name}: {', '.join(row.unexpected)}")
    print(f"{len(rows)} cells, {len(differing)} differ, {seconds:.0f} s")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
