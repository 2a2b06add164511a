"""Tokenizers that know exactly the tokens a test expects, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lozo_bench.tasks.base import Encoded

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
# Where GPT-2's byte-level BPE, which is RoBERTa's too, parts the class words of C-LoRA's tasks.
PIECES = Regex(
    "Trans(?=portation)|Vill(?=age)|Pl(?=ant)|Al(?=bum)|A(?=thlete)|(?<=A)th(?=lete)"
    "|ath(?=lete)|trans(?=portation)|vill(?=age)"
)


def _words(expected: Iterable[str]) -> Tokenizer:
    """Parts text as GPT-2 does and looks the parts up; what is not ``expected`` is <unk>."""
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
    """As RoBERTa's: <s> and </s> around a text, and a <mask> that takes the space before it."""
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
    """As GPT-2's: the text's own tokens only."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_words(expected), pad_token="<pad>", unk_token="<unk>"
    )


def named(tokenizer: PreTrainedTokenizerFast, ids: Iterable[int]) -> str:
    """Tokens by name, parted by spaces."""
    names = tokenizer.convert_ids_to_tokens(list(ids))
    return " ".join(names)


def row_of(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> str:
    """The one row's tokens by name, parted by spaces."""
    (row,) = encoded.rows
    return named(tokenizer, row)
