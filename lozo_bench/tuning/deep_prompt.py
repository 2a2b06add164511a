"""Deep prompts: vectors that are added to the hidden states of placeholder tokens, layer by layer.

Sources: Sun et al., "Black-Box Tuning", arXiv 2201.03514 (BBT, the first layer only), and
"BBTv2", arXiv 2205.11200 (every layer). Every row gets t placeholder tokens and a separator,
which are ordinary words of the vocabulary. Layer i then reads, with the hidden states h of a row,

    h[j] + p_i[j]    at the placeholders j = 1, ..., t,    h[j]    elsewhere

in place of h. What the first layer reads includes positions and the embeddings' LayerNorm. All p_i
are zero at the start, so the model then is the plain one on rows with placeholders.

The placeholders stand behind the first token, which a masked model's head may read (<s>), and in
front of a causal model's rows. As released (txsun1997/Black-Box-Tuning,
dataloaders/dataloader.py:37-45) they are the tokens 1000 to 1049, followed by " .". The released
code decodes them, puts the text in front of the template and tokenises all of it again. That may
give another number of placeholders (49 with GPT-2's tokenizer), so that its last vectors fall on
the separator. Here there are exactly t, and the template behind them is tokenised on its own.

Each p_i is a parameter [1, t * width], a matrix of one row. A low-rank term U V^T with U [1, K] and
V [t * width, K] beside it therefore expresses any K prompts exactly. A layer reads it like an
embedding of the token 0, of which a fused forward pass knows several versions at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lozo_bench.config.schema import Kind
from lozo_bench.engine.layers import named_arguments
from lozo_bench.engine.tensors import wide
from lozo_bench.errors import bad_value
from lozo_bench.models.load import Loaded
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import Tuned, check_room, check_tokens, freeze_rest, layer_stack
from lozo_bench.tuning.virtual_tokens import make_room, row_begins

# The id of the first placeholder, as released.
FIRST_PLACEHOLDER = 1000


class DeepPrompt:
    """Train vectors that are added to the hidden states of placeholder tokens.

    Args:
        tokens: the number of placeholder tokens.
        layers: which layers add vectors: the ``first`` one (BBT) or ``all`` (BBTv2).
        separator: text between the placeholders and the row; empty for none.
    """

    def __init__(
        self, *, tokens: int, layers: Literal["first", "all"] = "all", separator: str = " ."
    ) -> None:
        check_tokens(tokens)
        if layers not in ("first", "all"):
            raise bad_value("layers", layers, "one of first, all")
        self.tokens, self.layers, self.separator = tokens, layers, separator

    def tune(self, loaded: Loaded, draws: Draws) -> Tuned:
        """See `Tuning`. Nothing is drawn."""
        model = loaded.model
        separator = self._separator(loaded)
        check_room(loaded, self.tokens, len(separator))
        inserted = InsertedTokens(
            torch.tensor(placeholders(loaded, self.tokens) + separator),
            behind_the_first=loaded.kind is not Kind.causal,
        )
        layers = layer_stack(model, "tuning=deep_prompt")
        for layer in layers[:1] if self.layers == "first" else layers:
            layer.deep_prompt = LayerPrompt(self.tokens, _width(model), next(layer.parameters()))
            _add_prompt(layer, inserted)
        model.register_forward_pre_hook(inserted.insert, with_kwargs=True)
        X = freeze_rest(model, lambda name, _: ".deep_prompt." in name)
        return Tuned(X, model, all_weights=False, virtual_tokens=len(inserted.ids), beside=True)

    def _separator(self, loaded: Loaded) -> list[int]:
        if not self.separator:
            return []
        return list(loaded.tokenizer.encode(self.separator, add_special_tokens=False))


class LayerPrompt(nn.Module):
    """One layer's prompt p, ``values`` [1, tokens * width].

    Args:
        tokens: the number of placeholder tokens.
        width: of a hidden state.
        like: a weight of the layer; the values are on its device.
    """

    def __init__(self, tokens: int, width: int, like: Tensor) -> None:
        super().__init__()
        self.tokens = tokens
        self.values = nn.Parameter(like.new_zeros(1, tokens * width, dtype=wide(like.dtype)))

    def added_to(self, hidden: Tensor, start: int) -> Tensor:
        """Return hidden states [rows, T, width] with p added from the position ``start`` on.

        They go to the prompt's device: the layer before may be on another one.
        """
        hidden = hidden.to(self.values.device)
        rows, _, width = hidden.shape
        each = torch.zeros(rows, 1, dtype=torch.int64, device=hidden.device)
        p = F.embedding(each, self.values).view(rows, self.tokens, width).to(hidden.dtype)
        end = start + self.tokens
        parts = [hidden[:, :start], hidden[:, start:end] + p, hidden[:, end:]]
        return torch.cat(parts, dim=1)


class InsertedTokens:
    """The tokens that are put into every row before the model reads it.

    Args:
        ids: of the placeholders and the separator, int64 [n].
        behind_the_first: whether they stand behind a row's first token; otherwise in front of it.
    """

    def __init__(self, ids: Tensor, behind_the_first: bool) -> None:
        self.ids, self.start = ids, int(behind_the_first)
        self.present = True  # whether the placeholders are among the positions of this call

    def insert(
        self, model: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """Return the arguments with which the model is called instead."""
        options = named_arguments(model, args, options)
        self.present = row_begins(options)
        if self.present:
            if self.start:
                _move_first_token_to_the_front(options)
            rows: Tensor = options["input_ids"]
            ids = self.ids.to(rows.device).expand(len(rows), -1)
            parts = [rows[:, : self.start], ids, rows[:, self.start :]]
            options["input_ids"] = torch.cat(parts, dim=1)
        make_room(options, len(self.ids))
        return (), options


def placeholders(loaded: Loaded, tokens: int) -> list[int]:
    """Return the ids of the placeholders: ordinary words from the token 1000 on, as released.

    A small vocabulary is counted through again from its first word.
    """
    special = set(loaded.tokenizer.all_special_ids)
    words = [i for i in range(len(loaded.tokenizer)) if i not in special]
    start = bisect_left(words, FIRST_PLACEHOLDER)
    return [words[(start + i) % len(words)] for i in range(tokens)]


def _width(model: PreTrainedModel) -> int:
    return int(model.config.hidden_size)


def _add_prompt(layer: nn.Module, inserted: InsertedTokens) -> None:
    """Make the layer add its prompt to the hidden states that it reads.

    The layer's forward is wrapped, and no hook is registered: whoever observes or replaces what
    enters the layer sees the hidden states without the prompt, which belongs to the layer.
    """
    forward: Callable[..., Any] = layer.forward

    @wraps(forward)
    def with_prompt(hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        if inserted.present:
            assert isinstance(layer.deep_prompt, LayerPrompt)
            hidden_states = layer.deep_prompt.added_to(hidden_states, inserted.start)
        return forward(hidden_states, *args, **options)

    layer.forward = with_prompt


def _move_first_token_to_the_front(options: dict[str, Any]) -> None:
    """Put each row's first token before the padding on its left, in ids, mask and positions."""
    mask: Tensor | None = options.get("attention_mask")
    if mask is None or mask.ndim != 2:
        return
    first = mask.long().argmax(dim=1, keepdim=True)
    at = torch.arange(mask.shape[1], device=mask.device).expand(len(mask), -1)
    order = torch.where(at == 0, first, at - (at <= first).to(at.dtype))
    for name in ("input_ids", "attention_mask", "position_ids"):
        if options.get(name) is not None:
            options[name] = options[name].gather(1, order)
