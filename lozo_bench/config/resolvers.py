"""Functions that a config can call, such as ``${digest:}`` and ``${pick:...}``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lozo_bench.config.digest import digest, is_part_of_a_result
from lozo_bench.config.schema import Scale
from lozo_bench.config.several import trained_tasks
from lozo_bench.errors import UserError


def register_resolver() -> None:
    """Register the OmegaConf resolvers that this package's YAML files use.

    ``${digest:}`` is the digest of the config. ``${method:OPTIMIZER,TUNING}`` is the name of the
    two in a run's folder, which omits the tuning ``full``. ``${pick:KEY,{KEY:VALUE,...}}`` is the
    value listed for that key. ``${per_tuning:{full:VALUE,TUNING:VALUE,...}}`` is the value listed
    for the run's tuning, or that of ``full`` if there is none; ``${per_optimizer:{OPTIMIZER:VALUE,
    ...,other:VALUE}}`` is that of its optimizer, or of ``other``. ``${per_scale:{published:VALUE,
    tiny:VALUE}}`` is the value listed for the run's scale. ``${task_names:}`` lists the tasks that
    are trained, if the run has several, and ``${task_set:}`` is the name of all of them together.
    ``${member:}`` is the folder of a task in that of its collection, the run's ``task.data_dir``.
    """
    OmegaConf.register_new_resolver("digest", _digest_of_root, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("method", _method, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("pick", _pick, replace=True)
    OmegaConf.register_new_resolver("per_tuning", _per_tuning, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("per_optimizer", _per_optimizer, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("per_scale", _per_scale, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("task_names", _task_names, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("task_set", _task_set, use_cache=False, replace=True)
    OmegaConf.register_new_resolver("member", _member, use_cache=False, replace=True)


def _method(optimizer: str, tuning: str, _root_: DictConfig) -> str:
    shots = OmegaConf.select(_root_, "evaluation.shots")
    if optimizer == "zero_shot" and shots:
        # The folder, and a table, would call zero-shot what is not.
        raise UserError(
            f"evaluation.shots: given {shots}; allowed with optimizer=zero_shot: 0; what to do: "
            f"optimizer=icl evaluation.shots={shots}, in a command without zero_shot"
        )
    return optimizer if tuning == "full" else f"{optimizer}-{tuning}"


_NAMED = 4  # of so many tasks the folder of a run has the names


def _task_names(_root_: DictConfig) -> list[str]:
    tasks = OmegaConf.select(_root_, "task.tasks") or {}
    return trained_tasks(tasks, OmegaConf.select(_root_, "task.held_out") or [])


def _task_set(_root_: DictConfig) -> str:
    names = [str(name) for name in OmegaConf.select(_root_, "task.tasks") or {}]
    more = len(names) - _NAMED
    return "-".join([*names[:_NAMED], *([f"{more}_more"] if more > 0 else [])]) or "several"


def _pick(key: Any, values: Mapping[str, Any]) -> Any:
    name = key.name if isinstance(key, Enum) else str(key)
    if name not in values:
        raise ValueError(
            f"no value is given for {name!r}; there are values for {', '.join(values)}"
        )
    return values[name]


# Tunings that train the matrices of LoRA, and so take its learning rates.
_LIKE_LORA = {"gated_lora", "shortcuts", "rslora", "dora", "eva", "adalora"}


def _per_tuning(values: Mapping[str, Any], _root_: DictConfig) -> Any:
    tuning = _file_of("tuning", _root_)
    if tuning == "two_level":  # its adapter has a learning rate of its own
        tuning = _file_of("tuning.adapter", _root_)
    return values.get("lora" if tuning in _LIKE_LORA else tuning, values["full"])


def _per_optimizer(values: Mapping[str, Any], _root_: DictConfig) -> Any:
    return values.get(_file_of("optimizer", _root_), values["other"])


def _file_of(group: str, root: DictConfig) -> str:
    """Return the name of the file of the chosen class, which is that of its option.

    The class of tuning=lora is lozo_bench.tuning.lora.Lora. Without a class the name is empty.
    """
    module = str(OmegaConf.select(root, f"{group}._target_")).rpartition(".")[0]
    return module.rpartition(".")[2]


def _per_scale(values: Mapping[str, Any], _root_: DictConfig) -> Any:
    return _pick(OmegaConf.select(_root_, "scale", default=Scale.published), values)


def _member(_parent_: DictConfig) -> str | None:
    """Return the folder of a task in its collection: it has the name of the task's key.

    MetaICL writes ``unifiedqa:qasc``, which cannot be a key on the command line: here it is
    ``unifiedqa-qasc``. Made-up rows have no folder.
    """
    collection = _parent_._get_parent()._get_parent()  # type: ignore[union-attr]
    assert isinstance(collection, DictConfig)
    if (folder := collection.get("data_dir")) is not None:
        name = str(_parent_._key()).replace("unifiedqa-", "unifiedqa:", 1)
        return str(Path(folder) / name)
    if collection.get("invented_rows"):
        return None
    raise UserError(
        "task.data_dir: given None; allowed: the folder of a collection, which has one for each "
        "task, such as DIR of DIR/imdb/imdb_16384_100_train.jsonl"
    )


def _digest_of_root(_root_: DictConfig) -> str:
    return digest(
        {str(key): _plain(_root_, key) for key in _root_ if is_part_of_a_result(str(key))}
    )


def _plain(root: DictConfig, key: Any) -> Any:
    """Return a value of the root as `OmegaConf.to_container` does, without copying the others."""
    if OmegaConf.is_missing(root, key):
        return "???"
    value = root[key]
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True, enum_to_str=True)
    return value.name if isinstance(value, Enum) else value
