"""Reads the history of a run from its folder, and decides where the run continues.

Nothing is believed that no checksum covers, and nothing is deleted that a run could continue from:
a damaged journal and checkpoints that cannot be used are renamed.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from lozo_bench.errors import UserError
from lozo_bench.runs.atomic import write_whole
from lozo_bench.runs.blocks import with_header
from lozo_bench.runs.checkpoints import Checkpoint, Checkpoints
from lozo_bench.runs.files import read_file, set_aside
from lozo_bench.runs.history import CHECKPOINTS, History, OtherRun
from lozo_bench.runs.journal import VERSION, Log, read, up_to, without_lost_steps
from lozo_bench.runs.outcome import JOURNAL

log = logging.getLogger(__name__)


def check_format(found: Log, path: Path) -> None:
    """Refuse a journal in a format of another version of this package.

    Raises:
        UserError: its format version is not `VERSION`.
    """
    if found.header and found.header.get("version") != VERSION:
        raise UserError(
            f"{path}: its format is {found.header.get('version')}, but this version reads "
            f"format {VERSION}; run again with rerun=all"
        )


def recall(folder: Path, digest: str, replayable: bool) -> tuple[History, bytes]:
    """Read the history of the run in ``folder`` and its journal's bytes, both empty if new.

    What the run cannot continue from is removed from the journal. A checkpoint that is newer than
    what can be read of the journal stands in for it.

    Args:
        folder: the run's folder.
        digest: the digest of its config, which the journal and the checkpoints must have too.
        replayable: the recorded steps can be replayed.

    Raises:
        OtherRun: the journal belongs to another run.
        UserError: a file cannot be read, or the run could only begin again although it has a
            checkpoint.
    """
    path = folder / JOURNAL
    written = read_file(path) or b""
    data = with_header(written)
    found = read(data)
    check_format(found, path)
    if found.header and found.header.get("digest") != digest:
        raise OtherRun(
            f"{path}: it belongs to the run {found.header.get('digest')}, and this run is "
            f"{digest}; move the folder away or run again with rerun=all"
        )
    states = Checkpoints(folder / CHECKPOINTS, keep=1)
    state, needs_journal = _newest(states, digest, found)
    known = _known(found, state, replayable)
    if needs_journal and not known:
        damage = f"is {found.damage}" if written else "is missing"
        raise UserError(
            f"{path}: {damage}, and the checkpoint of step {needs_journal} is of a former "
            "version, which cannot continue without it; put the journal back, or run again from "
            "the start with rerun=all"
        )
    states.set_skipped_aside()
    if data != written:
        log.warning("the first bytes of %s are damaged; their copy is used", path)
    if found.damage:
        log.warning("%s is %s; the run resumes from step %d", path, found.damage, known)
    elif not written and state is not None:
        log.warning("%s is missing; the run resumes from its checkpoint %d", path, known)
    good = _journal_up_to(known, found, data, state)
    if good != written:
        _replace(path, written, good, keep=found.readable_rest or data != written)
    return History(read(good), state, known), good


def objection(digest: str, found: Log, state: Checkpoint) -> str:
    """Return why a checkpoint is not one of the run with this digest and journal.

    Returns:
        The rest of a sentence about it; empty if it is of this run.
    """
    if state.history is None:
        return _contradiction(found, state)
    own = state.history["header"]
    if own["digest"] != digest:
        return f"is of the run {own['digest']}, while this is {digest},"
    if found.header and own.get("wandb_id") != found.header.get("wandb_id"):
        return f"is of another start of this run ({own.get('wandb_id')})"
    return ""


def _contradiction(found: Log, state: Checkpoint) -> str:
    """Return how a checkpoint of a former version contradicts the journal; empty if it does not."""
    told = state.metadata
    if not isinstance(told, dict) or not {"best"} <= told.keys() <= {"best", "streams"}:
        return "is damaged"
    best = told["best"]
    if best is None:
        return ""
    if not isinstance(best, dict) or best.keys() != {"step", "dev"}:
        return "is damaged"
    agrees = isinstance(best["step"], int) and best["step"] <= state.step
    if not agrees or found.evaluations.get((best["step"], "dev")) != best["dev"]:
        return f"has a best step that {JOURNAL} does not have, and so is damaged or of another run"
    return ""


def _newest(states: Checkpoints, digest: str, found: Log) -> tuple[Checkpoint | None, int]:
    """Return the newest checkpoint to continue from.

    Also return the step of one that cannot be used without the journal's lost part, or 0.
    """
    need_journal = [0]

    def wrong(state: Checkpoint) -> str:
        if state.history is None and state.step > len(found.steps):
            need_journal.append(state.step)
            return f"needs the part of {JOURNAL} that cannot be read"
        return objection(digest, found, state)

    return states.newest(objection=wrong), max(need_journal)


def _known(found: Log, state: Checkpoint | None, replayable: bool) -> int:
    """Return the last step that is restored rather than run again."""
    start = 0 if state is None else state.step
    if not replayable or start > len(found.steps):
        return start
    lost = found.first_lost_after(start)
    return len(found.steps) if lost is None else lost - 1


def _journal_up_to(known: int, found: Log, data: bytes, state: Checkpoint | None) -> bytes:
    good = up_to(found, data, known)
    if state is None or state.step <= len(found.steps):
        return good
    assert state.history is not None
    past = state.history
    return without_lost_steps(
        found, good, past["header"], state.step, past["evaluations"], past["spent"]
    )


def _replace(path: Path, data: bytes, good: bytes, keep: bool) -> None:
    """Write the part of a journal that the run continues from, and keep the original if asked."""
    if keep:
        log.warning("the damaged journal is kept as %s", set_aside(path))
    elif data.startswith(good):
        os.truncate(path, len(good))
        return
    write_whole(path, lambda draft: draft.write_bytes(good))
