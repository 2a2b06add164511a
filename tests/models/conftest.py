"""Tiny random checkpoints of the four architectures, with the files that the hub has for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)
from transformers.utils import logging

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3, as in OPT and RoBERTa
LETTERS = tuple(sorted(ByteLevel.alphabet()))
VOCAB = len(SPECIAL) + len(LETTERS) + 1  # and <mask>, or <|endoftext|> for GPT-2

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and warnings; use at most two threads."""
    level, threads = logging.get_verbosity(), torch.get_num_threads()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(min(2, threads))
    yield
    logging.set_verbosity(level)
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes a checkpoint and returns its folder.

    Its arguments: ``arch`` names the architecture. ``tie`` says whether head and embeddings are
    tied. ``drop`` lists parts of the names of weights to leave out. ``add`` holds weights to add.
    ``config`` holds keys of config.json to overwrite after saving. ``tokenizer`` names the
    architecture whose tokenizer is written ("" means ``arch``); None writes no tokenizer.
    """

    def _make(
        arch: str,
        *,
        tie: bool = True,
        drop: tuple[str, ...] = (),
        add: dict[str, torch.Tensor] | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = "",
    ) -> Path:
        folder = tmp_path / f"{arch}{len(list(tmp_path.iterdir()))}"
        build(arch, tie).save_pretrained(folder)
        rewrite(folder, drop, add or {}, config or {})
        if tokenizer is not None:
            write_tokenizer(folder, tokenizer or arch)
        return folder

    return _make


def build(arch: str, tie: bool) -> PreTrainedModel:
    """Make a randomly initialised model with two layers of width 16."""
    common: dict[str, Any] = {"vocab_size": VOCAB, "tie_word_embeddings": tie}
    layers: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if arch == "roberta":
            model: Any = RobertaForMaskedLM(
                RobertaConfig(**common, **layers, intermediate_size=32, max_position_embeddings=40)
            )
            torch.nn.init.normal_(model.lm_head.bias)  # zeros would hide a missing bias
        elif arch == "opt":
            model = OPTForCausalLM(
                OPTConfig(**common, **layers, ffn_dim=32, word_embed_proj_dim=16)
            )
        elif arch == "gpt2":
            ends: dict[str, Any] = {"bos_token_id": VOCAB - 1, "eos_token_id": VOCAB - 1}
            model = GPT2LMHeadModel(
                GPT2Config(**common, **ends, n_embd=16, n_layer=2, n_head=2, n_positions=40)
            )
        else:
            model = LlamaForCausalLM(LlamaConfig(**common, **layers, intermediate_size=32))
    built: PreTrainedModel = model
    return built


def rewrite(
    folder: Path, drop: tuple[str, ...], add: dict[str, torch.Tensor], config: dict[str, Any]
) -> None:
    """Change the files of a saved checkpoint without transformers."""
    weights = {**load_file(folder / "model.safetensors"), **add}
    kept = {name: w for name, w in weights.items() if not any(part in name for part in drop)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))


def write_tokenizer(folder: Path, arch: str) -> None:
    """Write vocab.json and merges.txt, the files that the hub has for OPT, RoBERTa and GPT-2."""
    last = "<|endoftext|>" if arch == "gpt2" else "<mask>"
    special = ("!0", "!1", "!2", "!3") if arch == "gpt2" else SPECIAL
    words = (*special, *LETTERS, last)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    opt = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    settings: dict[str, dict[str, Any]] = {
        "opt": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, **opt},
        "roberta": {"tokenizer_class": "RobertaTokenizer"},
        "gpt2": {"tokenizer_class": "GPT2Tokenizer"},
        "llama": {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, **opt},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings[arch]))
