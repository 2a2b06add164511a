"""Which optimizers there are, by the steps they make: a YAML file is taken in by existing."""

from __future__ import annotations

import importlib
from pathlib import Path

from omegaconf import OmegaConf

from lozo_bench.optimizers.base import Steps

CONF = Path(__file__).resolve().parents[1] / "conf" / "optimizer"


def _steps(path):
    module, _, name = OmegaConf.load(path)["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name).steps


KINDS = {path.stem: _steps(path) for path in sorted(CONF.glob("*.yaml"))}
EVERY = list(KINDS)
# Those that move the weights step by step, and of these those that need no gradient for it.
STEPPING = [name for name in EVERY if KINDS[name] not in (Steps.none, Steps.closed_form)]
ZEROTH_ORDER = [name for name in STEPPING if KINDS[name] is not Steps.gradient]
