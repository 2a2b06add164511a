"""What a process does that the fork server made for one cell.

The fork server has imported `PRELOAD`, and with it torch, transformers and everything else a run
needs: a cell begins with all of that in memory. The launcher, which imports this module too, does
without. Nothing touches CUDA before `main` has said which GPU the cell may see.
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

from lozo_bench.digest import register_resolver
from lozo_bench.launch.signals import heed

PRELOAD = ["lozo_bench.run", __name__]
CONSOLE = "console.log"


@dataclass(frozen=True, slots=True)
class Job:
    """What a cell's process is told.

    Args:
        config: composed, with its ``hydra`` node.
        folder: the cell's.
        cwd: where the command was given.
        gpu: as CUDA_VISIBLE_DEVICES names it; empty for none, None to leave things as they are.
    """

    config: DictConfig
    folder: Path
    cwd: Path
    gpu: str | None


def main(job: Job, answer: Connection) -> None:
    """Run one cell, and answer with its code.

    The exit code would not do: any library may end the process with the number of one of ours.
    """
    # A process group of its own: Ctrl-C reaches a cell through the launcher only, and once.
    os.setpgid(0, 0)
    heed()
    os.chdir(job.cwd)
    _write_to(job.folder / CONSOLE)
    if job.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
    threading.Thread(target=_stop_with_the_launcher, name="launcher", daemon=True).start()
    answer.send(run_as_hydra_job(job.config))


def run_as_hydra_job(config: DictConfig) -> int:
    """The cell as a Hydra job: its log, its environment and its ``.hydra`` folder. Its `Code`."""
    version.setbase("1.3")  # as for a command; Hydra would go into the cell's folder otherwise
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
    from lozo_bench.run import run_cell

    return run_cell(config, Path(HydraConfig.get().runtime.output_dir))


def _write_to(path: Path) -> None:
    """Let all that this process and its children print go to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _stop_with_the_launcher() -> None:
    """A launcher that is gone can tell nobody to stop: the cell saves its state and ends."""
    launcher = parent_process()
    assert launcher is not None
    wait([launcher.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
