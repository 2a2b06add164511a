"""Look at what a model does with a few words, whatever its name and its config.json say.

Each probe is one or two forward passes of a few tokens in eval mode, and touches no generator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lozo_bench.engine.device_errors import raise_if_of_the_device
from lozo_bench.errors import UserError
from lozo_bench.models.capabilities import own_option_mask, without_cache
from lozo_bench.models.check import max_row_tokens, word_embeddings

_ROW = 8  # tokens of the row that shows whether a model is causal

# A packed row for `packs_rows`: 2 words of a prompt, then options of 3 and of 2 words.
_BLOCKS = (0, 0, 1, 1, 1, 2, 2)
_POSITIONS = (0, 1, 2, 3, 4, 2, 3)
_ALONE = (0, 1, 5, 6)  # the prompt and the second option

# What a forward pass raises for a mask of a shape that the model's code does not expect.
WRONG_SHAPE = (RuntimeError, ValueError, TypeError, IndexError)


def check_causal(model: PreTrainedModel, device: torch.device) -> None:
    """Check that no token sees a later one.

    The class and config.json do not tell: a BertLMHeadModel without ``is_decoder``, an XLNet and a
    Llama with ``"is_causal": false`` read the whole row. Their scores would contain the answer.

    Args:
        model: a model that is loaded as a causal one.
        device: the device of its inputs.

    Raises:
        UserError: the logits of earlier tokens change with the last token.
    """
    words = some_words(model, min(_ROW, max_row_tokens(model) or _ROW) + 1)
    rows = torch.stack([words[:-1], words[:-1]])
    rows[1, -1] = words[-1]
    first, second = _logits(model, rows.to(device))[:, :-1]
    if not equal_up_to_rounding(first, second, model.dtype, 1e-4):
        raise UserError(
            f"model.path: changing the last token of a row changes the logits before it, so this "
            f"{type(model).__name__} is not causal: its scores of a text would depend on the text "
            f"after it; what to do: {_remedy(model.config)}"
        )


def packs_rows(model: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether an option behind others in a packed row gets the logits that it gets alone.

    Some models fail with a mask [rows, 1, tokens, tokens], some ignore it, and those that count
    positions from another number than 0 on take explicit positions for others.

    Args:
        model: the model to call; it may insert virtual tokens before a row.
        device: the device of its inputs.
        dtype: the least exact dtype that the forward pass computes in.
    """
    words = some_words(model, len(_BLOCKS)).to(device)
    block = torch.tensor([_BLOCKS], device=device)
    mask = own_option_mask(block, model.dtype)  # type: ignore[arg-type]
    try:
        packed = _logits(model, words[None], mask, torch.tensor([_POSITIONS], device=device))
    except WRONG_SHAPE as error:
        raise_if_of_the_device(error)
        return False
    alone = _logits(model, words[None, list(_ALONE)])
    return equal_up_to_rounding(packed[0, -2:], alone[0, -2:], dtype)


def some_words(model: Any, count: int) -> Tensor:
    """Return token ids from the middle of the vocabulary, where no special tokens are."""
    rows = word_embeddings(model).shape[0]
    return (rows // 2 + torch.arange(count)) % rows


def _logits(
    model: Any, rows: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
) -> Tensor:
    explicit = {} if positions is None else {"position_ids": positions}
    mask = torch.ones_like(rows) if mask is None else mask
    devices = {x.device for x in model.parameters() if x.device.type == "cuda"}
    # Some models draw random numbers in eval mode, too.
    with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices, key=str)):
        output = model(input_ids=rows, attention_mask=mask, **explicit, **without_cache(model))
    logits: Tensor = output.logits
    return logits


def equal_up_to_rounding(
    first: Tensor, second: Tensor, dtype: torch.dtype, least: float = 1e-3
) -> bool:
    """Return whether logits differ by rounding only; NaN, which other checks find, counts as equal.

    Args:
        first: logits.
        second: logits of the same shape.
        dtype: the dtype that they were computed in.
        least: the relative difference that counts as rounding in the most exact dtype.
    """
    allowed = max(least, 8 * torch.finfo(dtype).eps) * first.abs().max().item()
    return not (first - second).abs().max().item() > allowed


def _remedy(config: Any) -> str:
    if getattr(config, "is_decoder", None) is False:
        switch = '"is_decoder": true'
    elif getattr(config, "is_causal", None) is False:
        switch = '"is_causal": true'
    else:
        return "choose another model"
    return (
        f"choose another model or, if these weights were trained to continue texts, set {switch} "
        "in its config.json"
    )
