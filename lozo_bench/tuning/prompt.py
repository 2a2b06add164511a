"""Prompt tuning: embeddings of tokens that are not in the vocabulary, in front of every row.

Source: Lester et al., arXiv 2104.08691; Bilevel-ZOFO starts them from real words' embeddings.

peft's prompt tuning (0.21) drops positions, so that Llama writes something else behind padding on
the left, and takes 2-dimensional masks only, so that options cannot stand behind one prompt. So
this is a hook that runs before the model: tokens become embeddings with the soft ones in front,
positions move back by as many, and the mask grows on the left.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from lozo_bench.engine.draws import Draws
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError
from lozo_bench.models.check import output_layer, word_embeddings
from lozo_bench.models.load import Loaded
from lozo_bench.tuning.base import Tuned, check_room, check_tokens, drawn_words, moving


class Prompt:
    """Embeddings in front of every row move.

    Args:
        tokens: how many.
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
                f"tuning=prompt: {type(model).__name__} finds the place it reads by the tokens of "
                "a row, which it does not see behind soft ones; choose another tuning"
            )
        words = drawn_words(loaded, draws, "prompt_words", self.tokens)
        embeddings = word_embeddings(model)
        start = embeddings.detach()[words.to(embeddings.device)]
        model.soft_prompt = SoftPrompt(start.to(wide(start.dtype)))
        model.register_forward_pre_hook(_put_in_front, with_kwargs=True)
        X = moving(model, lambda name, _: name.startswith("soft_prompt."))
        return Tuned(X, model, whole=False, virtual_tokens=self.tokens)


class SoftPrompt(nn.Module):
    """Embeddings ``words`` [tokens, width]."""

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(words)


def _put_in_front(
    model: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    """What the model is called with; a cache of a row's beginning has the soft ones already."""
    given = zip(inspect.signature(model.forward).parameters, args, strict=False)
    options = dict(given) | options
    words: Tensor = model.soft_prompt.words
    tokens = len(words)
    cache = options.get("past_key_values")
    begins = cache is None or cache.get_seq_length() == 0
    if begins:
        row = model.get_input_embeddings()(options.pop("input_ids"))
        soft = words.to(row.dtype).expand(len(row), -1, -1)
        options["inputs_embeds"] = torch.cat([soft, row], dim=1)
    if (mask := options.get("attention_mask")) is not None:
        options["attention_mask"] = _wider(mask, tokens)
    if (positions := options.get("position_ids")) is not None:
        positions = positions + tokens
        if begins:
            first = torch.arange(tokens, device=positions.device)
            positions = torch.cat([first.expand(len(positions), -1), positions], dim=1)
        options["position_ids"] = positions
    return (), options


def _wider(mask: Tensor, tokens: int) -> Tensor:
    """A mask of rows with so many tokens more, which all see and which see what stands before them.

    Args:
        mask: [R, T], of ones and zeros, or [R, 1, T, T], true where something is seen or added to
            attention scores.
        tokens: how many.
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
