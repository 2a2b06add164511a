"""Prompt tuning: trained embeddings of virtual tokens in front of every row.

Source: Lester et al., arXiv 2104.08691. As in Bilevel-ZOFO, the initial values are the embeddings
    of
real words.

peft's prompt tuning (0.21) ignores position ids, which changes what Llama generates behind padding
on the left. It also accepts only 2-dimensional masks, so that options could not share one prompt.
This file instead registers a hook that runs before the model: it replaces token ids by embeddings,
puts the virtual tokens in front, shifts the positions by their number and extends the mask on the
left.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError
from lozo_bench.models.check import output_layer, word_embeddings
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, check_room, check_tokens, draw_words, freeze_rest


class Prompt:
    """Train embeddings that stand in front of every row.

    Args:
        tokens: the number of virtual tokens.
    """

    def __init__(self, *, tokens: int) -> None:
        check_tokens(tokens)
        self.tokens = tokens

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`."""
        check_room(loaded, self.tokens)
        model = loaded.model
        if output_layer(model) is None:
            raise UserError(
                f"tuning=prompt: {type(model).__name__} finds the position that it classifies from "
                "the row's token ids, which are replaced by embeddings; what to do: choose another "
                "tuning"
            )
        words = draw_words(loaded, draws, "prompt_words", self.tokens)
        embeddings = word_embeddings(model)
        start = embeddings.detach()[words.to(embeddings.device)]
        model.soft_prompt = SoftPrompt(start.to(wide(start.dtype)))
        model.register_forward_pre_hook(_put_soft_prompt_in_front, with_kwargs=True)
        X = freeze_rest(model, lambda name, _: name.startswith("soft_prompt."))
        return Tuned(X, model, all_weights=False, virtual_tokens=self.tokens)


class SoftPrompt(nn.Module):
    """The trained embeddings of the virtual tokens, ``words`` [tokens, width]."""

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(words)


def _put_soft_prompt_in_front(
    model: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    """Return the arguments with which the model is called instead.

    A cache that already holds the beginning of a row contains the virtual tokens, so they are not
    put in front again; mask and positions still count them.
    """
    given = zip(inspect.signature(model.forward).parameters, args, strict=False)
    options = dict(given) | options
    words: Tensor = model.soft_prompt.words
    tokens = len(words)
    cache = options.get("past_key_values")
    row_begins = cache is None or cache.get_seq_length() == 0
    if row_begins:
        row = model.get_input_embeddings()(options.pop("input_ids"))
        soft = words.to(row.dtype).expand(len(row), -1, -1)
        options["inputs_embeds"] = torch.cat([soft, row], dim=1)
    if (mask := options.get("attention_mask")) is not None:
        options["attention_mask"] = _extend_mask(mask, tokens)
    if (positions := options.get("position_ids")) is not None:
        positions = positions + tokens
        if row_begins:
            first = torch.arange(tokens, device=positions.device)
            positions = torch.cat([first.expand(len(positions), -1), positions], dim=1)
        options["position_ids"] = positions
    return (), options


def _extend_mask(mask: Tensor, tokens: int) -> Tensor:
    """Extend a mask on the left by virtual tokens.

    All row tokens attend to the virtual tokens; each virtual token attends to itself and to the
    virtual tokens before it.

    Args:
        mask: [R, T] of ones and zeros, or [R, 1, T, T]: either boolean, true where a token is
            attended to, or floating point, added to the attention scores.
        tokens: the number of virtual tokens.
    """
    if mask.ndim == 2:
        return torch.cat([mask.new_ones(len(mask), tokens), mask], dim=1)
    T = tokens + mask.shape[-1]
    hidden = False if mask.dtype is torch.bool else torch.finfo(mask.dtype).min
    seen = mask.dtype is torch.bool
    wide = mask.new_full((*mask.shape[:2], T, T), hidden)
    wide[..., tokens:, tokens:] = mask
    earlier = torch.ones(T, tokens, dtype=torch.bool, device=mask.device).tril()
    wide[..., :tokens] = wide[..., :tokens].masked_fill(earlier, seen)
    return wide
