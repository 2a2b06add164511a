"""Find where the residual sums of a model's blocks are, by watching one forward pass.

A block adds two branches to the hidden states, attention and a feed-forward layer. Nothing here
depends on the names of its modules. A norm that reads what no module returned reads a sum:

    post-norm    u = N1(h + SA(h)),        out = N2(u + FFN(u))
    pre-norm     x = h + SA(N1(h)),        out = x + FFN(N2(x))

In a post-norm block both norms read sums. In a pre-norm block only N2 does, and N1 reads h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lozo_bench.engine.layers import hidden_state, returned_state
from lozo_bench.errors import UserError
from lozo_bench.models.answers import backbone


@dataclass(frozen=True, eq=False)
class ResidualBlock:
    """A block with two residual sums.

    Attributes:
        block: the block.
        first: the norm N1.
        second: the norm N2.
        post_norm: whether the norms read the sums; otherwise they are at the start of the branches.
    """

    block: nn.Module
    first: nn.Module
    second: nn.Module
    post_norm: bool


def residual_blocks(
    model: PreTrainedModel, blocks: Sequence[nn.Module], option: str
) -> list[ResidualBlock]:
    """Return the blocks of a model with their norms.

    Args:
        model: the model.
        blocks: the blocks, in the order in which the model runs them.
        option: what needs the sums, for the error message.

    Raises:
        UserError: a block has no two residual sums with a norm at each.
    """
    watched = [_Watched(block) for block in blocks]
    try:
        with torch.inference_mode():
            # Without a mask, as the meta device has no values to read; so no token may be padding.
            word = int(model.config.pad_token_id == 0)
            ids = torch.full((1, 2), word, dtype=torch.int64, device=model.device)
            backbone(model)(input_ids=ids)
    finally:
        for each in watched:
            each.stop()
    found = [each.found() for each in watched]
    known = [block for block in found if block is not None]
    if len(known) < len(blocks) or len({block.post_norm for block in known}) > 1:
        raise UserError(
            f"{option}: {type(model).__name__} has blocks other than h + attention and then + "
            "feed-forward, each with a norm before or after it; what to do: choose another model, "
            "or tuning=gated_lora"
        )
    return known


@dataclass(slots=True)
class _Watched:
    """What the norms inside a block read, in the order in which they are called."""

    block: nn.Module
    entered: Tensor | None = None
    returned: list[Tensor] = field(default_factory=list)
    norms: list[tuple[nn.Module, Tensor]] = field(default_factory=list)
    hooks: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        enters = self.block.register_forward_pre_hook(self._enters, with_kwargs=True)
        self.hooks.append(enters)
        for module in self.block.modules():
            if "norm" in type(module).__name__.lower():
                self.hooks.append(module.register_forward_pre_hook(self._norm))
            self.hooks.append(module.register_forward_hook(self._returns))

    def stop(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def found(self) -> ResidualBlock | None:
        """Return the block, or None if its norms are at other places."""
        h = self.entered
        if h is None:
            return None
        of_input = [norm for norm, x in self.norms if x is h]
        of_sums = [norm for norm, x in self.norms if x is not h and self._is_sum(x, h)]
        if not of_input and len(of_sums) == 2 and self._is_last(of_sums[1]):
            return ResidualBlock(self.block, of_sums[0], of_sums[1], post_norm=True)
        if len(of_input) == len(of_sums) == 1:
            return ResidualBlock(self.block, of_input[0], of_sums[0], post_norm=False)
        return None

    def _is_sum(self, x: Tensor, h: Tensor) -> bool:
        """Whether a norm's input has the width of the hidden states and no module returned it.

        OPT flattens it to [tokens, width]. The norms of each head read four dimensions.
        """
        alike = x.ndim <= h.ndim and x.shape[-1] == h.shape[-1]
        return alike and not any(x is other for other in self.returned)

    def _is_last(self, norm: nn.Module) -> bool:
        return bool(self.norms) and self.norms[-1][0] is norm

    def _enters(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.entered = hidden_state(args, options)

    def _norm(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            self.norms.append((module, args[0]))

    def _returns(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(state := returned_state(output), Tensor):
            self.returned.append(state)
