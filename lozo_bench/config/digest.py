"""The digest of a run: a hash of everything in its config that can change its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lozo_bench.config.paths import EMBEDDED, PREFIX
from lozo_bench.config.renamed import with_former_optimizer
from lozo_bench.config.run_folder import run_folder
from lozo_bench.config.several import single_key

_NOT_PART_OF_A_RESULT = {
    "hydra",
    "tracking",
    "table",
    "estimate",
    "sweep",
    "rerun",
    "scale",  # what it changes is in the config
    "checkpoint",
    "parallel",
    "log_every",
    "predictions",
    "plugins",  # a class that is used has its name in the config
    "eval_batch_size",
    "model.device",
    "model.device_map",
    "model.stand_in",
    "task.source.draw_note",
}
# Keys that were added after runs existed. At these values a run is what it was before, and keeps
# its digest.
_ADDED_LATER = {
    "evaluation.shots": 0,
    "evaluation.sets": "per_example",
    "evaluation.seed": 0,
    "evaluation.calibrated": False,
    "evaluation.calibrate_shown": False,
    "engine.reuse_prefix": True,
    "engine.graphs": True,
    "engine.keep_z": False,
    "model.adapter": None,
    "optimizer.replicate_first_step": False,
    "optimizer.spectra_every": 0,
    "optimizer.spectra_of": r"\.(q_proj|query)\.weight$",
    "patience": None,
    "max_queries": None,
    "max_seconds": None,
    "loss": "cross_entropy",
    "hinge_margin": 2.0,
    "allocation": {},
    "task.texts": [],
    "task.prompts": "published",
    "task.tasks": {},
    "task.held_out": [],
    "task.mix": "rows",
}
_PATHS = {
    "model.path",
    "model.adapter",
    "task.data_dir",
    "task.source.data_dir",
    "task.source.full_dir",
}
_READ_WHOLE_BYTES = 16 * 2**20


def digest(config: Mapping[str, Any]) -> str:
    """Return the digest of a config: eight hex digits.

    Runs that must have equal results have equal digests, whichever launcher, output folder or
    process runs them. A folder of data or of a model is identified by its path and its contents, so
    that a run does not count as finished after its data changed. Files above 16 MiB (the weights of
    a large model) are identified by name and size only (see `large_files`). 1 and 1.0 are the same
    number.
    """
    text = json.dumps(_identity(with_former_optimizer(config), ""), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def is_part_of_a_result(key: str) -> bool:
    """Return whether a key of the config, with all below it, can change the result of a run."""
    return key not in _NOT_PART_OF_A_RESULT


def large_files(config: Mapping[str, Any]) -> list[Path]:
    """Return the files of a config's models and data of which the digest has only the size."""
    found = dict.fromkeys(
        file
        for path in _paths(config, "")
        if (folder := _folder(path)[0]).is_dir() and run_folder(str(folder)) is None
        for file in _files(folder)
        if file.stat().st_size > _READ_WHOLE_BYTES
    )
    return list(found)


def with_paths_from(config: Mapping[str, Any], cwd: Path) -> dict[str, Any]:
    """Return a config whose relative folders are those of the folder in which it was used."""
    return {name: _from(value, str(name), cwd) for name, value in config.items()}


def _from(node: Any, key: str, cwd: Path) -> Any:
    if isinstance(node, Mapping):
        return {name: _from(child, _child(key, name), cwd) for name, child in node.items()}
    if key not in _PATHS or not isinstance(node, str) or node.startswith((PREFIX, "/", "~")):
        return node
    return str(cwd / node) if (cwd / node).is_dir() else node


def _paths(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _paths(child, _child(key, name))
    elif key in _PATHS and isinstance(node, str):
        yield node


def _identity(node: Any, key: str) -> Any:
    if isinstance(node, Mapping):
        children = {str(name): (_child(key, name), node[name]) for name in node}
        identity = {
            name: _identity(value, child)
            for name, (child, value) in children.items()
            if child not in _NOT_PART_OF_A_RESULT
            and not _is_as_before(value, child)
            and not _is_unused(name, node)
        }
        return {
            name: value
            for name, value in identity.items()
            if value != {} or children[name][1] == {}
        }
    if isinstance(node, list):
        return [_identity(item, f"{key}[]") for item in node]
    if isinstance(node, int) and not isinstance(node, bool) and abs(node) < 2**53:
        return float(node)
    if key in _PATHS and isinstance(node, str):
        return _path_identity(node)
    return node


def _child(key: str, name: object) -> str:
    return single_key(f"{key}.{name}".lstrip("."))


def _is_as_before(value: Any, key: str) -> bool:
    return key in _ADDED_LATER and value == _ADDED_LATER[key]


def _is_unused(name: str, node: Mapping[str, Any]) -> bool:
    """Return whether a value is the empty prompt of a task that is given its published one."""
    return name == "empty_prompt" and node.get("prompts", "published") == "published"


def _path_identity(path: str) -> Any:
    """Return the path and contents of a folder.

    That of a run stands for the weights that the run tested. A path that is no folder, such as a
    name on the model hub, is returned unchanged.
    """
    folder, name = _folder(path)
    if not folder.is_dir():
        return path
    if (run := run_folder(str(folder))) is not None:
        return [name, {"run": run.digest, "step": run.step, "weights": run.weights}]
    return [name, _contents(folder)]


def _folder(path: str) -> tuple[Path, str]:
    """Return where a config's path leads, and the name by which it is identified."""
    if path.startswith(PREFIX):
        return EMBEDDED / path.removeprefix(PREFIX), path
    folder = Path(path).expanduser().resolve()
    return folder, str(folder)


def _contents(folder: Path) -> dict[str, str]:
    return {file.name: _file_identity(file) for file in _files(folder)}


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())


def _file_identity(file: Path) -> str:
    size = file.stat().st_size
    if size > _READ_WHOLE_BYTES:
        return f"{size} bytes"
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
