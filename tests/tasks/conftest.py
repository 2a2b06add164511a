"""Fixtures: tiny tokenizers, and the folder with real data beside the checkout, if present."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED = Path(__file__).resolve().parents[3] / "shared"

# Each word in these sentences becomes one token, together with the space before it if there is one.
# Any other word is split into several tokens.
SENTENCES = [
    "well worth revisiting as many times It was great terrible okay bad good .",
    "A man is playing a guitar. a man sleeps Yes No Maybe ? , :",
    "What is the capital of France ? Description Entity Expression Human Location Number",
    "x What well",
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_level_bpe() -> Tokenizer:
    """A byte-level BPE like RoBERTa's and OPT's, with whole words merged."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def roberta_like() -> PreTrainedTokenizerFast:
    """The tokenizer of a masked model: byte-level BPE with <s>, </s> and <mask>."""
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(),
        bos_token="<s>",
        cls_token="<s>",
        sep_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


@pytest.fixture(scope="session")
def opt_like() -> PreTrainedTokenizerFast:
    """The tokenizer of a causal model: byte-level BPE that adds a BOS token in front."""
    tokenizer = byte_level_bpe()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


@pytest.fixture(scope="session")
def whole_words() -> PreTrainedTokenizerFast:
    """A tokenizer with two words that ignores white space."""
    vocabulary = {"<unk>": 0, "<mask>": 1, "well": 2, "great": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", mask_token="<mask>"
    )


@pytest.fixture(scope="session")
def llama_like() -> PreTrainedTokenizerFast:
    """The tokenizer of stories260k: not byte-level, and a space is part of the next token."""
    folder = SHARED / "models" / "stories260k"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return a function that gives a folder of the real data, or skips the test."""

    def folder(name: str) -> Path:
        path = SHARED / "data" / name
        if not path.is_dir():
            pytest.skip(f"{path} is not there")
        return path

    return folder
