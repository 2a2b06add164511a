"""Prompt tuning: trained embeddings of virtual tokens in front of every row.

Source: Lester et al., arXiv 2104.08691. As in Bilevel-ZOFO, the initial values are the embeddings
of real words.

peft's prompt tuning (0.21) ignores position ids, which changes what Llama generates behind padding
on the left. It also accepts only 2-dimensional masks, so that options could not share one prompt.
This file instead registers a hook that runs before the model: it replaces token ids by embeddings,
puts the virtual tokens in front, shifts the positions by their number and extends the mask on the
left.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lozo_bench.engine.layers import named_arguments
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import UserError
from lozo_bench.models.check import output_layer, word_embeddings
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, check_room, check_tokens, draw_words, freeze_rest
from lozo_bench.tuning.virtual_tokens import make_room, row_begins


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

        def start(number: int) -> Tensor:
            words = draw_words(loaded, draws, "prompt_words", self.tokens, number)
            embeddings = word_embeddings(model).detach()
            chosen = embeddings[words.to(embeddings.device)]
            return chosen.to(wide(chosen.dtype))

        soft_prompt = SoftPrompt(start(0))
        model.soft_prompt = soft_prompt
        model.register_forward_pre_hook(_put_soft_prompt_in_front, with_kwargs=True)
        X = freeze_rest(model, lambda name, _: name.startswith("soft_prompt."))

        @torch.no_grad()
        def redraw(number: int) -> None:
            soft_prompt.words.copy_(start(number))

        return Tuned(X, model, all_weights=False, virtual_tokens=self.tokens, redraw=redraw)


class SoftPrompt(nn.Module):
    """The trained embeddings of the virtual tokens, ``words`` [tokens, width]."""

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(words)


def _put_soft_prompt_in_front(
    model: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    """Return the arguments with which the model is called instead."""
    options = named_arguments(model, args, options)
    words: Tensor = model.soft_prompt.words
    if row_begins(options):
        row = model.get_input_embeddings()(options.pop("input_ids"))
        soft = words.to(row.dtype).expand(len(row), -1, -1)
        options["inputs_embeds"] = torch.cat([soft, row], dim=1)
    make_room(options, len(words))
    return (), options
