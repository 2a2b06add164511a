"""A longer run begins with the steps of a finished shorter one, if these are its own first steps.

Two runs of which one only has more steps, or a larger ``optimizer.budget``, make the same steps at
the beginning, unless the method or the schedule looks at the end of the run. Then the longer one is
given the history of the shorter one: its journal, its rows, and its newest full state. From there
it is a run that was interrupted. Nothing in the folder of the shorter run is changed.

What the longer run would not have done itself is left out: the test, and the evaluation on dev and
the row of numbers after a last step that is no multiple of ``eval_every`` and ``log_every``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lozo_bench.config.digest import digest
from lozo_bench.config.schema import Schedule
from lozo_bench.errors import UserError
from lozo_bench.runs.atomic import write_whole
from lozo_bench.runs.blocks import with_header
from lozo_bench.runs.checkpoints import Checkpoint, Checkpoints
from lozo_bench.runs.contents import check_contents
from lozo_bench.runs.files import read_file
from lozo_bench.runs.history import CHECKPOINTS, evaluated_set
from lozo_bench.runs.journal import VERSION, Log, read, retold
from lozo_bench.runs.outcome import EVENTS, JOURNAL, METRICS, RESULT
from lozo_bench.runs.recall import objection
from lozo_bench.runs.result_file import load_result
from lozo_bench.runs.row import read_row
from lozo_bench.training.plan import Cell

# Options of an optimizer that say how long the run is.
_LENGTHS = ("total_steps", "budget")


@dataclass(frozen=True, slots=True)
class Begun:
    """What a shorter run gave to a new one.

    Args:
        run: the folder of the shorter run.
        steps: how many steps the shorter run made.
        refused: why the new run starts from the beginning all the same; empty if it does not.
    """

    run: Path
    steps: int
    refused: str = ""

    def told(self, known: int) -> str:
        """Return the line that says where the run begins.

        Args:
            known: the last step that is restored rather than made.
        """
        if not self.refused:
            return f"goes on from step {known} of {self.run}, which is the same run but shorter"
        return (
            f"starts from the beginning, although {self.run} is the same run with {self.steps} "
            f"steps: {self.refused}"
        )


def begin_from_shorter(cell: Cell, files: Mapping[str, str]) -> Begun | None:
    """Give a new run the history of the longest finished run that is shorter and else the same.

    Only the folders beside the run's own are searched, which for a sweep are those of the same
    task and model.

    Args:
        cell: the new run, whose folder the caller has locked.
        files: the hashes of its large files.

    Returns:
        None if the folder has a history, or if there is no such run.

    Raises:
        OSError: the history cannot be written.
    """
    if (cell.folder / JOURNAL).exists() or (cell.folder / CHECKPOINTS).exists():
        return None
    found = max(_shorter(cell), key=lambda result: int(result["steps"]), default=None)
    if found is None:
        return None
    shorter, steps = Path(found["folder"]), int(found["steps"])
    refused = _looks_at_the_end(cell, found["config"]) or _taken(cell, shorter, found, files)
    return Begun(shorter, steps, refused)


def _shorter(cell: Cell) -> Iterator[dict[str, Any]]:
    """Yield the results, with their ``folder``, of finished runs that differ only in length."""
    name = cell.folder.name
    alike = name.removesuffix(cell.digest) if name.endswith(cell.digest) else ""
    for folder in cell.folder.parent.glob("*"):
        if folder == cell.folder or not folder.name.startswith(alike):
            continue
        with suppress(UserError):
            result = load_result(folder) if (folder / RESULT).is_file() else None
            if result is not None and _is_shorter(cell, result):
                yield result | {"folder": str(folder)}


def _is_shorter(cell: Cell, result: Mapping[str, Any]) -> bool:
    theirs, steps = result.get("config"), result.get("steps")
    if not isinstance(theirs, dict) or not isinstance(steps, int) or not steps:
        return False
    with suppress(LookupError, TypeError, AttributeError):
        same = _of_length(cell.plain, theirs)
        return same != cell.plain and digest(same) == result["digest"]
    return False


def _of_length(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return our config with the length of another run's.

    Raises:
        LookupError: the other run is longer, or its optimizer has other options.
    """
    options, former = dict(ours["optimizer"]), theirs["optimizer"]
    lengths = {key: former[key] for key in _LENGTHS if key in options and key in former}
    longer = theirs["steps"] > ours["steps"] or any(
        value > options[key] for key, value in lengths.items()
    )
    options |= lengths
    if longer or any(former.get(key, value) != value for key, value in options.items()):
        raise LookupError
    return {**ours, "steps": theirs["steps"], "optimizer": options}


def _looks_at_the_end(cell: Cell, theirs: Mapping[str, Any]) -> str:
    """Return what makes the steps of a run depend on how many there are; empty if nothing does."""
    config, needs = cell.config, cell.plan.needs
    if config.schedule is not Schedule.constant:
        return f"with schedule={config.schedule.value} a step depends on how many there are"
    if config.allocation:
        return "an allocation depends on how many steps there are"
    ours, former = cell.plain["optimizer"], theirs["optimizer"]
    changed = [f"optimizer.{key}" for key, value in ours.items() if former.get(key) != value]
    if changed and (needs is None or not needs.any_length):
        return f"with {changed[0]} a step depends on how many there are"
    return ""


def _taken(cell: Cell, shorter: Path, result: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Write the history of a shorter run into the folder; return why it cannot be used, or ""."""
    try:
        data = with_header(read_file(shorter / JOURNAL) or b"")
        found = read(data)
        check_contents(found.header.get("files", {}), files)
    except UserError as error:
        return str(error)
    header = found.header
    if header.get("version") != VERSION or header.get("digest") != result["digest"] or found.damage:
        return f"its {JOURNAL} is missing, damaged or of a former version"
    state = _state(cell, shorter, found)
    if state is None and not cell.plan.replayable:
        return "its steps cannot be made again, and it kept no full state that can be used"
    header = _header(cell, shorter, found, result)
    _copy_rows(cell, shorter, int(result["steps"]))
    if state is not None:
        states = Checkpoints(cell.folder / CHECKPOINTS, cell.config.checkpoint.keep)
        states.save(_retold_state(cell, state, header))
    whole = retold(data, header, lambda step, name: _keeps(cell, step, name))
    write_whole(cell.folder / JOURNAL, lambda draft: draft.write_bytes(whole))
    return ""


def _keeps(cell: Cell, step: int, name: str) -> bool:
    """Return whether the longer run makes this evaluation too."""
    return name == "zero_shot" or (name == "dev" and step % cell.config.eval_every == 0)


def _header(cell: Cell, shorter: Path, found: Log, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header of the longer run's journal."""
    header = {key: value for key, value in found.header.items() if key != "version"}
    planned = result["config"]["steps"] == header.get("steps")
    return header | {
        "digest": cell.digest,
        "config": dict(cell.plain),
        "steps": cell.config.steps if planned else "?",  # the method knows it, once it has a model
        "wandb_id": f"{cell.digest}-{time.time_ns() // 10**6:x}",
        "begun_as": {"run": str(shorter), "digest": result["digest"]},
    }


def _state(cell: Cell, shorter: Path, found: Log) -> Checkpoint | None:
    """Return the newest full state of a shorter run that the longer one would have had too."""

    def wrong(state: Checkpoint) -> str:
        best = state.metadata["best"]
        if state.history is None:
            return "is of a former version"
        if best is not None and best["step"] % cell.config.eval_every:
            return "has a best step that a longer run does not evaluate"
        return objection(found.header["digest"], found, state)

    return Checkpoints(shorter / CHECKPOINTS, keep=1).newest(objection=wrong)


def _retold_state(cell: Cell, state: Checkpoint, header: Mapping[str, Any]) -> Checkpoint:
    assert state.history is not None
    kept = [each for each in state.history["evaluations"] if _keeps(cell, each[0], each[1])]
    history = {**state.history, "evaluations": kept, "header": {"version": VERSION, **header}}
    return Checkpoint(state.step, state.tensors, state.metadata, history)


def _copy_rows(cell: Cell, shorter: Path, last: int) -> None:
    """Copy the rows and events; a row after the last step may be one that a longer run lacks.

    `prepare_rows` removes what else is not in the history.
    """
    for name in (METRICS, EVENTS):
        data = read_file(shorter / name)
        if data is None:
            continue
        if name == METRICS and last % cell.config.log_every:
            lines = [line for line in data.splitlines(True) if not _is_of_step(line, last)]
            data = b"".join(lines)
        _write(cell.folder / name, data)


def _write(path: Path, data: bytes) -> None:
    write_whole(path, lambda draft: draft.write_bytes(data))


def _is_of_step(line: bytes, step: int) -> bool:
    row = read_row(line)
    return row is not None and row["step"] == step and evaluated_set(row) is None
