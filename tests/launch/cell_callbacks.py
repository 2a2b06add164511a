"""Hydra callbacks that act in a cell's process: `hydra.callbacks.NAME._target_=...`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback


class EndProcess(Callback):
    """Ends the process of the cells with seeds 1 to 4, each in another way."""

    def on_job_start(self, config, **_):
        seed = config.seed.value
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 2:
            os._exit(3)  # the number of Code.busy
        if seed == 3:
            sys.exit(0)
        if seed == 4:
            os.kill(os.getpid(), signal.SIGSEGV)


class WriteProcessInfo(Callback):
    """Writes the GPU, pid and process group that the cell's process sees into its folder."""

    def on_job_start(self, config, **_):
        folder = Path(HydraConfig.get().runtime.output_dir)
        (folder / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))
        (folder / "pid").write_text(str(os.getpid()))
        (folder / "group").write_text(str(os.getpgrp()))
        print("printed by the cell")
