"""Checks the composed config of a run, its ``hydra`` node included, without importing torch."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from lozo_bench.config.schema import Config
from lozo_bench.config.secrets import secret_in
from lozo_bench.errors import UserError
from lozo_bench.training.checks import checked

# Parts of Hydra's own config that name folders, files and jobs.
_NAMES = ("job.name", "output_subdir", "launcher", "job_logging", "hydra_logging")


def check_cell(config: DictConfig, folders: Sequence[str]) -> Config:
    """Check everything in a composed config that can be checked without torch.

    Args:
        config: the config of a run, with its ``hydra`` node.
        folders: the keys of the names of its folder.

    Raises:
        UserError: the values are wrong, or a name contains an access token.
        OmegaConfBaseException: the name of the folder cannot be resolved.
    """
    with hydra_config(config):
        values, _ = checked(without_hydra(config))
        names = {key: str(_select(config, key)) for key in folders}
        for key in _NAMES:
            names |= dict(_resolved(config.hydra, key, "hydra"))
    # Hydra writes these as they are; all other values keep their interpolations in its files.
    raw = OmegaConf.to_container(config.hydra.job.env_set)
    assert isinstance(raw, dict)
    names |= {f"hydra.job.env_set.{name!s}": str(value) for name, value in raw.items()}
    if (secret := secret_in(names)) is not None:
        raise UserError(secret)
    return values


@contextmanager
def hydra_config(config: DictConfig) -> Iterator[None]:
    """Let interpolations such as ``${hydra:job.name}`` refer to this config meanwhile."""
    state: Any = HydraConfig.instance()
    before = state.cfg
    state.cfg = config  # `set_config` would copy all of it
    try:
        yield
    finally:
        state.cfg = before


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a copy of a composed config as a run gets it."""
    own: DictConfig = pickle.loads(pickle.dumps(config))  # copy.deepcopy takes three times as long
    with read_write(own), open_dict(own):
        del own["hydra"]
    return own


def _select(config: DictConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value[name]
    return value


def _resolved(parent: Any, key: str, above: str) -> Iterator[tuple[str, str]]:
    """Yield the full key and the value of each leaf below ``key`` that can be resolved."""
    name, _, rest = key.partition(".")
    try:
        value = parent[int(name) if isinstance(parent, ListConfig) else name]
    except OmegaConfBaseException:
        return  # a value that comes with the job, such as its number
    full = f"{above}.{name}"
    if rest:
        yield from _resolved(value, rest, full)
    elif isinstance(value, DictConfig):
        for child in value:
            yield from _resolved(value, str(child), full)
    elif isinstance(value, ListConfig):
        for number in range(len(value)):
            yield from _resolved(value, str(number), full)
    else:
        yield full, str(value)
