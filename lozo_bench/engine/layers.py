"""Find a model's stack of layers, and the layer that each parameter belongs to.

Nothing here depends on the name or the type of a model. One forward pass is watched: the stack is
the list of modules that the pass calls once each, in order, every one with a hidden state
[rows, T, width] that it returns in the same shape. Whatever runs before or after the stack is
recognized by the time at which it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import torch
from torch import Tensor, nn

Arguments = tuple[Any, ...]
Options = dict[str, Any]

# The place of a parameter of which nothing else is known: it acts before the first layer.
BEFORE = -1


class Layers:
    """A model's layers, and the place of each parameter among them.

    Nothing is known before `watch` has watched a forward pass.

    Attributes:
        modules: the layers, from the first to the last; empty if the model has no such stack.
        watched: whether a forward pass was watched.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: list[nn.Module] = []
        self.watched = False
        self._lists = list(_outermost_lists(model))
        self._places: dict[str, int] = {}
        self._items: int | None = None
        firsts = {id(x) for modules in self._lists for x in modules[0].parameters()}
        self._in_a_first_module = {
            name for name, x in model.named_parameters(remove_duplicate=False) if id(x) in firsts
        }

    def __len__(self) -> int:
        return len(self.modules)

    def may_follow_others(self, names: Iterable[str]) -> bool:
        """Return False if it is clear without a forward pass that ``names`` reach the first layer.

        It is clear if the model has no lists of modules, or if one of these parameters belongs to
        the first module of a list.
        """
        return bool(self._lists) and self._in_a_first_module.isdisjoint(names)

    def first_changed(self, names: Iterable[str]) -> int | None:
        """Return the number of the first layer whose output these parameters can change.

        It is -1 if one of them acts before the first layer, or is not known, and the number of
        layers if all of them act after the last one, like those of a final norm and an untied head.
        A tied parameter counts at the smallest of its places. None: the model has no stack.
        """
        if not self.modules:
            return None
        return min((self._places.get(name, BEFORE) for name in names), default=len(self.modules))

    def watch(self, run: Callable[[], object]) -> bool:
        """Watch ``run``, which calls the model once; return whether the model has a stack."""
        calls: dict[nn.Module, list[_Call]] = {}
        with _recorded(self.model, calls):
            run()
        self.watched = True
        stacks = [modules for modules in self._lists if _is_stack(modules, calls)]
        self.modules = max(stacks, key=len, default=[])
        if self.modules:
            self._places = _places(self.model, self.modules, calls)
            self._items = calls[self.modules[0]][0].items
        return bool(self.modules)

    def returned(self, hidden: Tensor) -> Any:
        """Return what a layer returns along with this hidden state: itself, or a tuple with it."""
        return hidden if self._items is None else (hidden, *[None] * (self._items - 1))


def named_arguments(module: nn.Module, args: Arguments, options: Options) -> Options:
    """Return all arguments of a call of the module by name."""
    given = zip(inspect.signature(module.forward).parameters, args, strict=False)
    return dict(given) | options


def hidden_state(args: Arguments, options: Mapping[str, Any]) -> Any:
    """Return the hidden state that a layer is called with."""
    return args[0] if args else options.get("hidden_states")


def with_hidden_state(
    args: Arguments, options: Options, hidden: Tensor
) -> tuple[Arguments, Options]:
    """Return the arguments of a layer with another hidden state."""
    return ((hidden, *args[1:]), options) if args else (args, options | {"hidden_states": hidden})


def returned_state(output: Any) -> Any:
    """Return the hidden state that a layer returned, by itself or as the first item of a tuple."""
    return output[0] if isinstance(output, tuple) and output else output


@dataclass(slots=True)
class _Call:
    """A call of a module: when it began and ended, and whether it is that of a layer."""

    began: int
    ended: int = -1
    shape: torch.Size | None = None  # of the hidden state it was given, if it may be a layer's
    is_layer: bool = False
    items: int | None = None  # of the tuple that it returned; None: it returned a tensor
    given: Sequence[Tensor] = ()  # what it was given and what it returned beside hidden states
    beside: Sequence[Tensor] = ()


@contextmanager
def _recorded(model: nn.Module, calls: dict[nn.Module, list[_Call]]) -> Iterator[None]:
    """Record all calls of all modules inside this context."""
    clock = count()

    def begins(module: nn.Module, args: Arguments, options: Options) -> None:
        call = _Call(next(clock))
        hidden = hidden_state(args, options)
        others = [*args[1:], *(value for key, value in options.items() if value is not hidden)]
        if isinstance(hidden, Tensor) and hidden.ndim == 3 and all(map(_is_fixed, others)):
            call.shape, call.given = hidden.shape, list(_tensors(others))
        calls.setdefault(module, []).append(call)

    def ends(module: nn.Module, args: Arguments, output: Any) -> None:
        call = next(call for call in reversed(calls[module]) if call.ended < 0)
        call.ended = next(clock)
        hidden = returned_state(output)
        rest = output[1:] if isinstance(output, tuple) else ()
        call.items = len(output) if isinstance(output, tuple) else None
        call.is_layer = (
            isinstance(hidden, Tensor)
            and hidden.shape == call.shape
            and all(item is None or isinstance(item, Tensor) for item in rest)
        )
        if call.is_layer:
            call.beside = list(_tensors(rest))

    hooks = []
    try:
        for module in model.modules():
            hooks.append(module.register_forward_pre_hook(begins, prepend=True, with_kwargs=True))
            hooks.append(module.register_forward_hook(ends))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_fixed(value: Any) -> bool:
    """Return whether an argument cannot carry anything from one layer to the next.

    A cache or a dictionary can: one layer writes to it, another one reads it.
    """
    if isinstance(value, tuple):
        return all(map(_is_fixed, value))
    return value is None or isinstance(value, (Tensor, bool, int, float, str, torch.dtype))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)


def _outermost_lists(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Yield the modules of each ModuleList that is not inside another one."""
    for child in module.children():
        if not isinstance(child, nn.ModuleList):
            yield from _outermost_lists(child)
        elif len(child):
            yield list(child)


def _is_stack(modules: Sequence[nn.Module], calls: Mapping[nn.Module, Sequence[_Call]]) -> bool:
    """Return whether each module was called once, in order, as a layer.

    What a layer returns beside its hidden state, such as attention weights, must not be an argument
    of another layer.
    """
    of_each = [calls.get(module, ()) for module in modules]
    if any(len(own) != 1 or not own[0].is_layer for own in of_each):
        return False
    in_order = [own[0] for own in of_each]
    given = {id(x) for call in in_order for x in call.given}
    if any(id(x) in given for call in in_order for x in call.beside):
        return False
    return all(
        one.ended < following.began and (one.shape, one.items) == (following.shape, following.items)
        for one, following in pairwise(in_order)
    )


def _places(
    model: nn.Module, layers: Sequence[nn.Module], calls: Mapping[nn.Module, Sequence[_Call]]
) -> dict[str, int]:
    """Return the place of each parameter by all of its names."""
    layer_of = {module: i for i, layer in enumerate(layers) for module in layer.modules()}
    last = calls[layers[-1]][0]

    def place(module: nn.Module) -> int:
        own = calls.get(module, ())
        if (i := layer_of.get(module)) is None:
            return len(layers) if own and all(call.began > last.ended for call in own) else BEFORE
        outer = calls[layers[i]][0]
        inside = all(outer.began <= call.began and call.ended <= outer.ended for call in own)
        return i if inside else BEFORE

    of_parameter: dict[int, int] = {}
    for module in model.modules():
        for x in module.parameters(recurse=False):
            of_parameter[id(x)] = min(place(module), of_parameter.get(id(x), len(layers)))
    return {name: of_parameter[id(x)] for name, x in model.named_parameters(remove_duplicate=False)}
