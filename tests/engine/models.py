"""Tiny random models of several architectures in float64, and batches for them."""

from __future__ import annotations

from types import MethodType

import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.randomness.draws import Draws

VOCABULARY = 40
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
GPT2_SIZES = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
MAKERS = {
    "opt": lambda: OPTForCausalLM(OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SIZES, intermediate_size=32)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2_SIZES, bos_token_id=0, eos_token_id=0)),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, intermediate_size=32, num_key_value_heads=1)
    ),
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZES, intermediate_size=32)),
}


def model(kind, dtype=torch.float64, attention="sdpa"):
    """Return a tiny model whose weights depend on the kind only, rounded to ``dtype``."""
    net = MAKERS[kind]().to(dtype).eval()
    net.set_attn_implementation(attention)
    if dtype == torch.float64:
        for module in net.modules():
            if isinstance(module, LlamaRMSNorm):
                module.forward = MethodType(_in_float64, module)
    shapes = {name: tuple(x.shape) for name, x in net.named_parameters()}
    noise = Draws(3).normal("init", 0, shapes, dtype=torch.float64)
    with torch.no_grad():
        for name, x in net.named_parameters():
            x.copy_(0.1 * noise[name] + (x.ndim == 1 and "norm" in name.lower()))
    return net


def _in_float64(norm, x):
    """Llama's norm in float64; the original rounds to float32, which turns a last bit into 1e-7."""
    return norm.weight * (x * torch.rsqrt((x**2).mean(-1, keepdim=True) + norm.variance_epsilon))


def part(net, rows=((5, 6, 7, 8, 9, 10), (11, 12, 13), (14, 15, 16, 17, 18))):
    """Return a micro-batch of rows; the loss of an example is the mean over its own tokens."""
    longest = max(map(len, rows))
    ids = torch.tensor([(*row, *[1] * (longest - len(row))) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])

    def losses(copies):
        input_ids, attention_mask = ids.repeat(copies, 1), mask.repeat(copies, 1)
        logits = net(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        targets = input_ids.roll(-1, 1)
        of_tokens = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        sums = (of_tokens * attention_mask).sum(1)
        return (sums / attention_mask.sum(1)).view(copies, len(rows))

    return MicroBatch(size=len(rows), tokens=ids.numel(), losses=losses)
