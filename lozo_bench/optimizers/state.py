"""The state of an optimizer for a checkpoint, read from its attributes.

An optimizer's file needs no code for this. What is saved, and under which name:

    number                         ``t``
    tensor                         ``N``; one without dimensions ``scale/()``
    mapping, also nested           ``moments/lm_head.weight``
    list or tuple, also nested     ``history/[0]``
    torch optimizer                ``adamw/0/exp_avg``
    object with ``state()`` and ``load_state(state)``     ``search/`` and the names of its state

Texts, None, functions and frozen options are constants and are not saved. Neither are the engine
and the random draws, which have a state of their own or none, and parameters of the model. Anything
else is refused, so that nothing is lost without a message.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lozo_bench.engine.protocol import Engine
from lozo_bench.engine.tensors import on_cpu
from lozo_bench.engine.terms import with_prefix
from lozo_bench.errors import UserError
from lozo_bench.optimizers.base import Needs
from lozo_bench.randomness.draws import Draws

_Devices = Mapping[str, torch.device]
_SCALAR_TENSOR = "()"


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
    state: dict[str, Tensor] = {}
    for name, value in vars(optimizer).items():
        state |= dict(_saved(name, value))
    return on_cpu(state)


def load_optimizer_state(optimizer: object, state: Mapping[str, Tensor]) -> None:
    """Restore a state of an optimizer that was made from the same options.

    Raises:
        UserError: the state lacks an attribute of this optimizer, or has one that it does not have.
    """
    devices, kind = _devices(optimizer), type(optimizer).__name__
    attributes = vars(optimizer)
    unknown = {name.partition("/")[0] for name in state} - set(attributes)
    if unknown:
        raise UserError(
            f"the checkpoint's optimizer state has {', '.join(sorted(unknown))}, which {kind} does "
            "not have; it is of another version of this optimizer: run again with rerun=all"
        )
    for name, value in list(attributes.items()):
        mine = with_prefix(name, state) | ({"": state[name]} if name in state else {})
        try:
            setattr(optimizer, name, _restored(value, mine, devices))
        except LookupError as error:
            raise UserError(
                f"the checkpoint's optimizer state does not fit {kind}.{name} ({error}); it is of "
                "another version of this optimizer: run again with rerun=all"
            ) from error


def _saved(path: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if _is_constant(value):
        return
    if isinstance(value, bool | int | float):
        yield path, torch.tensor(value, dtype=_number_type(value))
    elif isinstance(value, Tensor):
        yield (path if value.ndim else f"{path}/{_SCALAR_TENSOR}"), value
    elif isinstance(value, torch.optim.Optimizer):
        yield from _below(path, _torch_state(value))
    elif isinstance(value, Stateful):
        yield from _below(path, value.state())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _saved(f"{path}/{_checked_key(path, key)}", item)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _saved(f"{path}/[{i}]", item)
    else:
        raise UserError(
            f"optimizer: its attribute {path} is a {type(value).__name__}, which a checkpoint "
            "cannot keep; allowed: numbers, tensors, mappings and lists of them, torch optimizers, "
            "and objects with state() and load_state()"
        )


def _restored(like: Any, state: Mapping[str, Tensor], devices: _Devices, key: str = "") -> Any:
    """Return what was saved under the names of ``state``; ``like`` is the new optimizer's value."""
    if isinstance(like, torch.optim.Optimizer):
        _load_torch_state(like, state)
        return like
    if isinstance(like, Stateful) and not _is_constant(like):
        like.load_state(state)
        return like
    if not state:
        if isinstance(like, bool | int | float | Tensor) and not _is_constant(like):
            raise KeyError("it is missing")
        return _emptied(like)
    if "" in state:
        return _leaf(like, state[""], devices.get(key))
    if set(state) == {_SCALAR_TENSOR}:
        tensor = state[_SCALAR_TENSOR]
        return tensor.to(like.device if isinstance(like, Tensor) else devices.get(key, "cpu"))
    children: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        child, _, rest = name.partition("/")
        children.setdefault(child, {})[rest] = tensor
    if all(child.startswith("[") for child in children):
        items = list(like) if isinstance(like, list | tuple) else []
        values = [
            _restored(items[i] if i < len(items) else None, children[f"[{i}]"], devices)
            for i in range(len(children))
        ]
        return tuple(values) if isinstance(like, tuple) else values
    known = like if isinstance(like, Mapping) else {}
    return {
        child: _restored(known.get(child), mine, devices, child) for child, mine in children.items()
    }


def _leaf(like: Any, saved: Tensor, device: torch.device | None) -> Any:
    if isinstance(like, Tensor):
        return saved.to(like.device)
    if isinstance(like, bool | int | float):
        return type(like)(saved.item())
    return saved.item() if saved.ndim == 0 else saved.to(device or "cpu")


def _emptied(like: Any) -> Any:
    """Return a constant as it is, and a collection without its values: none were saved."""
    is_collection = isinstance(like, Mapping | list | tuple)
    return type(like)() if is_collection and not _is_constant(like) else like


def _is_constant(value: Any) -> bool:
    """Whether a value is an option or a part of the run, which the state does not hold."""
    if value is None or isinstance(value, str | Enum | Needs | Engine | Draws | nn.Parameter):
        return True
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_constant, value.values()))
    if isinstance(value, list | tuple | set | frozenset | range):
        return bool(value) and all(map(_is_constant, value))
    return inspect.isroutine(value) or isinstance(value, type | functools.partial)


def _checked_key(path: str, key: object) -> str:
    if not isinstance(key, str) or "/" in key or key[:1] in "[(":
        raise UserError(
            f"optimizer: its attribute {path} has the key {key!r}, which a checkpoint cannot keep; "
            "allowed: texts without '/' that do not begin with '[' or '('"
        )
    return key


def _below(path: str, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((f"{path}/{key}", x) for key, x in state.items())


def _number_type(value: bool | int | float) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.float64


def _devices(optimizer: object) -> dict[str, torch.device]:
    """Return each weight's device by name: what is kept for a weight goes there."""
    weights: dict[str, Tensor] = {}
    for value in vars(optimizer).values():
        weights |= getattr(value, "X", {})
    return {name: x.device for name, x in weights.items()}


def _torch_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{i}/{key}": x if isinstance(x, Tensor) else torch.tensor(x, dtype=_number_type(x))
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
