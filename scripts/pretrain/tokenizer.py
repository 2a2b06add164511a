"""Byte-level BPE tokenizers with the special-token ids that OPT and RoBERTa expect."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

# They have ids 0 to 3 in both families; RoBERTa's mask has id 4.
SPECIAL = {
    "causal": ("<s>", "<pad>", "</s>", "<unk>"),
    "masked": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}


def train(texts: Iterable[str], kind: str, size: int) -> Tokenizer:
    """Return a byte-level BPE of ``size`` entries, trained on ``texts``.

    Encoding prepends <s>; for a masked model it also appends </s>.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL[kind]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A" if kind == "causal" else "<s> $A </s>",
        pair="<s> $A $B" if kind == "causal" else "<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def save(tokenizer: Tokenizer, kind: str, folder: Path, longest: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, which AutoTokenizer reads."""
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if kind == "masked":
        names |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, model_max_length=longest, **names
    )
    made.save_pretrained(folder)
