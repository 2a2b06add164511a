"""Put shortcuts into a model's blocks by hooks, without changing its code.

With the module of a shortcut written D(x) = s B A x, h the block's input, v the input of its
feed-forward branch and v' that of the block before:

    post-norm      v = N1(h + SA(h) + D_res1(h) + D_cut(v'))
                 out = N2(v + FFN(v) + D_res2(v) + D_in(h))
    pre-norm       v = h + SA(N1(h)) + D_res1(h) + D_cut(v')
                 out = v + FFN(N2(v)) + D_res2(v) + D_in(h)

The authors' code (ZixiBenZhang/lora_global_synergies 4345712, models/modeling_opt_lora_ags.py:
454-541) repeats a norm instead, with the same weights and whether or not the shortcut is on:

      v = N1(N1(h + SA(h) + D_res1(h)) + D_cut(v'))
    out = N2(N2(v + FFN(v) + D_res2(v)) + D_in(h))

The first block has no v', and no norm repeated for it. As N(N(x)) differs from N(x), that changes
a pre-trained model before any training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lozo_bench.engine.layers import returned_state
from lozo_bench.tuning.residual_blocks import ResidualBlock

S_RES1, S_RES2, S_IN, S_CUT = "s_res1", "s_res2", "s_in", "s_cut"
KINDS = (S_RES1, S_RES2, S_IN, S_CUT)


@dataclass(slots=True)
class _Pass:
    """The hidden states of the current forward pass that shortcuts start from.

    They stay until the next pass with gradients, because checkpointed blocks are run once more
    during the backward pass.

    Attributes:
        entered: h by block.
        before: v' by block; None for the first one that runs.
        inner: v by block.
        newest: the v of the block that ran last.
    """

    entered: dict[int, Tensor] = field(default_factory=dict)
    before: dict[int, Tensor | None] = field(default_factory=dict)
    inner: dict[int, Tensor] = field(default_factory=dict)
    newest: Tensor | None = None

    def clear(self) -> None:
        self.entered.clear()
        self.before.clear()
        self.inner.clear()
        self.newest = None


def wire(model: PreTrainedModel, blocks: Sequence[ResidualBlock], repeat: bool) -> None:
    """Make every block add what its shortcuts compute.

    The blocks have the children ``s_res1``, ``s_res2``, ``s_in`` and, except the first, ``s_cut``.

    Args:
        model: the model.
        blocks: its blocks, all post-norm or all pre-norm.
        repeat: whether norms are repeated as in the authors' code; only for post-norm blocks.
    """
    states = _Pass()
    # Each call of the model starts anew, and one without gradients leaves nothing behind.
    model.register_forward_pre_hook(lambda *_: states.clear())
    model.register_forward_hook(lambda *_: None if torch.is_grad_enabled() else states.clear())
    for number, block in enumerate(blocks):
        wired = _Wired(block.block, number, states)
        if not block.post_norm:
            _wire_pre_norm(wired, block)
        elif repeat:
            _wire_repeated_norms(wired, block)
        else:
            _wire_post_norm(wired, block)


@dataclass(frozen=True, slots=True, eq=False)
class _Wired:
    """A block, its number, and the states of the pass."""

    block: nn.Module
    number: int
    states: _Pass

    def enter(self, h: Tensor) -> None:
        self.states.entered[self.number] = h
        self.states.before[self.number] = self.states.newest

    def reach(self, v: Tensor) -> None:
        """Keep v, the input of the feed-forward branch."""
        self.states.inner[self.number] = self.states.newest = v

    @property
    def h(self) -> Tensor:
        return self.states.entered[self.number]

    @property
    def v(self) -> Tensor:
        return self.states.inner[self.number]

    def added(self, x: Tensor, *kinds: str) -> Tensor:
        """Return x plus what the shortcuts of these kinds compute."""
        for kind in kinds:
            start = self._start(kind)
            module = getattr(self.block, kind, None)
            if start is None or module is None:
                continue
            delta = module(start.to(x.device))
            x = x + (delta.reshape(x.shape) if delta.ndim else delta)
        return x

    def _start(self, kind: str) -> Tensor | None:
        if kind == S_CUT:
            return self.states.before[self.number]
        return self.v if kind == S_RES2 else self.h


def _wire_pre_norm(wired: _Wired, block: ResidualBlock) -> None:
    """Add to the block's input, of which N1 does not see the change, and to its output."""

    def forward_of(forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def with_shortcuts(hidden_states: Tensor, *args: Any, **options: Any) -> Any:
            wired.enter(hidden_states)
            changed = wired.added(hidden_states, S_RES1, S_CUT)
            output = forward(changed, *args, **options)
            return _with_state(output, wired.added(returned_state(output), S_RES2, S_IN))

        return with_shortcuts

    block.block.forward = forward_of(block.block.forward)
    block.first.register_forward_pre_hook(lambda _, args: (wired.h, *args[1:]))
    block.second.register_forward_pre_hook(lambda _, args: wired.reach(args[0]))


def _wire_post_norm(wired: _Wired, block: ResidualBlock) -> None:
    """Add to what the norms read."""
    block.block.forward = _entering(wired, block.block.forward)
    block.first.register_forward_pre_hook(
        lambda _, args: (wired.added(args[0], S_RES1, S_CUT), *args[1:])
    )
    block.first.register_forward_hook(lambda _, args, output: wired.reach(output))
    block.second.register_forward_pre_hook(
        lambda _, args: (wired.added(args[0], S_RES2, S_IN), *args[1:])
    )


def _wire_repeated_norms(wired: _Wired, block: ResidualBlock) -> None:
    """Repeat the norms as the authors' code does. ``forward`` runs a norm without its hooks."""

    def after_first(norm: nn.Module, args: tuple[Any, ...], u: Tensor) -> Tensor:
        if hasattr(wired.block, S_CUT):
            u = norm.forward(wired.added(u, S_CUT))
        wired.reach(u)
        return u

    def after_second(norm: nn.Module, args: tuple[Any, ...], o: Tensor) -> Tensor:
        repeated: Tensor = norm.forward(wired.added(o, S_IN))
        return repeated

    block.block.forward = _entering(wired, block.block.forward)
    block.first.register_forward_pre_hook(lambda _, args: (wired.added(args[0], S_RES1), *args[1:]))
    block.first.register_forward_hook(after_first)
    block.second.register_forward_pre_hook(
        lambda _, args: (wired.added(args[0], S_RES2), *args[1:])
    )
    block.second.register_forward_hook(after_second)


def _entering(wired: _Wired, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a block's forward that keeps its input."""

    @wraps(forward)
    def entered(hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        wired.enter(hidden_states)
        return forward(hidden_states, *args, **options)

    return entered


def _with_state(output: Any, state: Tensor) -> Any:
    """Return what a block returned, with another hidden state."""
    return (state, *output[1:]) if isinstance(output, tuple) else state
