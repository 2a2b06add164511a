"""Prefix tuning is compared with a hand-written forward pass and with transformers' caches."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ALL, CAUSAL, PAD, VOCAB, at_real_tokens, generated, loaded, logits, rows
from torch.nn.functional import layer_norm, linear, relu
from transformers import DynamicCache

from lozo_bench.errors import UserError
from lozo_bench.models.capabilities import supports_packed_rows
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import draw_words
from lozo_bench.tuning.prefix import Prefix


def prefix(arch, seed=0, tokens=5, dtype=torch.float64, **options):
    return Prefix(tokens=tokens, **options).tune(loaded(arch, dtype), Draws(seed))


def words(arch):
    return draw_words(loaded(arch), Draws(0), "prefix_words", 5)


def opt_by_hand(model, ids, before=()):
    """Compute OPT's forward pass of one row from its formulas.

    Args:
        model: an OPT model of this test.
        ids: the row, [T].
        before: for each layer, keys and values [P, width] that all tokens attend to. The row's
            positions start from 0 nevertheless.

    Returns:
        Logits [T, vocabulary], and each layer's keys and values [T, width].
    """
    w, T, pairs = model.state_dict(), len(ids), []
    at = "model.decoder."

    def affine(x, name):
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, name):
        return layer_norm(x, (16,), w[f"{name}.weight"], w[f"{name}.bias"])

    x = w[at + "embed_tokens.weight"][ids] + w[at + "embed_positions.weight"][2 : 2 + T]
    for i in range(2):
        layer = f"{at}layers.{i}."
        h = norm(x, layer + "self_attn_layer_norm")
        q, k, v = (affine(h, f"{layer}self_attn.{part}_proj") for part in "qkv")
        pairs.append((k, v))
        P = 0
        if before:
            P = len(before[i][0])
            k, v = torch.cat([before[i][0], k]), torch.cat([before[i][1], v])
        q, k, v = (y.view(-1, 4, 4).transpose(0, 1) for y in (q, k, v))
        unseen = torch.ones(T, P + T, dtype=torch.bool).triu(P + 1)
        a = (q @ k.transpose(1, 2) / 2.0).masked_fill(unseen, -torch.inf).softmax(-1)
        x = x + affine((a @ v).transpose(0, 1).reshape(T, 16), layer + "self_attn.out_proj")
        h = relu(affine(norm(x, layer + "final_layer_norm"), layer + "fc1"))
        x = x + affine(h, layer + "fc2")
    return norm(x, at + "final_layer_norm") @ w["lm_head.weight"].T, pairs


def test_opt_attends_to_the_words_keys_and_values_and_positions_are_not_shifted():
    inputs = rows((7,))
    plain = loaded("opt").model
    expected, _ = opt_by_hand(plain, inputs["input_ids"][0])
    torch.testing.assert_close(plain(**inputs).logits[0], expected)  # the formulas are right
    _, pairs = opt_by_hand(plain, words("opt"))
    expected, _ = opt_by_hand(plain, inputs["input_ids"][0], before=pairs)
    torch.testing.assert_close(logits(prefix("opt"), **inputs)[0], expected)


@pytest.mark.parametrize("arch", ALL)
def test_the_logits_equal_those_with_a_cache_of_the_words(arch):
    plain, inputs = loaded(arch).model, rows()
    mask = torch.cat([torch.ones(2, 5, dtype=torch.int64), inputs["attention_mask"]], dim=1)
    cache = DynamicCache()
    plain(input_ids=words(arch).expand(2, -1), past_key_values=cache)
    assert cache.get_seq_length() == 5
    positions = torch.arange(7).expand(2, -1)
    if arch == "roberta":  # positions start at pad id + 1; padding is not counted
        positions = (positions + 1) * inputs["attention_mask"] + PAD
        # transformers 5.23 makes no correct mask for an encoder with a cache, so it is given here.
        mask = mask[:, None, None].expand(-1, 1, 7, -1).bool()
    expected = plain(
        input_ids=inputs["input_ids"],
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
    ).logits
    torch.testing.assert_close(
        at_real_tokens(logits(prefix(arch), **inputs), inputs), at_real_tokens(expected, inputs)
    )


@pytest.mark.parametrize("arch", ALL)
def test_each_layer_has_keys_and_values_of_5_tokens(arch):
    X = prefix(arch).X
    width = 8 if arch == "llama" else 16  # grouped key-value heads
    assert [tuple(x.shape) for x in X.values()] == [(5, width)] * 4
    assert all(".prefix." in name for name in X)


@pytest.mark.parametrize("arch", ALL)
def test_drawn_words_are_in_the_vocabulary_and_not_special(arch):
    drawn = draw_words(loaded(arch), Draws(0), "prefix_words", 500).tolist()
    assert set(drawn) == set(range(3, VOCAB))


def test_random_initial_values_are_standard_normal():
    X = prefix("opt", tokens=500, init="random").X
    for x in X.values():
        assert float(x.detach().mean()) == pytest.approx(0, abs=0.05)
        assert float(x.detach().std()) == pytest.approx(1, abs=0.05)
    keys, values, *_ = X.values()
    assert not torch.equal(keys, values)


@pytest.mark.parametrize("arch", CAUSAL)
def test_generated_text_depends_neither_on_padding_nor_on_other_rows(arch):
    this = prefix(arch)
    tokens, scores = generated(this, rows((7, 4), left=True))
    alone = {key: x[1:, 3:] for key, x in rows((7, 4), left=True).items()}
    expected, expected_scores = generated(this, alone)
    assert torch.equal(tokens[1:], expected)
    torch.testing.assert_close(scores[1:], expected_scores)
    # The scores also equal the logits of the whole row, computed without a cache.
    row = torch.cat([alone["input_ids"], expected], dim=1)
    whole = logits(this, input_ids=row, attention_mask=torch.ones_like(row))
    torch.testing.assert_close(whole[:, 3:-1].float(), expected_scores)


@pytest.mark.parametrize("arch", CAUSAL)
def test_options_behind_one_prompt_score_as_if_alone(arch):
    this = prefix(arch)
    assert this.supports_packed_rows
    assert supports_packed_rows(this.model)
    prompt, options = [3, 4, 5], [[6, 7], [8, 9, 10]]
    row = torch.tensor([prompt + options[0] + options[1]])
    block = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    seen = ((block == 0) | (block == block[:, None])).tril()
    mask = torch.zeros(8, 8, dtype=torch.float64)
    mask = mask.masked_fill(~seen, torch.finfo(torch.float64).min)[None, None]
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 5]])
    packed = logits(this, input_ids=row, attention_mask=mask, position_ids=positions)[0]
    for option, here in zip(options, (slice(3, 5), slice(5, 8)), strict=True):
        alone = torch.tensor([prompt + option])
        expected = logits(this, input_ids=alone, attention_mask=torch.ones_like(alone))[0, 3:]
        torch.testing.assert_close(packed[here], expected)


def test_rows_without_a_mask_are_causal():
    this = prefix("opt")
    inputs = rows((7,))
    expected = logits(this, **inputs)
    torch.testing.assert_close(logits(this, input_ids=inputs["input_ids"]), expected)


def test_eager_attention_is_refused():
    model = loaded("opt")
    model.model.set_attn_implementation("eager")
    with pytest.raises(UserError, match=r"^tuning=prefix: opt computes attention as 'eager'; only"):
        Prefix(tokens=5).tune(model, Draws(0))


def test_a_model_that_ignores_transformers_attention_interface_is_refused(monkeypatch):
    model = loaded("opt")
    monkeypatch.setattr(model.model, "set_attn_implementation", lambda _: None)
    with pytest.raises(UserError, match=r"^tuning=prefix: OPTForCausalLM computes attention with"):
        Prefix(tokens=5).tune(model, Draws(0))
