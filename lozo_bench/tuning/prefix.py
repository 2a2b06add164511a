"""Prefix tuning: keys and values of a few tokens that are not there, in every layer.

Source: Li and Liang, arXiv 2101.00190, as MeZO has it (spec lozo_mezo 2.2, T35): every token sees
the prefix, positions are counted as if there were none, there is no reparametrisation, and the
start are the keys and values of random words run through the model once.

peft's prefix tuning (0.21) moves every position by the prefix's length, and takes 2-dimensional
masks only. So this is an attention function of transformers' own interface: it puts the prefix in
front of keys and values where they are used. Positions, caches, generation and masks of any shape
stay what they are in the plain model, causal or masked.
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

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError
from lozo_bench.models.load import Loaded
from lozo_bench.tuning.base import Tuned, check_room, check_tokens, drawn_words, moving

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTENTION = "sdpa_behind_prefix"
_heard: ContextVar[dict[nn.Module, tuple[Tensor, Tensor]] | None] = ContextVar(
    "_heard", default=None
)


class Prefix:
    """Keys and values in front of every row move.

    Args:
        tokens: how many there are in each layer.
        init: ``real``: those of random words; ``random``: standard normal, much worse (MeZO, table
            17).
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
                "do it as 'sdpa' can have a prefix; choose another tuning"
            )
        model.set_attn_implementation(ATTENTION)
        heard = _keys_and_values(model, drawn_words(loaded, draws, "prefix_words", self.tokens))
        names = {module: name for name, module in model.named_modules()}
        for module, pair in heard.items():
            start = [_in_rows(x).to(wide(x.dtype)) for x in pair]
            if self.init == "random":
                start = _normal(draws, names[module], start)
            module.prefix = Pair(*start)
        X = moving(model, lambda name, _: ".prefix." in name)
        return Tuned(X, model, whole=False)


class Pair(nn.Module):
    """One layer's prefix: ``keys`` and ``values``, [tokens, heads * width of a head] each."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = nn.Parameter(keys), nn.Parameter(values)

    def in_front_of(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, tokens + T, width] from the row's, [B, heads, T, width]."""
        both = ((self.keys, key), (self.values, value))
        key, value = (torch.cat([_in_heads(own, x), x], dim=2) for own, x in both)
        return key, value


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    if (heard := _heard.get()) is not None:
        heard[module] = key, value
    pair = getattr(module, "prefix", None)
    if isinstance(pair, Pair):
        key, value = pair.in_front_of(key, value)
        attention_mask = _seen_by_all(attention_mask, len(pair.keys))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _mask(*args: Any, **options: Any) -> Tensor | None:
    """Torch's `is_causal` would count the prefix among the row's own tokens: always a mask then."""
    return sdpa_mask(*args, **{**options, "allow_is_causal_skip": False})


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)


def _seen_by_all(mask: Tensor | None, tokens: int) -> Tensor | None:
    """The mask [.., T] with columns for the prefix in front; None, where all is seen, stays so."""
    if mask is None:
        return None
    seen = mask.new_full((*mask.shape[:-1], tokens), mask.dtype is torch.bool)
    return torch.cat([seen, mask], dim=-1)


def _in_heads(x: Tensor, like: Tensor) -> Tensor:
    """[tokens, heads * width] as [B, heads, tokens, width], in the type of ``like``."""
    B, heads, _, width = like.shape
    return x.to(like.dtype).view(-1, heads, width).transpose(0, 1).expand(B, -1, -1, -1)


def _in_rows(x: Tensor) -> Tensor:
    """[1, heads, tokens, width] as [tokens, heads * width]."""
    return x[0].transpose(0, 1).flatten(1)


def _keys_and_values(
    model: PreTrainedModel, words: Tensor
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """What the attention of each layer computes of these words, [1, heads, tokens, width] each."""
    row = words[None]
    with torch.no_grad(), _hearing() as heard:
        model(input_ids=row, attention_mask=torch.ones_like(row))
    if not heard:
        raise UserError(
            f"tuning=prefix: {type(model).__name__} has attention of its own kind, which takes "
            "no prefix; choose another tuning"
        )
    return heard


@contextmanager
def _hearing() -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    heard: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def _normal(draws: Draws, name: str, like: list[Tensor]) -> list[Tensor]:
    parts = zip(("keys", "values"), like, strict=True)
    shapes = {f"{name}.prefix.{part}": tuple(x.shape) for part, x in parts}
    return list(draws.normal("prefix", 0, shapes, like[0].device, like[0].dtype).values())
