"""Scores of options against the same scores worked out one sequence at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from lozo_bench.batches import collate
from lozo_bench.objectives.options import causal_scorer, cross_entropy, masked_scorer
from lozo_bench.tasks.base import Encoded

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}


def opt():
    return OPTForCausalLM(
        OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=64)
    )


def gpt2():
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50))


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=32))


MODELS = {"opt": opt, "gpt2": gpt2, "llama": llama}

EXAMPLES = [
    Encoded(rows=((2, 7, 8, 11), (2, 7, 8, 12, 13)), answer=((3,), (3, 4)), label=1),
    Encoded(rows=((2, 20, 21), (2, 20, 22, 23, 24)), answer=((2,), (2, 3, 4)), label=0),
]


@pytest.fixture(autouse=True)
def _same_random_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("name", MODELS)
def test_an_option_scores_the_mean_log_probability_of_its_tokens(name):
    """A10 of the spec: batched and padded equals one sequence at a time without padding."""
    model = MODELS[name]().double().eval()
    scores = causal_scorer(model)(collate(EXAMPLES, pad_id=1))
    for i, example in enumerate(EXAMPLES):
        for k, (row, positions) in enumerate(zip(example.rows, example.answer, strict=True)):
            log_probs = model(torch.tensor([row])).logits[0].log_softmax(-1)
            wanted = [float(log_probs[p - 1, row[p]].detach()) for p in positions]
            assert float(scores[i, k].detach()) == pytest.approx(sum(wanted) / len(wanted))


def test_a_label_word_scores_its_logit_at_the_mask():
    config = RobertaConfig(**SMALL, intermediate_size=32, max_position_embeddings=66)
    model = RobertaForMaskedLM(config).double().eval()
    examples = [
        Encoded(rows=((0, 9, 4, 2),), answer=((2,),), label=0),
        Encoded(rows=((0, 4, 2),), answer=((1,),), label=1),
    ]
    scores = masked_scorer(model, [33, 44])(collate(examples, pad_id=1))
    for i, (row, mask) in enumerate([((0, 9, 4, 2), 2), ((0, 4, 2), 1)]):
        logits = model(torch.tensor([row])).logits[0, mask]
        torch.testing.assert_close(scores[i], logits[[33, 44]])


def test_the_loss_is_minus_the_log_softmax_of_the_right_option():
    scores = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=torch.float64)
    loss = cross_entropy(scores, torch.tensor([1, 0]))
    assert float(loss) == pytest.approx((-math.log(0.75) - math.log(0.5)) / 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_half_precision_logits_are_float32(dtype):
    """T24: the two losses of a step differ by less than bf16 can tell."""

    def model(input_ids, attention_mask, use_cache):
        return SimpleNamespace(logits=torch.ones(*input_ids.shape, 50, dtype=dtype))

    assert causal_scorer(model)(collate(EXAMPLES, pad_id=1)).dtype == torch.float32
