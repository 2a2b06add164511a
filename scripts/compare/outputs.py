"""What differs between the outputs of the same cell in two versions."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare import journal
from compare.cells import Cell
from compare.side import Ended

# Facts about time, machine and code, which are not results.
NOT_RESULTS = journal.SECONDS | {
    "step_ms_median", "peak_memory_bytes", "peak_memory_of", "device", "versions", "git",
    "checksum",
}  # fmt: skip
# What the driver and Hydra write, and messages to people.
NOT_COMPARED = frozenset({"stdout.txt", "stderr.txt", "train.log", ".hydra"})
ENDED = "exit code"


@dataclass(frozen=True, slots=True)
class Expected:
    """A difference that is allowed: patterns, as in a shell, of cells and of what differs."""

    cell: str
    what: str

    @staticmethod
    def parse(text: str) -> Expected:
        """Read ``CELL : WHAT``, or ``CELL`` alone for all that may differ in it."""
        cell, colon, what = text.partition(" : ")
        return Expected(cell.strip(), what.strip() if colon else "*")

    def covers(self, cell: str, what: str) -> bool:
        """Whether ``what`` may differ in this cell."""
        return fnmatch.fnmatchcase(cell, self.cell) and fnmatch.fnmatchcase(what, self.what)


def read_expected(path: Path) -> list[Expected]:
    """Read a file of expected differences: one on each line, comments after ``#``."""
    lines = [line.partition("#")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    return [Expected.parse(line) for line in lines if line.strip()]


def differences(cell: Cell, before: Ended, after: Ended) -> dict[str, str]:
    """Return what differs, by name, with a line that describes each difference.

    A run that fails in both versions counts as a difference, because nothing was compared.
    """
    if before.code != after.code:
        failed = before if before.code else after
        return {ENDED: f"{before.code} and {after.code}: {last_line(failed)}"}
    if not cell.trains:
        return _configs(before.folder, after.folder)
    if before.code:
        return {ENDED: f"{before.code} in both: {last_line(before)}"}
    return folders(before.folder, after.folder)


def last_line(ended: Ended) -> str:
    """Return the last line that a cell printed to standard error."""
    path = ended.folder / "stderr.txt"
    lines = path.read_text(encoding="utf-8").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "(no message)"


def _configs(before: Path, after: Path) -> dict[str, str]:
    texts = [(folder / "stdout.txt").read_text(encoding="utf-8") for folder in (before, after)]
    lines = [text.splitlines() for text in texts]
    if lines[0] == lines[1]:
        return {}
    changed = [line for line in lines[0] if line not in lines[1]]
    changed += [line for line in lines[1] if line not in lines[0]]
    return {"config": "; ".join(line.strip() for line in changed[:3]) or "order of the lines"}


def folders(before: Path, after: Path) -> dict[str, str]:
    """Return what differs between the folders of two finished runs."""
    found = _results(*(_json(folder / "result.json") for folder in (before, after)))
    names = [_files(folder) for folder in (before, after)]
    if names[0] != names[1]:
        found["files"] = f"only in one: {', '.join(sorted(names[0] ^ names[1]))}"
    if _rows(before) != _rows(after):
        found["rows"] = "of metrics.jsonl"
    try:
        read = [journal.read((folder / "journal.bin").read_bytes()) for folder in (before, after)]
        if changed := journal.differences(*read):
            found["journal"] = ", ".join(changed)
    except (OSError, journal.JournalError) as error:
        found["journal"] = str(error)
    return found


def _results(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    found = {}
    if before.keys() != after.keys():
        found["keys"] = f"only in one result: {', '.join(sorted(before.keys() ^ after.keys()))}"
    for result in (before, after):
        result.get("engine", {}).pop("measured_ms", None)  # times
    for key in sorted((before.keys() & after.keys()) - NOT_RESULTS):
        if before[key] != after[key]:
            found[key] = _change(before[key], after[key])
    return found


def _change(before: Any, after: Any) -> str:
    """Describe a difference of two JSON values by the first entry that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            if key not in before or key not in after:
                return f"{key} only in one"
            if before[key] != after[key]:
                return f"{key}: {_change(before[key], after[key])}"
    return f"{str(before)[:40]} and {str(after)[:40]}"


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content


def _files(folder: Path) -> set[str]:
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if path.parts[0] not in NOT_COMPARED}


def _rows(folder: Path) -> list[dict[str, Any]] | None:
    """Return the rows of metrics.jsonl without the seconds; None without the file."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in journal.SECONDS} for row in rows]
