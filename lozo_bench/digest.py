"""The digest of a run: a hash of everything in its config that changes its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_NOT_PART_OF_A_RESULT = {
    "hydra",
    "tracking",
    "sweep",
    "rerun",
    "log_every",
    "eval_batch_size",
    "model.device",
    "model.device_map",
}
_PATHS = {"model.path", "task.data_dir", "task.source.data_dir", "task.source.full_dir"}


def digest(config: Mapping[str, Any]) -> str:
    """Eight hex digits, the same for equal results from every launcher, folder and process.

    Directories count by their absolute path, so that one relative name used from two working
    directories is not taken for the same data.
    """
    told = json.dumps(_identity(config, ""), sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=4).hexdigest()


def _identity(node: Any, key: str) -> Any:
    if isinstance(node, Mapping):
        children = {str(name): f"{key}.{name}".lstrip(".") for name in node}
        return {
            name: _identity(node[name], child)
            for name, child in children.items()
            if child not in _NOT_PART_OF_A_RESULT
        }
    if key in _PATHS and isinstance(node, str) and Path(node).expanduser().is_dir():
        return str(Path(node).expanduser().resolve())
    return node


def register_resolver() -> None:
    """Let ``${digest:}`` in a config stand for the digest of that config."""
    OmegaConf.register_new_resolver("digest", _digest_of_root, use_cache=False, replace=True)


def _digest_of_root(_root_: DictConfig) -> str:
    root = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    container = OmegaConf.to_container(root, resolve=True, enum_to_str=True)
    assert isinstance(container, dict)
    return digest({str(name): value for name, value in container.items()})
