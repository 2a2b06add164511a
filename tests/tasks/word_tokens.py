"""Tokenizers whose vocabulary is exactly the tokens that a test expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lozo_bench.tasks.base import Encoded

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
# How the byte-level BPE of GPT-2 and RoBERTa splits the class words of C-LoRA's tasks.
PIECES = Regex(
    "Trans(?=portation)|Vill(?=age)|Pl(?=ant)|Al(?=bum)|A(?=thlete)|(?<=A)th(?=lete)"
    "|ath(?=lete)|trans(?=portation)|vill(?=age)"
)


def _words(expected: Iterable[str]) -> Tokenizer:
    """Split text as GPT-2 does; parts that are not in ``expected`` become <unk>."""
    known = sorted({token for row in expected for token in row.split(" ")} - {*SPECIAL, "<mask>"})
    vocabulary = {token: n for n, token in enumerate([*SPECIAL, *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def masked_words(expected: Iterable[str]) -> PreTrainedTokenizerFast:
    """Like RoBERTa's: <s> and </s> around a text, and a <mask> that absorbs the space before it."""
    tokenizer = _words(expected)
    mask = AddedToken("<mask>", lstrip=True, special=True)
    tokenizer.add_special_tokens([*SPECIAL, mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=mask,
    )


def causal_words(expected: Iterable[str]) -> PreTrainedTokenizerFast:
    """Like GPT-2's: no special tokens are added."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_words(expected), pad_token="<pad>", unk_token="<unk>"
    )


def named(tokenizer: PreTrainedTokenizerFast, ids: Iterable[int]) -> str:
    """Return the tokens as text, separated by spaces."""
    names = tokenizer.convert_ids_to_tokens(list(ids))
    return " ".join(names)


def row_of(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> str:
    """Return the tokens of the only row as text, separated by spaces."""
    (row,) = encoded.rows
    return named(tokenizer, row)
