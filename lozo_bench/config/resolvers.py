"""Functions that a config can call, such as ``${digest:}`` and ``${pick:...}``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lozo_bench.config.digest import digest
from lozo_bench.config.schema import Scale
from lozo_bench.errors import UserError


def register_resolver() -> None:
    """Register the OmegaConf resolvers that this package's YAML files use.

    ``${digest:}`` is the digest of the config. ``${method:OPTIMIZER,TUNING}`` is the name of the
    two in a run's folder, which omits the tuning ``full``. ``${pick:KEY,{KEY:VALUE,...}}`` is the
    value listed for that key. ``${per_tuning:{full:VALUE,TUNING:VALUE,...}}`` is the value listed
    for the run's tuning, or that of ``full`` if there is none. ``${per_scale:{published:VALUE,
    tiny:VALUE}}`` is the value listed for the run's scale.
    """
    OmegaConf.register_new_resolver("digest", _digest_of_root, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("method", _method, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("pick", _pick, replace=True)
    OmegaConf.register_new_resolver("per_tuning", _per_tuning, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("per_scale", _per_scale, use_cache=False, replace=True)


def _method(optimizer: str, tuning: str, _root_: DictConfig) -> str:
    shots = OmegaConf.select(_root_, "evaluation.shots")
    if optimizer == "zero_shot" and shots:
        # The folder, and a table, would call zero-shot what is not.
        raise UserError(
            f"evaluation.shots: given {shots}; allowed with optimizer=zero_shot: 0; what to do: "
            f"optimizer=icl evaluation.shots={shots}, in a command without zero_shot"
        )
    return optimizer if tuning == "full" else f"{optimizer}-{tuning}"


def _pick(key: Any, values: Mapping[str, Any]) -> Any:
    name = key.name if isinstance(key, Enum) else str(key)
    if name not in values:
        raise ValueError(
            f"no value is given for {name!r}; there are values for {', '.join(values)}"
        )
    return values[name]


def _per_tuning(values: Mapping[str, Any], _root_: DictConfig) -> Any:
    # A tuning is one file, named as its option in conf/tuning: lozo_bench.tuning.lora.Lora.
    module = str(OmegaConf.select(_root_, "tuning._target_")).rpartition(".")[0]
    return values.get(module.rpartition(".")[2], values["full"])


def _per_scale(values: Mapping[str, Any], _root_: DictConfig) -> Any:
    return _pick(OmegaConf.select(_root_, "scale", default=Scale.published), values)


def _digest_of_root(_root_: DictConfig) -> str:
    root = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    container = OmegaConf.to_container(root, resolve=True, enum_to_str=True)
    assert isinstance(container, dict)
    return digest({str(name): value for name, value in container.items()})
