"""One run from config to ``result.json``: take the folder, go on from what is there, record.

A cell is run by one process, or by several that share it; the first of them keeps the files.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lozo_bench import provenance
from lozo_bench.assemble import Parts, Plan, assembled, planned
from lozo_bench.checks import check_keys
from lozo_bench.config import Config, Rerun
from lozo_bench.console import FilesAndScreen, ProgressBar, Silent, print_summary
from lozo_bench.contract import Observer
from lozo_bench.digest import digest
from lozo_bench.errors import UserError
from lozo_bench.explain import explain
from lozo_bench.leaks import Masked, found_in
from lozo_bench.memory import Memory
from lozo_bench.parallel.team import Team, join
from lozo_bench.parallel.wire import LostProcessError
from lozo_bench.result import Cell, first_block, log_plan, result_of
from lozo_bench.runs.journal import read
from lozo_bench.runs.lock import Busy, Lock
from lozo_bench.runs.outcome import FAILED, METRICS, RESULT, Code, Failure, write_failure
from lozo_bench.runs.record import CHECKPOINTS, JOURNAL, Past, Record, recall
from lozo_bench.runs.states import States
from lozo_bench.status import command_of, values_of
from lozo_bench.stop import Stop, Stopped
from lozo_bench.tracking import Tracker, read_result, write_result
from lozo_bench.trainer import Trainer

log = logging.getLogger(__name__)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG}


class LeftAlone(Exception):  # noqa: N818  # not an error: what was asked for
    """The cell is not among those that ``rerun`` asks for."""


def run_and_tell(config: DictConfig, folder: Path) -> Code:
    """Run one cell and report how it went, in the folder too.

    A signal that asked the run to stop is handed over, when everything is saved, to whoever handled
    it before: under submitit that puts the job back into the queue and ends this process.
    """
    _mask_secrets()
    with Stop() as stop:
        code = _run_and_explain(config, folder, stop)
        if code is Code.stopped:
            stop.hand_over()
    return code


def _run_and_explain(config: DictConfig, folder: Path, stop: Stop) -> Code:
    again = "without rerun=all goes on" if config.get("rerun") is Rerun.all else "goes on"
    try:
        result = run(config, folder, stop.check)
    except (Busy, LeftAlone) as error:
        log.warning("%s", error)
        return Code.busy if isinstance(error, Busy) else Code.skipped
    except LostProcessError as error:
        log.warning("%s", error)
        return Code.stopped
    except UserError as error:
        log.error("%s", error)
        return _failed(folder, Code.bad_input, str(error))
    except Stopped:
        log.warning("stopped%s; what was done is kept, and the same command %s", stop.told(), again)
        return Code.stopped
    except Exception as error:
        log.exception("the run failed; everything it wrote is in %s", folder)
        return _failed(folder, Code.defect, f"{type(error).__name__}: {error}")
    if result is not None:
        print_summary(result, folder)
    return Code.finished


def run(
    raw: DictConfig, folder: Path, check: Callable[[], None] = lambda: None
) -> dict[str, Any] | None:
    """Run one cell in ``folder``, unless it is finished, and return its result.

    Of several processes only the first returns it, the others None. ``check`` is called again and
    again and raises Stopped when the run shall stop.

    Raises:
        UserError: bad config, bad data, a model that cannot be had, a loss that is not finite, no
            room on the disk or on the GPU.
        Busy: another process runs this cell.
        LeftAlone: ``rerun`` does not ask for it.
        Stopped: it was asked to stop; it goes on from there next time.
    """
    config, plain = typed(raw)
    leak = found_in([f"{key}={value}" for key, value in _flat(plain)])
    if leak is not None:
        raise UserError(f"{leak}; and remove {folder / '.hydra'}, where it stands now")
    cell = Cell(config, plain, folder, digest(plain))
    plan = planned(config)
    team = join(config.parallel.split.value, config.parallel.timeout_s)
    with _one_line_errors(folder):
        if team.rank:
            _follow(cell, plan, team, check)
            return None
        with ExitStack() as held:
            return _lead(cell, plan, team, check, held)


def _lead(
    cell: Cell, plan: Plan, team: Team, check: Callable[[], None], held: ExitStack
) -> dict[str, Any] | None:
    """The run, as its only or first process."""
    data = b""
    try:
        result = _finished(cell)
        if result is None:
            lock = held.enter_context(Lock(cell.folder))
            past, data = _past(cell, plan)
    finally:
        team.from_first(data)  # nothing: there is nothing to do, or it failed
    if result is not None:
        log.info("already finished; rerun=all runs it again")
        return result
    config = cell.config
    if past.known:
        log.info("going on after step %d", past.known)
    parts = assembled(config, plan, team, past.header.get("engine"))
    log_plan(config, parts)
    if told := values_of(cell.folder):
        log.info(told)
    provenance.reset_peak_memory(parts.loaded.device)
    name = config.tracking.name or f"{config.task.name}-{config.model.name}-{cell.folder.name}"
    header = first_block(cell, past, parts)
    tracker = held.enter_context(
        Tracker(cell.folder, cell.plain, config.tracking, name, header["wandb_id"], past.has)
    )
    bar = held.enter_context(ProgressBar(parts.settings.steps))
    states = States(cell.folder / CHECKPOINTS, config.checkpoint.keep)
    record = held.enter_context(
        closing(
            Record(
                cell.folder,
                past,
                header,
                config.checkpoint.every,
                states if plan.full_states else None,
                plan.replayable,
                tracker.settle,
            )
        )
    )

    def check_all() -> None:
        check()
        lock.check()

    observer = FilesAndScreen(tracker, bar)
    outcome = _trainer(parts, observer, record, team, check_all).run()
    tracker.summarize(
        {f"test_{outcome.test.name}": outcome.test.score, "best_step": outcome.best_step}
    )
    result = result_of(cell, outcome, parts, team)
    write_result(cell.folder, result)
    return result


def _follow(cell: Cell, plan: Plan, team: Team, check: Callable[[], None]) -> None:
    """The run, as one of the other processes: it has the log from the first, and writes nothing."""
    logging.getLogger("lozo_bench").setLevel(logging.WARNING)
    data = team.from_first(b"")
    if not data:
        return
    start = json.loads(data[: data.index(b"\n")])
    past_log = read(data[data.index(b"\n") + 1 :])
    state = None
    if start["state"]:
        state = States(cell.folder / CHECKPOINTS, keep=1).newest(start["state"])
        if state is None or state.step != start["state"]:
            raise UserError(
                f"{cell.folder / CHECKPOINTS}: process {team.rank} does not see the state of step "
                f"{start['state']}; outputs must be on a file system that all nodes share"
            )
    parts = assembled(cell.config, plan, team, past_log.header.get("engine"))
    past = Past(past_log, state, start["known"])
    _trainer(parts, Silent(), past, team, check).run()


def _past(cell: Cell, plan: Plan) -> tuple[Past, bytes]:
    """What there is to go on from, and the same as it is sent to the other processes."""
    folder, rerun = cell.folder, cell.config.rerun
    if rerun is Rerun.failed and not (folder / FAILED).exists():
        raise LeftAlone(f"{folder}: it did not fail, and rerun=failed leaves it alone")
    if rerun is Rerun.all:
        for name in (RESULT, JOURNAL, METRICS):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / FAILED).unlink(missing_ok=True)
    past, data = recall(folder, cell.digest, plan.replayable, plan.full_states)
    start = {"known": past.known, "state": past.state_step}
    return past, json.dumps(start).encode() + b"\n" + data


def _finished(cell: Cell) -> dict[str, Any] | None:
    if cell.config.rerun is Rerun.all:
        return None
    result = read_result(cell.folder, cell.digest)
    if result is not None:
        (cell.folder / FAILED).unlink(missing_ok=True)
    return result


def _trainer(
    parts: Parts, observer: Observer, memory: Memory, team: Team, check: Callable[[], None]
) -> Trainer:
    return Trainer(
        parts.chosen.engine,
        parts.objective,
        parts.judges,
        parts.optimizer,
        parts.data,
        parts.settings,
        observer,
        parts.loaded.device,
        memory,
        team.sharing,
        check,
        parts.noise,
    )


@contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    """What goes wrong with the machine and not with the run, said in a line with what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the GPU is out of memory ({str(error).splitlines()[0]}); smaller: batch_size, "
            "eval_batch_size, engine.candidates_per_forward=1 or model.dtype=bf16; or more GPUs: "
            "model.device_map=auto. The steps so far are kept"
        ) from error
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise UserError(
            f"{error.filename or folder}: {error.strerror}; make room for it, or choose another "
            "place with hydra.sweep.dir=DIR. What was finished is there, and the same command "
            "goes on"
        ) from error


def _failed(folder: Path, code: Code, reason: str) -> Code:
    write_failure(folder, Failure(reason, code, command_of(folder)))
    return code


def _mask_secrets() -> None:
    for handler in logging.getLogger().handlers:
        if not any(isinstance(there, Masked) for there in handler.filters):
            handler.addFilter(Masked())


def _flat(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a plain config with its full key."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _flat(child, f"{key}.{name}".lstrip("."))
    else:
        yield key, node


def typed(raw: DictConfig) -> tuple[Config, dict[str, Any]]:
    """The config as dataclasses, and resolved to plain values.

    Raises:
        UserError: a value is missing or an interpolation leads nowhere.
    """
    try:
        config = OmegaConf.to_object(raw)
        plain = OmegaConf.to_container(raw, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, []) or str(error)) from error
    assert isinstance(config, Config)
    assert isinstance(plain, dict)
    by_name = {str(key): value for key, value in plain.items()}
    check_keys(by_name)
    return config, by_name
