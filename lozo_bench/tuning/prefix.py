"""Prefix tuning: every attention layer gets trained keys and values of a few virtual tokens.

Source: Li and Liang, arXiv 2101.00190, with the choices of MeZO's code (large_models/prefix.py):
every token attends to the prefix, position ids are not shifted, there is no reparametrisation, and
the initial values are the keys and values of random words, without a first token in front of them,
from one forward pass. Initial values that are not real activations work much worse (arXiv
2305.17333, table 17).

peft's prefix tuning (0.21) shifts every position by the prefix's length and only accepts
2-dimensional masks. This file instead registers an attention function with transformers'
AttentionInterface. The function puts the prefix in front of the keys and values where they are
used. Positions, caches, generation and masks of any shape work as in the plain model, causal or
masked.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, check_room, check_tokens, draw_words, freeze_rest

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTENTION = "sdpa_behind_prefix"
_recorded: ContextVar[dict[nn.Module, tuple[Tensor, Tensor]] | None] = ContextVar(
    "_recorded", default=None
)


class Prefix:
    """Train keys and values that stand in front of every row.

    Args:
        tokens: the number of virtual tokens in each layer.
        init: ``real``: start from the keys and values of random words. ``random``: start from
            standard normal values, which is much worse (MeZO, arXiv 2305.17333, table 17).
    """

    def __init__(self, *, tokens: int, init: Literal["real", "random"] = "real") -> None:
        check_tokens(tokens)
        self.tokens, self.init = tokens, init

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        check_room(loaded, self.tokens)
        model = loaded.model
        if (used := model.config._attn_implementation) != "sdpa":
            raise UserError(
                f"tuning=prefix: {loaded.name} computes attention as {used!r}; only models that "
                "compute it as 'sdpa' can have a prefix; what to do: choose another tuning"
            )
        model.set_attn_implementation(ATTENTION)
        for module, start in self._starts(loaded, draws, 0):
            module.prefix = Pair(*start)
        X = freeze_rest(model, lambda name, _: ".prefix." in name)

        @torch.no_grad()
        def redraw(number: int) -> None:
            for module, (keys, values) in self._starts(loaded, draws, number):
                module.prefix.keys.copy_(keys)
                module.prefix.values.copy_(values)

        return Tuned(X, model, all_weights=False, redraw=redraw)

    def _starts(self, loaded: Loaded, draws: Draws, number: int) -> list[tuple[Any, list[Tensor]]]:
        """Return the initial keys and values of each attention layer."""
        words = draw_words(loaded, draws, "prefix_words", self.tokens, number)
        names = {module: name for name, module in loaded.model.named_modules()}
        starts = []
        for module, pair in _keys_and_values(loaded.model, words).items():
            start = [_to_rows(x).to(wide(x.dtype)) for x in pair]
            if self.init == "random":
                start = _standard_normal(draws, names[module], start, number)
            starts.append((module, start))
        return starts


class Pair(nn.Module):
    """One layer's prefix: ``keys`` and ``values``, each [tokens, heads * width of a head]."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = nn.Parameter(keys), nn.Parameter(values)

    def in_front_of(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the prefix in front of a row's keys and values.

        Args:
            key: [B, heads, T, width].
            value: [B, heads, T, width].

        Returns:
            Keys and values, each [B, heads, tokens + T, width].
        """
        both = ((self.keys, key), (self.values, value))
        key, value = (torch.cat([_to_heads(own, x), x], dim=2) for own, x in both)
        return key, value


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute sdpa attention with the module's prefix, if it has one.

    Inside `_record_keys_and_values`, compute it without a prefix, and record keys and values.
    """
    recorded, pair = _recorded.get(), getattr(module, "prefix", None)
    if recorded is not None:
        recorded[module] = key, value
    elif isinstance(pair, Pair):
        key, value = pair.in_front_of(key, value)
        attention_mask = _with_prefix_columns(attention_mask, len(pair.keys))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _mask(*args: Any, **options: Any) -> Tensor | None:
    """Always make an explicit mask: torch's `is_causal` would treat the prefix as row tokens."""
    return sdpa_mask(*args, **{**options, "allow_is_causal_skip": False})


@contextmanager
def plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's config name the attention that it has without a prefix, as it is saved."""
    own, model.config._attn_implementation = model.config._attn_implementation, "sdpa"
    try:
        yield
    finally:
        model.config._attn_implementation = own


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)


def _with_prefix_columns(mask: Tensor | None, tokens: int) -> Tensor | None:
    """Add columns for the prefix in front of the mask [.., T]; None (all is seen) stays None."""
    if mask is None:
        return None
    seen = mask.new_full((*mask.shape[:-1], tokens), mask.dtype is torch.bool)
    return torch.cat([seen, mask], dim=-1)


def _to_heads(x: Tensor, like: Tensor) -> Tensor:
    """Reshape [tokens, heads * width] to [B, heads, tokens, width], in the dtype of ``like``."""
    B, heads, _, width = like.shape
    return x.to(like.dtype).view(-1, heads, width).transpose(0, 1).expand(B, -1, -1, -1)


def _to_rows(x: Tensor) -> Tensor:
    """Reshape [1, heads, tokens, width] to [tokens, heads * width]."""
    return x[0].transpose(0, 1).flatten(1)


def _keys_and_values(
    model: PreTrainedModel, words: Tensor
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Run the words through the model once; return the keys and values of each attention layer.

    Args:
        model: uses the attention function of this file.
        words: token ids, int64 [tokens].

    Returns:
        For each attention module, keys and values, each [1, heads, tokens, width].
    """
    row = words[None]
    with torch.no_grad(), _record_keys_and_values() as recorded:
        model(input_ids=row, attention_mask=torch.ones_like(row))
    if not recorded:
        raise UserError(
            f"tuning=prefix: {type(model).__name__} computes attention with code of its own, which "
            "cannot use a prefix; what to do: choose another tuning"
        )
    return recorded


@contextmanager
def _record_keys_and_values() -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """Record the keys and values of every attention module that runs inside this context."""
    recorded: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    token = _recorded.set(recorded)
    try:
        yield recorded
    finally:
        _recorded.reset(token)


def _standard_normal(draws: Draws, name: str, like: list[Tensor], number: int) -> list[Tensor]:
    pairs = zip(("keys", "values"), like, strict=True)
    shapes = {f"{name}.prefix.{key}": tuple(x.shape) for key, x in pairs}
    return list(draws.normal("prefix", number, shapes, like[0].device, like[0].dtype).values())
