"""Labels that tell runs apart: the method of each, and the values in which it differs from others.

Nine runs of a grid of learning rates are ``lozo lr=0.001``, ``lozo lr=0.0001``, ... A seed is not
part of a label, because runs that differ only in their seeds are averaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lozo_bench.runs.apart import spelled
from lozo_bench.runs.untold import LEFT_OUT, flat, untold

# The folder that a sweep gives to a run: METHOD-rRANK-sSEED-DIGEST.
_FOLDER = re.compile(r"(?P<method>.+)-r[^-]+-s[^-]+-[0-9a-f]{8}")
# A node with a name is described by it: the other keys of another task differ as well.
_NAMED = ("task", "model")
# They are named where they differ at all, other values where they differ among one method's runs.
_EVERYWHERE = ("task.name", "model.name")


@dataclass(frozen=True, slots=True)
class Label:
    """What a run is called among others.

    Args:
        method: the name of its method, such as ``lozo`` or ``mezo-lora``.
        values: the values in which it differs from other runs, by a short key such as ``lr``.
    """

    method: str
    values: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return ``lozo lr=0.001``."""
        return " ".join([self.method, *(f"{key}={value}" for key, value in self.values.items())])


def labels(runs: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[Label]:
    """Return a label for each run.

    Task and model are named if they differ among the runs. All other values are compared among the
    runs of one method, whose name already tells them from those of other methods.

    Args:
        runs: the folder of each run and its config as plain values.
    """
    methods = [method_of(folder, config) for folder, config in runs]
    described = [dict(_described(config)) for _, config in runs]
    everywhere = _differing([(values, "") for values in described]).get("", set())
    of_all = everywhere & set(_EVERYWHERE)
    of_method = _differing(list(zip(described, methods, strict=True)))
    kept = [
        {k: v for k, v in values.items() if k in of_method[method] | of_all}
        for method, values in zip(methods, described, strict=True)
    ]
    groups = [
        (method, *sorted(values.items())) for method, values in zip(methods, kept, strict=True)
    ]
    more = untold([folder for folder, _ in runs], groups)
    return [
        Label(method, _short(values | others))
        for method, values, others in zip(methods, kept, more, strict=True)
    ]


def method_of(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the name of a run's method.

    It is part of the folder's name in a sweep. In a folder of another name, the run is called by
    the files of its optimizer and its tuning, which may be those of several methods.
    """
    if found := _FOLDER.fullmatch(folder.name):
        return found["method"]
    optimizer, tuning = (file_of(config.get(group)) for group in ("optimizer", "tuning"))
    if not optimizer:
        return "in_context" if (config.get("evaluation") or {}).get("shots") else "zero_shot"
    return optimizer if tuning in ("", "full") else f"{optimizer}-{tuning}"


def is_folder_of_sweep(folder: Path) -> bool:
    """Return whether a folder has the name that a sweep gives to a run."""
    return _FOLDER.fullmatch(folder.name) is not None


def file_of(node: Any) -> str:
    """Return the name of the file of a node's class, such as ``lozo``; empty without a class."""
    target = node.get("_target_", "") if isinstance(node, Mapping) else ""
    return str(target).rpartition(".")[0].rpartition(".")[2]


def _described(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the keys and values that describe what was run."""
    for key, value in flat(config):
        if LEFT_OUT.match(key) or key.endswith("._target_"):
            continue
        node, _, rest = key.partition(".")
        named = node in _NAMED and isinstance(config[node], Mapping) and config[node].get("name")
        if not named or rest == "name" or _says_more(node, rest):
            yield key, _text(value)


def _says_more(node: str, rest: str) -> bool:
    """Return whether a key of a named node is one that users sweep besides the name."""
    return node == "task" and (rest.startswith("source.num_") or rest in ("prompts", "max_length"))


def _text(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return spelled(f"{value:g}")
    return str(value)


def _differing(runs: Sequence[tuple[Mapping[str, str], str]]) -> dict[str, set[str]]:
    """Return, for each group of runs, the keys that do not have one value in all of them."""
    found: dict[str, set[str]] = {}
    for group in {group for _, group in runs}:
        members = [values for values, its_group in runs if its_group == group]
        keys = {key for values in members for key in values}
        found[group] = {key for key in keys if len({v.get(key) for v in members}) > 1}
    return found


def _short(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values by their shortest names, such as ``lr`` for ``optimizer.lr``."""
    if "rank.value" in values:  # the option of the optimizer follows it
        values = {key: value for key, value in values.items() if key != "optimizer.rank"}
    names = {key: _name(key) for key in values}
    return {
        name if list(names.values()).count(name) == 1 else key: values[key]
        for key, name in names.items()
    }


def _name(key: str) -> str:
    node, _, last = key.rpartition(".")
    return node if last in ("value", "name") else last
