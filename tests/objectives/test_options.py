"""Scores of options are compared with scores that are computed one sequence at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.collate import collate
from lozo_bench.data.order import micro_batches
from lozo_bench.engine import Draws, Folder, Fused, Subspace
from lozo_bench.engine.subspace import along, stacked
from lozo_bench.models.capabilities import supports_packed_rows
from lozo_bench.objectives.losses import OptionObjective
from lozo_bench.objectives.options import option_scorer
from lozo_bench.tasks.base import Encoded

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}


GROUPED = {**SMALL, "intermediate_size": 32, "num_key_value_heads": 1}


def opt():
    return OPTForCausalLM(
        OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=64)
    )


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0)
    )


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=32))


def roberta():
    return RobertaForMaskedLM(
        RobertaConfig(**SMALL, intermediate_size=32, max_position_embeddings=66)
    )


def bert():
    return BertForMaskedLM(BertConfig(**SMALL, intermediate_size=32, max_position_embeddings=66))


CAUSAL = {"opt": opt, "gpt2": gpt2, "llama": llama}
MASKED = {"roberta": roberta, "bert": bert}
LABEL_IDS = (33, 44, 21)

SEVERAL_TOKENS = [
    Encoded(rows=((2, 7, 8, 11), (2, 7, 8, 12, 13)), answer=((3,), (3, 4)), label=1),
    Encoded(rows=((2, 20, 21), (2, 20, 22, 23, 24)), answer=((2,), (2, 3, 4)), label=0),
    Encoded(rows=((2, 9, 8, 7, 6, 5, 4), (2, 9, 8, 7, 6, 3)), answer=((5, 6), (5,)), label=1),
]
ONE_TOKEN = [
    Encoded(rows=((2, 7, 8, 11), (2, 7, 8, 12)), answer=((3,), (3,)), label=1),
    Encoded(rows=((2, 20, 11), (2, 20, 12)), answer=((2,), (2,)), label=0),
]
NO_COMMON_PROMPT = [
    Encoded(rows=((2, 7, 8, 11), (2, 6, 8, 12, 13)), answer=((3,), (3, 4)), label=1),
    *SEVERAL_TOKENS,
]
AT_THE_MASK = [
    Encoded(rows=((0, 9, 4, 2),), answer=((2,),), label=0),
    Encoded(rows=((0, 4, 2),), answer=((1,),), label=2),
    Encoded(rows=((0, 9, 8, 7, 6, 4, 2),), answer=((5,),), label=1),
]
CASES = [
    *((name, SEVERAL_TOKENS, ()) for name in CAUSAL),
    *((name, ONE_TOKEN, ()) for name in CAUSAL),
    *((name, NO_COMMON_PROMPT, ()) for name in CAUSAL),
    *((name, AT_THE_MASK, LABEL_IDS) for name in MASKED),
]  # fmt: skip
SWITCHES = ["positions", "columns", "share_prompt", "buckets"]


def make(name, attention="sdpa"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (CAUSAL | MASKED)[name]().double().eval()
    model.set_attn_implementation(attention)
    return model


def objective(model, layout):
    return OptionObjective(option_scorer(model, layout.scoring), layout, torch.device("cpu"))


def micro_batches_of(model, examples, layout):
    """Return the batch as the micro-batches that the engine gets."""
    made = objective(model, layout)
    groups = micro_batches(examples, layout)
    return [made.prepare([examples[i] for i in group], None).micro_batch for group in groups]


def scores(model, examples, label_ids, scoring):
    layout = BatchLayout(1, label_ids, scoring)
    with torch.no_grad():
        return option_scorer(model, scoring)(collate(examples, layout))


def by_hand(model, examples, label_ids):
    """Compute the scores one row at a time, without padding, from all logits."""
    for i, example in enumerate(examples):
        if label_ids:
            logits = model(torch.tensor([example.rows[0]])).logits[0, example.answer[0][0]]
            yield i, logits[list(label_ids)]
            continue
        means = []
        for row, positions in zip(example.rows, example.answer, strict=True):
            log_probs = model(torch.tensor([row])).logits[0].log_softmax(-1)
            means.append(torch.stack([log_probs[p - 1, row[p]] for p in positions]).mean())
        yield i, torch.stack(means)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("name", "examples", "label_ids"), CASES)
def test_scores_are_those_of_one_sequence_at_a_time(name, examples, label_ids, attention):
    """They are equal up to a constant per example, which changes no loss and no chosen option."""
    model = make(name, attention)
    got = scores(model, examples, label_ids, ScoringOptions())
    for i, wanted in by_hand(model, examples, label_ids):
        torch.testing.assert_close(
            got[i].log_softmax(0), wanted.log_softmax(0), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("off", SWITCHES)
@pytest.mark.parametrize(("name", "examples", "label_ids"), CASES)
def test_no_switch_changes_a_loss(name, examples, label_ids, off):
    model = make(name)

    def losses(scoring):
        together = micro_batches_of(model, examples * 9, BatchLayout(1, label_ids, scoring))
        with torch.no_grad():
            return torch.cat([micro_batch.losses(1)[0] for micro_batch in together]).sort().values

    torch.testing.assert_close(
        losses(ScoringOptions(**{off: False})), losses(ScoringOptions()), rtol=1e-10, atol=1e-12
    )


def test_without_columns_and_sharing_single_tokens_score_their_log_probability():
    model = make("opt")
    got = scores(model, ONE_TOKEN, (), ScoringOptions(share_prompt=False))
    for i, wanted in by_hand(model, ONE_TOKEN, ()):
        torch.testing.assert_close(got[i], wanted.detach(), rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_with_probabilities_all_scores_are_log_probabilities():
    """This includes single tokens behind one prompt, whose log-sum-exp is otherwise left out."""
    model = make("opt")
    scorer = option_scorer(model, ScoringOptions(), probabilities=True)
    got = scorer(collate(ONE_TOKEN, BatchLayout(1)))
    for i, wanted in by_hand(model, ONE_TOKEN, ()):
        torch.testing.assert_close(got[i], wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "examples", "seen"),
    [("opt", ONE_TOKEN, (2, 1, 2)), ("opt", SEVERAL_TOKENS, (9, 1, 50))],
)
def test_the_head_computes_only_the_logits_that_are_read(name, examples, seen):
    """Two positions and two words; or three positions per example (the most) and all 50 words."""
    model, shapes = make(name), []
    model.lm_head.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    scores(model, examples, (), ScoringOptions())
    assert shapes == [seen]


@pytest.mark.parametrize(("name", "examples", "label_ids"), CASES)
def test_candidates_score_the_same_together_and_one_by_one(name, examples, label_ids):
    """This includes heads reduced to some words and positions, and candidates per example."""
    model = make(name)
    X = dict(model.named_parameters())
    shapes = {n: x.shape for n, x in X.items()}
    draws = Draws(0)
    U = draws.normal(
        "U", 0, {n: (len(x), 2) for n, x in X.items() if x.ndim == 2}, dtype=torch.float64
    )
    V = draws.normal(
        "V", 0, {n: (x.shape[1], 2) for n, x in X.items() if x.ndim == 2}, dtype=torch.float64
    )
    z = draws.normal(
        "z", 0, {n: (len(x), 1) for n, x in X.items() if x.ndim == 1}, dtype=torch.float64
    )
    assert len(U) + len(z) == len(shapes)
    P = Subspace(U, V, z)
    micro_batches = micro_batches_of(model, examples, BatchLayout(1, label_ids))
    shared = stacked([along(P, c) for c in (0.02, -0.01)])
    own = stacked(
        [stacked([along(P, 0.01 * (b - k)) for b in range(len(examples))]) for k in (0, 1)]
    )
    for candidates in (shared, own):
        together = Fused(model, X, Folder("nearest", draws), per_forward=2)
        alone = Fused(model, X, Folder("nearest", draws), per_forward=1)
        got = together.losses(P, candidates, micro_batches)
        torch.testing.assert_close(
            got, alone.losses(P, candidates, micro_batches), rtol=1e-11, atol=1e-12
        )
        for b in range(len(examples)):
            candidate = candidates[0] if candidates.s.ndim == 2 else candidates[0][b]
            one = alone.losses(P, stacked([candidate]), micro_batches)
            torch.testing.assert_close(got[0, b], one[0, b], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_half_precision_logits_are_float32(dtype):
    """The two losses of a step differ by less than half precision can resolve."""
    model = make("opt").to(dtype)
    for examples in (ONE_TOKEN, SEVERAL_TOKENS):
        assert scores(model, examples, (), ScoringOptions()).dtype == torch.float32


@pytest.mark.parametrize(
    ("model", "packed"),
    [
        (opt, True),
        (gpt2, True),
        (llama, True),
        (lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=4)), False),
        (lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=None)), True),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**GROUPED, head_dim=8)), False),
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_head=2)), False),
    ],
)
def test_options_share_one_prompt_only_with_full_attention(model, packed):
    """A sliding window would count the options in between; ALiBi uses positions in the row."""
    assert supports_packed_rows(model()) is packed


def test_the_error_for_a_model_without_a_backbone_names_the_switch():
    class Odd(torch.nn.Module):
        config = SimpleNamespace()
        dtype = torch.float64

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=torch.ones(*input_ids.shape, 50))

    with pytest.raises(ValueError, match=r"engine\.answer_positions: Odd has no separate backbone"):
        scores(Odd(), SEVERAL_TOKENS, (), ScoringOptions())
    got = scores(
        Odd(),
        SEVERAL_TOKENS,
        (),
        ScoringOptions(positions=False, columns=False, share_prompt=False),
    )
    torch.testing.assert_close(got, torch.full_like(got, -math.log(50)))
