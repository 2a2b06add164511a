"""The main function of a process that the fork server made for one cell.

The fork server has imported `PRELOAD`, and with it torch, transformers and everything else that a
run needs, so a cell starts with all of this in memory. The launcher also imports this module, but
does not need those libraries. Nothing touches CUDA before `main` has set which GPU the cell may
use.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from lozo_bench.config.resolvers import register_resolver
from lozo_bench.launch.record import record_command
from lozo_bench.launch.signals import restore_handlers

PRELOAD = ["lozo_bench.launch.loaded", __name__]
CONSOLE = "console.log"


@dataclass(frozen=True, slots=True)
class Job:
    """The input of a cell's process.

    Args:
        config: the composed config, with its ``hydra`` node.
        folder: the cell's folder.
        cwd: the working directory of the command.
        gpu: the value for CUDA_VISIBLE_DEVICES: empty hides all GPUs, None keeps the variable.
    """

    config: DictConfig
    folder: Path
    cwd: Path
    gpu: str | None


def main(job: Job, to_launcher: Connection) -> None:
    """Run one cell and send its `Code` to the launcher.

    The exit code of the process is not used: any library may end the process with the same number
    as one of our codes.

    Args:
        job: the cell to run.
        to_launcher: the sending end of the pipe to the launcher.
    """
    # In its own process group, the cell gets Ctrl-C from the launcher only, and therefore once.
    os.setpgid(0, 0)
    restore_handlers()
    os.chdir(job.cwd)
    _redirect_output_to(job.folder / CONSOLE)
    if job.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
    threading.Thread(target=_stop_when_the_launcher_ends, name="launcher", daemon=True).start()
    to_launcher.send(run_as_hydra_job(job.config))


def run_as_hydra_job(config: DictConfig) -> int:
    """Run the cell as a Hydra job, with its log, environment and ``.hydra`` folder.

    Returns:
        The cell's `Code`.
    """
    # As `lozo-train` does; otherwise Hydra would change to the cell's folder.
    version.setbase("1.3")
    setup_globals()
    register_resolver()
    JobRuntime.instance().set("name", config.hydra.job.name)
    done: JobReturn = run_job(
        task_function=_task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=HydraContext(None, Callbacks(config)),  # type: ignore[arg-type]  # no loader
    )
    if done.status is JobStatus.COMPLETED:
        return int(done.return_value)
    raise done._return_value


def _task(config: DictConfig) -> int:
    from lozo_bench.launch.loaded import run

    folder = Path(HydraConfig.get().runtime.output_dir)
    return run.run_cell(config, folder, lambda: record_command(config, folder))


def _redirect_output_to(path: Path) -> None:
    """Append everything that this process and its children print to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _stop_when_the_launcher_ends() -> None:
    """Stop the cell when the launcher has ended: it then saves its state.

    A launcher that no longer exists cannot forward a signal.
    """
    launcher = parent_process()
    assert launcher is not None
    wait([launcher.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
