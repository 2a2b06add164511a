"""The models that are timed: random weights of published or smaller sizes, or a stored model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    RobertaConfig,
)

from lozo_bench.errors import UserError, did_you_mean

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a random model; ``ffn`` is the inner width of a block's feed-forward layer."""

    family: str
    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab: int

    def overridden(self, layers: int | None, hidden: int | None, vocab: int | None) -> Sizes:
        """Return a copy with other sizes. A new width also sets heads of 64 and ffn to 4 widths."""
        sizes = replace(self, layers=layers or self.layers, vocab=vocab or self.vocab)
        if hidden is None:
            return sizes
        return replace(sizes, hidden=hidden, heads=max(1, hidden // 64), ffn=4 * hidden)


KNOWN = {
    "opt-125m": Sizes("opt", 768, 12, 12, 3072, 50272),
    "opt-1.3b": Sizes("opt", 2048, 24, 32, 8192, 50272),
    "opt-2.7b": Sizes("opt", 2560, 32, 32, 10240, 50272),
    "opt-6.7b": Sizes("opt", 4096, 32, 32, 16384, 50272),
    "opt-13b": Sizes("opt", 5120, 40, 40, 20480, 50272),
    "opt-30b": Sizes("opt", 7168, 48, 56, 28672, 50272),
    "opt-66b": Sizes("opt", 9216, 64, 72, 36864, 50272),
    "gpt2": Sizes("gpt2", 768, 12, 12, 3072, 50257),
    "gpt2-xl": Sizes("gpt2", 1600, 48, 25, 6400, 50257),
    "llama-2-7b": Sizes("llama", 4096, 32, 32, 11008, 32000),
    "llama-2-13b": Sizes("llama", 5120, 40, 40, 13824, 32000),
    "roberta-base": Sizes("roberta", 768, 12, 12, 3072, 50265),
    "roberta-large": Sizes("roberta", 1024, 24, 16, 4096, 50265),
}


def config_of(name: str, sizes: Sizes | None = None) -> PretrainedConfig:
    """Return the config of a known model name or of a model's folder.

    Args:
        name: a key of `KNOWN` or the path of a folder.
        sizes: replaces the published sizes of a known name.

    Raises:
        UserError: the name is neither, or the folder's model has no language-model head.
    """
    if name in KNOWN:
        sizes = sizes or KNOWN[name]
        return _MAKERS[sizes.family](sizes)
    if not (Path(name) / "config.json").is_file():
        raise UserError(
            f"--model: given {name!r}, which is not a folder with a config.json; "
            f"known names: {', '.join(KNOWN)}{did_you_mean(name, KNOWN)}"
        )
    config: PretrainedConfig = AutoConfig.from_pretrained(name)
    architectures = _architectures(config)
    heads = ("LMHead", "ForCausalLM", "ForMaskedLM")
    if not any(head in architecture for architecture in architectures for head in heads):
        raise UserError(
            f"--model: {name} is a {', '.join(architectures) or 'model without architectures'}; "
            "only models with a causal or masked language-model head can be timed"
        )
    return config


def is_masked(config: PretrainedConfig) -> bool:
    """Return whether this is a masked language model; otherwise it is a causal one."""
    return any("ForMaskedLM" in name for name in _architectures(config))


def random_model(config: PretrainedConfig, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return a model with random weights (standard deviation 0.02), equal on every call.

    The weights are created in ``dtype`` on ``device``, without a wider copy. The state of the
    global generator is restored.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.device(device):
        torch.manual_seed(0)
        model: nn.Module = _auto(config).from_config(config, dtype=dtype)
    return model.eval()


def stored_model(folder: str, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Load the model in a folder, in evaluation mode."""
    auto = _auto(AutoConfig.from_pretrained(folder))
    model: nn.Module = auto.from_pretrained(folder, dtype=dtype)
    return model.to(device).eval()


def _auto(config: PretrainedConfig) -> Any:
    return AutoModelForMaskedLM if is_masked(config) else AutoModelForCausalLM


def _architectures(config: PretrainedConfig) -> list[str]:
    return config.architectures or []


def _opt(sizes: Sizes) -> PretrainedConfig:
    return OPTConfig(
        architectures=["OPTForCausalLM"],
        hidden_size=sizes.hidden,
        word_embed_proj_dim=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        ffn_dim=sizes.ffn,
        vocab_size=sizes.vocab,
    )


def _gpt2(sizes: Sizes) -> PretrainedConfig:
    return GPT2Config(
        architectures=["GPT2LMHeadModel"],
        n_embd=sizes.hidden,
        n_layer=sizes.layers,
        n_head=sizes.heads,
        n_inner=sizes.ffn,
        vocab_size=sizes.vocab,
        bos_token_id=0,
        eos_token_id=0,
    )


def _llama(sizes: Sizes) -> PretrainedConfig:
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.ffn,
        vocab_size=sizes.vocab,
    )


def _roberta(sizes: Sizes) -> PretrainedConfig:
    return RobertaConfig(
        architectures=["RobertaForMaskedLM"],
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.ffn,
        vocab_size=sizes.vocab,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )


_MAKERS: dict[str, Callable[[Sizes], PretrainedConfig]] = {
    "opt": _opt,
    "gpt2": _gpt2,
    "llama": _llama,
    "roberta": _roberta,
}
