"""One run, from its config to ``result.json``: plan, recall, build, train, record."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lozo_bench.config.schema import Rerun
from lozo_bench.config.secrets import SecretFilter, mask
from lozo_bench.display.console import print_summary
from lozo_bench.engine.device_errors import explanation
from lozo_bench.errors import Stopped, UserError
from lozo_bench.parallel.collectives import LostProcessError
from lozo_bench.parallel.team import join
from lozo_bench.runs.history import OtherRun
from lozo_bench.runs.hydra_files import command_of
from lozo_bench.runs.lock import Busy
from lozo_bench.runs.outcome import Code, Failure, is_first_process, write_failure
from lozo_bench.runs.signals import StopSignal
from lozo_bench.training.build_run import build_run
from lozo_bench.training.plan import plan_cell
from lozo_bench.training.same_everywhere import require_same_config
from lozo_bench.training.session import Follower, Leader, LeftAlone, Session
from lozo_bench.training.start_batches import check_start
from lozo_bench.training.trainer import Trainer

log = logging.getLogger(__name__)
# What can be done about an error of the file system, by its number.
_NO_ROOM, _NOT_ALLOWED = "make room for it", "make it writable"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "raise the largest allowed size of a file (ulimit -f)",
    errno.EROFS: _NOT_ALLOWED,
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EIO: "check the disk or the file server",
    errno.ESTALE: "check the file server",
}


def run_cell(config: DictConfig, folder: Path, record: Callable[[], None] = lambda: None) -> Code:
    """Run one cell, log how it ended, and return its exit code.

    ``record`` writes the command into the folder, once the folder is known to be the run's own.

    A signal that stopped the run is passed on, when everything is saved, to the handler that was
    there before: submitit's puts the job back into the queue and ends this process.
    """
    _mask_secrets()
    with StopSignal() as stop:
        try:
            result = run(config, folder, stop.check, record)
        except Exception as error:
            code = _explained(error, config, folder, stop)
            if code is Code.stopped:
                stop.hand_over()
            return code
    if result is not None:
        print_summary(result, folder)
    return Code.finished


def run(
    raw: DictConfig,
    folder: Path,
    check: Callable[[], None] = lambda: None,
    record: Callable[[], None] = lambda: None,
) -> dict[str, Any] | None:
    """Run one cell in ``folder``, unless it is finished, and return its result.

    Of several processes only the first returns the result, the others None. ``check`` is called
    again and again and raises Stopped to stop the run; ``record`` once, see `run_cell`.

    Raises:
        UserError: bad config, bad data, a model that cannot be loaded, a loss that is not finite,
            no room on the disk or on the GPU.
        Busy: another process runs this cell.
        LeftAlone: ``rerun`` does not ask for it.
        Stopped: it was asked to stop; the next attempt continues from there.
    """
    cell = plan_cell(raw, folder)
    team = join(cell.config.parallel.split.value, cell.config.parallel.timeout_s, check)
    require_same_config(team, cell.plain)
    with _machine_errors_explained(folder), ExitStack() as held:
        session: Session = (
            Follower(cell, team, check) if team.rank else Leader(cell, team, check, held, record)
        )
        past = session.recall()
        if past is None:
            return session.result
        built = build_run(cell.config, cell.plan, team, past.header.get("engine"))
        check_start(past.header, built.start)
        history, observer = session.open(past, built)
        outcome = Trainer(
            built.parts,
            history=history,
            observer=observer,
            sharing=team.sharing,
            check=session.check,
            scratch=folder,
        ).run()
        return session.record(built, outcome)


def note_failure(error: Exception, folder: Path) -> None:
    """Write why a run failed into its folder, unless it was stopped or was not begun."""
    match error:
        case Stopped() | Busy() | LeftAlone() | LostProcessError() | OtherRun():
            return
        case UserError():
            code, reason = Code.bad_input, str(error)
        case _:
            code, reason = Code.defect, f"{type(error).__name__}: {error}"
    if is_first_process():
        write_failure(folder, Failure(mask(reason), code, command_of(folder)))


def _explained(error: Exception, config: DictConfig, folder: Path, stop: StopSignal) -> Code:
    """Log why a run did not finish, write it into the folder, and return the exit code."""
    match error:
        case Stopped():
            without = " without rerun=all" if config.get("rerun") is Rerun.all else ""
            log.warning(
                "stopped%s; everything so far is saved, and the same command%s continues",
                stop.cause(),
                without,
            )
            return Code.stopped
        case Busy():
            log.warning("%s", error)
            return Code.busy
        case LeftAlone():
            log.warning("%s", error)
            return Code.skipped
        case LostProcessError():
            log.warning("%s", error)
            return Code.stopped
        case OtherRun():
            log.error("%s", error)
            return Code.bad_input
        case UserError():
            log.error("%s", error)
            code = Code.bad_input
        case _:
            log.error("the run failed; everything it wrote is in %s", folder, exc_info=error)
            code = Code.defect
    note_failure(error, folder)
    return code


@contextmanager
def _machine_errors_explained(folder: Path) -> Iterator[None]:
    """Turn what a GPU or a disk refuses into one line that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if (why := explanation(error)) is None:
            raise
        raise UserError(why) from error
    except OSError as error:
        if error.errno == errno.ENOENT and not folder.exists() and _is_in(error.filename, folder):
            raise UserError(
                f"{folder}: the folder was removed during the run; the same command runs it again"
            ) from error
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        raise UserError(
            f"{error.filename or folder}: {error.strerror}; {remedy}, or choose another place with "
            "hydra.sweep.dir=DIR. What was finished is there, and the same command continues"
        ) from error


def _is_in(file: str | Path | None, folder: Path) -> bool:
    return file is not None and Path(file).is_relative_to(folder)


def _mask_secrets() -> None:
    for handler in logging.getLogger().handlers:
        if not any(isinstance(there, SecretFilter) for there in handler.filters):
            handler.addFilter(SecretFilter())
