"""What a cell meets on its way, as Hydra callbacks: `hydra.callbacks.NAME._target_=...`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback


class Fate(Callback):
    """Seeds 1 to 4 end their process, each in another way."""

    def on_job_start(self, config, **_):
        seed = config.seed.value
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 2:
            os._exit(3)  # Code.busy, were it ours
        if seed == 3:
            sys.exit(0)
        if seed == 4:
            os.kill(os.getpid(), signal.SIGSEGV)


class Spy(Callback):
    """Leaves what the cell's process sees in its folder."""

    def on_job_start(self, config, **_):
        folder = Path(HydraConfig.get().runtime.output_dir)
        (folder / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))
        (folder / "pid").write_text(str(os.getpid()))
        (folder / "group").write_text(str(os.getpgrp()))
        print("printed by the cell")
