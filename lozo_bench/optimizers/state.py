"""The state of an optimizer for a checkpoint, read from its attributes.

An optimizer's file needs no code for this. What is saved, and under which name:

    number                         ``t``
    tensor                         ``N``
    dict, also nested              ``moments/lm_head.weight``
    list or tuple, also nested     ``history/[0]``
    torch optimizer                ``adamw/0/exp_avg``
    object with ``state()`` and ``load_state(state)``     ``search/`` and the names of its state

The state also has one tensor, ``#structure``, that describes the attributes: which of them are
numbers, texts, None, lists and so on, so that each comes back as what it was. Options (functions,
dtypes, frozen dataclasses), the engine, the random draws and the weights are not saved: they are
made again with the optimizer. Anything else is refused, so that nothing is lost without a message.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.shown import every
from lozo_bench.engine.tensors import on_cpu
from lozo_bench.engine.terms import with_prefix
from lozo_bench.errors import UserError
from lozo_bench.randomness.draws import Draws

_STRUCTURE = "#structure"
# Attributes of former versions, which today's optimizers do not have.
_FORMER = {"dropout", "differentiates"}
# Options that former versions did not have. Today's value is the one that the config gives.
_ADDED_LATER = {"replicate_first_step", "spectra"}
_Devices = Mapping[str, torch.device]


@runtime_checkable
class Stateful(Protocol):
    """An attribute that saves and restores itself."""

    def state(self) -> Mapping[str, Tensor]:
        """Return its tensors by name; empty if it can be made again from the options."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` returned."""
        ...


def optimizer_state(optimizer: object) -> dict[str, Tensor]:
    """Return copies, on the CPU, of everything that the optimizer has gathered.

    Raises:
        UserError: an attribute holds something that a checkpoint cannot keep.
    """
    weights = {id(x) for x in _weights(optimizer).values()}
    tensors: dict[str, Tensor] = {}
    structure = {
        name: _save(value, name, tensors, weights) for name, value in vars(optimizer).items()
    }
    described = json.dumps(structure, sort_keys=True).encode()
    return on_cpu(tensors) | {_STRUCTURE: torch.tensor(list(described), dtype=torch.uint8)}


def load_optimizer_state(optimizer: object, state: Mapping[str, Tensor]) -> None:
    """Restore a state of an optimizer that was made from the same options.

    Raises:
        UserError: the state lacks an attribute of this optimizer, or has one that it does not have.
    """
    attributes = vars(optimizer)
    if _STRUCTURE in state:
        structure = json.loads(bytes(state[_STRUCTURE].tolist()))
    else:
        structure = _structure_of_former_state(optimizer, state)
    unknown, missing = structure.keys() - attributes.keys(), attributes.keys() - structure.keys()
    missing -= _ADDED_LATER
    if unknown or missing:
        raise UserError(
            f"the checkpoint's optimizer state does not fit {type(optimizer).__name__}: "
            f"{', '.join(sorted(unknown | missing))} is only in one of them; it is of another "
            "version of this optimizer: run again with rerun=all"
        )
    devices = {name: x.device for name, x in _weights(optimizer).items()}
    for name, described in structure.items():
        try:
            setattr(optimizer, name, _load(described, attributes[name], name, state, devices))
        except (LookupError, AttributeError) as error:
            raise UserError(
                f"the checkpoint's optimizer state does not fit {type(optimizer).__name__}.{name} "
                f"({error}); it is of another version of this optimizer: run again with rerun=all"
            ) from error


def _save(value: Any, path: str, tensors: dict[str, Tensor], weights: Collection[int]) -> Any:
    """Add a value's tensors to ``tensors`` and return its description for the structure."""
    if value is None or (isinstance(value, str) and not isinstance(value, Enum)):
        return {"text": value}
    if id(value) in weights or _is_option(value):
        return "option"
    if isinstance(value, bool | int | float):
        tensors[path] = _number(value, path)
        return "number"
    if isinstance(value, Tensor):
        tensors[path] = value
        return "tensor"
    if isinstance(value, torch.optim.Optimizer):
        _add(_torch_state(value, path), path, tensors)
        return "torch optimizer"
    if isinstance(value, Stateful):
        _add(value.state(), path, tensors)
        return "stateful"
    if type(value) is dict:
        items = {_checked_key(path, key): item for key, item in value.items()}
        return {"dict": {k: _save(x, f"{path}/{k}", tensors, weights) for k, x in items.items()}}
    if type(value) in (list, tuple):
        saved = [_save(x, f"{path}/[{i}]", tensors, weights) for i, x in enumerate(value)]
        return {type(value).__name__: saved}
    raise _refused(path, value)


def _load(
    described: Any, like: Any, path: str, state: Mapping[str, Tensor], devices: _Devices
) -> Any:
    """Return a saved value; ``like`` is the new optimizer's value at the same place."""
    match described:
        case "option":
            return like
        case {"text": text}:
            return text
        case "number":
            return state[path].item()
        case "tensor":
            device = like.device if isinstance(like, Tensor) else devices.get(_last(path), "cpu")
            return state[path].to(device)
        case "torch optimizer":
            _load_torch_state(like, with_prefix(path, state))
            return like
        case "stateful":
            like.load_state(with_prefix(path, state))
            return like
        case {"dict": items}:
            new = like if isinstance(like, Mapping) else {}
            return {
                key: _load(each, new.get(key), f"{path}/{key}", state, devices)
                for key, each in items.items()
            }
    ((kind, items),) = described.items()
    old = like if isinstance(like, list | tuple) else ()
    values = [
        _load(each, old[i] if i < len(old) else None, f"{path}/[{i}]", state, devices)
        for i, each in enumerate(items)
    ]
    return tuple(values) if kind == "tuple" else values


def _structure_of_former_state(optimizer: object, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe a state without ``#structure``: it has numbers, tensors and dicts of tensors."""
    tensors: dict[str, Tensor] = {}
    structure: dict[str, Any] = {}
    weights = {id(x) for x in _weights(optimizer).values()}
    for name, value in vars(optimizer).items():
        saved = with_prefix(name, state)
        if type(value) is dict and saved:
            structure[name] = {"dict": dict.fromkeys(saved, "tensor")}
        else:
            structure[name] = _save(value, name, tensors, weights)
    known = {name.partition("/")[0] for name in state} - _FORMER
    return structure | dict.fromkeys(known - structure.keys(), "tensor")


def _is_option(value: Any) -> bool:
    """Whether a value belongs to the options or the run, and is made again with the optimizer."""
    if isinstance(value, Enum | Engine | Draws | nn.Parameter | range | torch.dtype | torch.device):
        return True
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        frozen: bool = type(value).__dataclass_params__.frozen  # type: ignore[attr-defined]
        return frozen
    return inspect.isroutine(value) or isinstance(value, type | functools.partial)


def _add(state: Mapping[str, Tensor], path: str, tensors: dict[str, Tensor]) -> None:
    for name, x in state.items():
        if not isinstance(x, Tensor):
            raise _refused(f"{path}/{name}", x)
        tensors[f"{path}/{name}"] = x


def _refused(path: str, value: object) -> UserError:
    return UserError(
        f"optimizer: its attribute {path} is a {type(value).__name__}, which a checkpoint cannot "
        "keep; allowed: numbers, texts, tensors, dicts, lists and tuples of them, torch "
        "optimizers, and objects with state() and load_state()"
    )


def _checked_key(path: str, key: object) -> str:
    if not isinstance(key, str) or "/" in key or key[:1] == "[":
        raise UserError(
            f"optimizer: its attribute {path} has the key {key!r}, which a checkpoint cannot keep; "
            "allowed: texts without '/' that do not begin with '['"
        )
    return key


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _number(value: bool | int | float, path: str) -> Tensor:
    try:
        return torch.tensor(value, dtype=_number_type(value))
    except (RuntimeError, ValueError, OverflowError) as error:
        raise _refused(path, value) from error


def _number_type(value: bool | int | float) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.float64


def _weights(optimizer: object) -> dict[str, Tensor]:
    """Return the weights of the optimizer's engine by name: what is kept for one goes beside it."""
    weights: dict[str, Tensor] = {}
    for value in vars(optimizer).values():
        weights |= every(getattr(value, "X", {}))
    return weights


def _torch_state(optimizer: torch.optim.Optimizer, path: str) -> dict[str, Tensor]:
    moments: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{i}/{key}": x if isinstance(x, Tensor) else _number(x, f"{path}/{i}/{key}")
        for i, each in moments.items()
        for key, x in each.items()
    }


def _load_torch_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Restore moments without `load_state_dict`, which would round float32 ones to bfloat16."""
    weights = [x for group in optimizer.param_groups for x in group["params"]]
    optimizer.state.clear()
    for name, x in state.items():
        i, _, key = name.partition("/")
        weight = weights[int(i)]
        # Step counts are scalars, and stay on the CPU.
        optimizer.state[weight][key] = x.to(weight.device, copy=True) if x.ndim else x.clone()
