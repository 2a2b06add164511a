"""Helpers that run cells in processes forked from one that has imported everything once."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

from lozo_bench.launch.child import PRELOAD

CONF = Path(__file__).resolve().parents[1] / "conf"
SHORT = [
    "steps=24", "eval_every=8", "log_every=1", "batch_size=8", "checkpoint.every=5",
    "task.source.train=44", "task.source.dev=20", "task.source.test=20", "tracking=files",
    "model.device=cpu",
]  # fmt: skip

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([*PRELOAD, "wandb", "warm"])
# The fork server looks there for `warm`.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)


def start(folder, overrides, environment=None):
    """Start a cell in a folder and return its process."""
    folder.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_cell, args=(overrides, folder, environment or {}))
    process.start()
    return process


def start_waiting(folder, overrides, environment=None, until='"loss"'):
    """Start a cell that pauses once it trains, until it gets a signal or `go_on`.

    It pauses when ``until`` is in metrics.jsonl: as a rule when a step is.
    """
    return start(folder, overrides, {"PAUSES_IN_TRAINING": until, **(environment or {})})


def wait_until_it_waits(folder, *processes):
    """Wait until the process that was started to pause does so."""
    deadline = time.monotonic() + 120
    while not (folder / "paused").exists():
        assert all(process.is_alive() for process in processes), log(folder)
        assert time.monotonic() < deadline, log(folder)
        time.sleep(0.01)


def go_on(folder):
    """Let a paused process continue."""
    (folder / "paused").unlink()


def run(folder, *overrides, processes=1):
    """Run a cell to its end with ``processes`` processes and return their exit codes."""
    port = free_port()
    started = [start(folder, overrides, place(rank, processes, port)) for rank in range(processes)]
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def place(rank, processes, port):
    """Return the environment variables that torchrun would set for a process."""
    if processes == 1:
        return {}
    return {
        "RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def result(folder):
    return json.loads((folder / "result.json").read_text())


def log(folder):
    return (folder / "log.txt").read_text()


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "elapsed_s"} for line in lines]


def config(*overrides):
    """Return the config of a short run with these overrides."""
    return composed(*SHORT, *overrides)


def composed(*overrides):
    """Return the config of a command with these overrides."""
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    from lozo_bench.config.files import check_words_in_files
    from lozo_bench.config.resolvers import register_resolver
    from lozo_bench.config.schema import Config

    register_resolver()
    check_words_in_files()
    ConfigStore.instance().store(name="schema", node=Config)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        GlobalHydra.instance().hydra.config_loader = _loader()
        return hydra.compose("config", list(overrides))


@functools.cache
def _loader():
    """Return the loader of all configs: each after the first one takes a quarter of the time."""
    from hydra.core.global_hydra import GlobalHydra

    from lozo_bench.config.loader import RememberingLoader

    return RememberingLoader(GlobalHydra.instance().config_loader().get_search_path())


def _cell(overrides, folder, environment):
    import logging
    import resource

    import torch

    from lozo_bench.launch.signals import restore_handlers
    from lozo_bench.training.run import run_cell

    restore_handlers()  # this fork server may ignore signals, as a launcher's does
    os.environ.update(environment)
    os.environ.pop("WANDB_SERVICE", None)  # of the tests' own process, which outlives this one
    with (folder / "log.txt").open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.basicConfig(level=environment.get("LEVEL", "INFO"))
    torch.set_num_threads(1)
    if "PAUSES_IN_TRAINING" in environment:
        _pause_in_training(folder, environment["PAUSES_IN_TRAINING"])
    if limit := int(environment.get("MAX_FILE_BYTES", 0)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.exit(run_cell(config(*overrides), folder))


def _pause_in_training(folder, until):
    """Pause once a text is in metrics.jsonl, so that no signal comes too early or late."""
    from lozo_bench.runs.signals import StopSignal
    from lozo_bench.training import run

    rows, flag = folder / "metrics.jsonl", folder / "paused"

    class PausingStop(StopSignal):
        paused = False

        def check(self):
            if not self.paused and rows.exists() and until in rows.read_text():
                self.paused = True
                flag.touch()
                while self.signal is None and flag.exists():
                    time.sleep(0.005)
            super().check()

    run.StopSignal = PausingStop
