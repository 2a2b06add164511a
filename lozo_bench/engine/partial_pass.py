"""Run only some of a model's layers: start at a hidden state, or stop at one.

Both context managers work on the layers from outside. They leave no hook and no replaced function
behind, whatever happens inside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lozo_bench.engine.layers import (
    Arguments,
    Layers,
    Options,
    hidden_state,
    returned_state,
    with_hidden_state,
)


class ReachedError(Exception):
    """Ends a forward pass at the hidden state that was asked for.

    It is no RuntimeError, because some callers of a model take one for a failure of the model.
    """

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.state = state


class OtherPassError(Exception):
    """The model does not run through its layers once, as it did when it was watched."""


@contextmanager
def stopping(layers: Layers, layer: int) -> Iterator[None]:
    """Inside this context, the model raises `ReachedError` where a state enters this layer.

    The number of layers stands for what follows the last one.
    """

    def enters(module: nn.Module, args: Arguments, options: Options) -> None:
        raise ReachedError(hidden_state(args, options))

    def leaves(module: nn.Module, args: Arguments, output: Any) -> None:
        raise ReachedError(returned_state(output))

    if layer < len(layers):
        hook = layers.modules[layer].register_forward_pre_hook(
            enters, prepend=True, with_kwargs=True
        )
    else:
        hook = layers.modules[-1].register_forward_hook(leaves, prepend=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def entering(layers: Layers, layer: int, state: Tensor) -> Iterator[None]:
    """Inside this context, the layers below this one are skipped, and the state enters it.

    It enters before other hooks of the layer, which may add something to it.
    """
    entered = False

    def once() -> Tensor:
        nonlocal entered
        if entered:
            raise OtherPassError("runs through its layers several times for one loss")
        entered = True
        return state

    def enters(module: nn.Module, args: Arguments, options: Options) -> tuple[Arguments, Options]:
        return with_hidden_state(args, options, once())

    def passes_on(*args: Any, **options: Any) -> Any:
        return layers.returned(hidden_state(args, options))

    forwards: dict[nn.Module, Callable[..., Any]] = dict.fromkeys(layers.modules[:layer], passes_on)
    if layer == len(layers):
        forwards[layers.modules[-1]] = lambda *args, **options: layers.returned(once())
        with _replaced(forwards):
            yield
        return
    hook = layers.modules[layer].register_forward_pre_hook(enters, prepend=True, with_kwargs=True)
    try:
        with _replaced(forwards):
            yield
    finally:
        hook.remove()


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Inside this context, these modules have another ``forward``.

    A module may have an own one already, in place of its class's: accelerate's, or a tuning's.
    """
    own = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in forwards:
            if module in own:
                vars(module)["forward"] = own[module]
            else:
                del vars(module)["forward"]
