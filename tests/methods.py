"""Which optimizers there are, by the steps they make: a YAML file is taken in by existing."""

from __future__ import annotations

import importlib
from pathlib import Path

from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[1] / "conf" / "optimizer"


def _needs(path):
    module, _, name = OmegaConf.load(path)["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name).needs


FILES = {path.stem: path for path in sorted(CONF.glob("*.yaml"))}
NEEDS = {name: _needs(path) for name, path in FILES.items() if "_target_" in OmegaConf.load(path)}
# All options of the group; those without needs only evaluate.
EVERY = list(FILES)
# Those that search the layers of a model in turn, and have a budget instead of a learning rate.
SEARCHING = [name for name, path in FILES.items() if "budget" in OmegaConf.load(path)]
# Those that learn from several tasks at once, each with batches of its own.
OF_TASKS = [name for name, path in FILES.items() if "tasks" in OmegaConf.load(path)]
# Those that move the weights step by step, and of these those that need no gradient for it.
STEPPING = [
    name
    for name, needs in NEEDS.items()
    if not (needs.features or needs.two_level) and name not in (*SEARCHING, *OF_TASKS)
]
ZEROTH_ORDER = [name for name in STEPPING if not NEEDS[name].updates_by_gradient]
