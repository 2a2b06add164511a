"""The entry point: ``python -m lozo_bench.train`` and ``lozo-train``.

Only Hydra is imported here, so that ``--help``, ``--cfg job`` and tab completion answer at once;
torch and transformers come with the first run.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import lozo_bench
from lozo_bench import launch
from lozo_bench.config.completion import allowed_words
from lozo_bench.config.explain import explain
from lozo_bench.config.files import check_words_in_files
from lozo_bench.config.help import help_text, own_folder, topic_of
from lozo_bench.config.paths import CONF
from lozo_bench.config.renamed import with_new_names
from lozo_bench.config.resolvers import register_resolver
from lozo_bench.config.schema import Config
from lozo_bench.config.secrets import find_secret, mask
from lozo_bench.config.switches import with_switches
from lozo_bench.config.task_list import with_task_lists
from lozo_bench.config.words import check_arguments
from lozo_bench.errors import UserError
from lozo_bench.launch import local, serial, slurm, sweeper
from lozo_bench.launch.output import lasting_output
from lozo_bench.launch.record import record_command
from lozo_bench.launch.signals import nothing_begun
from lozo_bench.runs.outcome import Code


class CellFailedError(RuntimeError):
    """A cell of a sweep failed and logged the reason; the other cells continue."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> None:
    """Run one cell in the folder that Hydra made for it."""
    with nothing_begun():
        from lozo_bench.launch.loaded import run

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    code = run.run_cell(config, folder, lambda: record_command(config, folder))
    if code is Code.stopped:  # in this process, stopping one cell stops the whole sweep
        sys.exit(launch.INTERRUPTED)
    if code and hydra_config.mode == RunMode.RUN:
        sys.exit(code)
    if code in (Code.defect, Code.bad_input):
        raise CellFailedError(f"failed with exit code {code}: see {hydra_config.sweep.subdir}")


def main() -> None:
    """Run the command, or print one line that says why it cannot run.

    The exit code of a single run is its `Code`, or 130 if it was stopped. The exit code of a sweep
    is 1 if any cell failed, 130 if it was stopped, and 0 otherwise.
    """
    with lasting_output():
        _main()


def _main() -> None:
    if gone := _removed_working_folder():
        print(gone, file=sys.stderr)
        sys.exit(Code.bad_input)
    secret = find_secret(sys.argv[1:])
    if secret is not None:  # checked before Hydra writes the command line to a file
        print(secret, file=sys.stderr)
        sys.exit(Code.bad_input)
    sys.argv[1:], notes = with_new_names(sys.argv[1:])
    for note in notes:
        print(note, file=sys.stderr)
    if _answered(sys.argv[1:]):
        return
    launch.begin()
    launch.register("lozo_serial", serial, serial.SerialLauncher)
    launch.register("lozo_local", local, local.LocalLauncher)
    launch.register("lozo_slurm", slurm, slurm.SlurmLauncher)
    launch.register("lozo_sweeper", sweeper, sweeper.CheckedSweeper)
    ConfigStore.instance().store(name="schema", node=Config)
    register_resolver()
    check_words_in_files()
    # With this, Hydra raises its errors instead of printing them over several lines.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        sys.argv[1:] = with_task_lists(with_switches(sys.argv[1:]))
        check_arguments(sys.argv[1:])
        job()
    except CellFailedError:
        sys.exit(Code.defect)
    except KeyboardInterrupt:
        print("interrupted; the same command runs what is not finished", file=sys.stderr)
        sys.exit(launch.INTERRUPTED)
    except Exception as error:
        line = explain(error, sys.argv[1:])
        if line is None:
            print(mask(traceback.format_exc()), end="", file=sys.stderr)
            sys.exit(Code.defect)
        print(line, file=sys.stderr)
        sys.exit(Code.bad_input)
    if code := launch.exit_code():
        sys.exit(code)


def _answered(arguments: Sequence[str]) -> bool:
    """Print what a command asks to know about this program; return whether it does."""
    if "--version" in arguments:
        print(f"lozo-bench {lozo_bench.__version__}")
        return True
    if (topic := topic_of(arguments)) is not None:
        try:
            print(help_text(topic, own_folder(arguments)))
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(Code.bad_input)
        return True
    if {"-sc", "--shell-completion"} & set(arguments):
        line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0"))]
        if words := allowed_words(line):
            print("\n".join(words))
            return True
    return False


def _removed_working_folder() -> str:
    """Return what is wrong if the folder in which the command starts has been removed, or ""."""
    try:
        Path.cwd()
    except FileNotFoundError:
        where = os.environ.get("PWD", "the working folder")
        return f"{where}: this folder was removed; cd to a folder that exists and start again"
    return ""


if __name__ == "__main__":
    main()
