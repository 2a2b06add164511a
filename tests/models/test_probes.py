"""What a few words show about a model: whether it is causal, and whether options can share rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForCausalLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

from lozo_bench.errors import UserError
from lozo_bench.models.probes import check_causal, packs_rows

CPU = torch.device("cpu")
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
LAYERS = {**SIZE, "intermediate_size": 32, "max_position_embeddings": 24}
GPT = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24}


def made(cls: Any, config: Any) -> PreTrainedModel:
    """Make a model whose values are larger than usual initial ones, so that logits differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = cls(config).eval()
        for name, x in model.named_parameters():
            scale = x.ndim == 1 and name.endswith("weight")
            torch.nn.init.normal_(x, mean=float(scale), std=0.3)
    return model


def opt(**changes: Any) -> PreTrainedModel:
    config = {**SIZE, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 24}
    return made(OPTForCausalLM, OPTConfig(**{**config, **changes}))


@pytest.mark.parametrize(
    ("cls", "config", "remedy"),
    [
        (BertLMHeadModel, BertConfig(**LAYERS), 'set "is_decoder": true in its config'),
        (LlamaForCausalLM, LlamaConfig(**LAYERS, is_causal=False), 'set "is_causal": true'),
        (XLNetLMHeadModel, XLNetConfig(vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=32),
         "what to do: choose another model"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_whose_tokens_see_later_ones_is_refused(
    cls: Any, config: Any, remedy: str, dtype: torch.dtype
) -> None:
    model = made(cls, config).to(dtype)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"{cls.__name__} is not causal.*{remedy}"):
        check_causal(model, CPU)


@pytest.mark.parametrize(
    "changes",
    [{}, {"vocab_size": 2, "pad_token_id": 1}, {"max_position_embeddings": 2}],
    ids=["usual", "two words", "two positions"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_causal_model_passes_and_no_generator_moves(changes: Any, dtype: torch.dtype) -> None:
    model = opt(**changes).to(dtype)  # type: ignore[arg-type]
    before = torch.random.get_rng_state()
    check_causal(model, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_bert_that_is_a_decoder_is_causal() -> None:
    check_causal(made(BertLMHeadModel, BertConfig(**LAYERS, is_decoder=True)), CPU)


class IgnoresMasks(OPTForCausalLM):
    """A model that takes a mask of any shape and uses none."""

    def forward(self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None) -> Any:
        return super().forward(input_ids=input_ids, position_ids=position_ids)


@pytest.mark.parametrize(
    ("model", "packs"),
    [
        (opt(), True),
        (made(OpenAIGPTLMHeadModel, OpenAIGPTConfig(**GPT)), False),  # fails with such a mask
        (made(IgnoresMasks, opt().config), False),
        # Its positions begin after the padding index, and explicit ones at 0.
        (made(RobertaForCausalLM, RobertaConfig(**LAYERS, is_decoder=True)), False),
    ],
    ids=["opt", "openai-gpt", "ignores masks", "roberta"],
)
def test_options_share_a_row_only_if_each_gets_its_own_logits(
    model: PreTrainedModel, packs: bool
) -> None:
    assert packs_rows(model, CPU, torch.float32) is packs
