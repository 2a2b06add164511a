"""Shortcuts are compared with their formulas, written by hand for each kind of block."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_models import loaded, logits, rows
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    GPTNeoXConfig,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
)

from lozo_bench.errors import UserError
from lozo_bench.models.checkpointing import checkpoint_layers
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.shortcuts import Shortcuts

TARGETS = r"\.(q_proj|v_proj|query|value|c_attn)$"
POST_NORM = ["opt_post", "roberta", "bert"]
PRE_NORM = ["opt", "llama", "gpt2", "gemma2", "qwen3"]
SIZES = {"vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
SIZES |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
LLAMA_LIKE = {"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 16}
CONFIGS = {
    "opt_post": OPTConfig(
        **SIZES, ffn_dim=32, word_embed_proj_dim=8, do_layer_norm_before=False, dropout=0.0
    ),
    "bert": BertConfig(**SIZES, intermediate_size=32),
    "gemma2": Gemma2Config(**SIZES | LLAMA_LIKE),
    "qwen3": Qwen3Config(**SIZES | LLAMA_LIKE),
    "neox": GPTNeoXConfig(**SIZES, intermediate_size=32),
}


def plain(arch):
    """Make a model with random weights, its norms included."""
    if arch not in CONFIGS:
        return loaded(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CONFIGS[arch]
        classes = {"bert": BertForMaskedLM, "opt_post": OPTForCausalLM}
        make = classes.get(arch, AutoModelForCausalLM.from_config)
        model = make(config)
        for name, x in model.named_parameters():
            scale = x.ndim == 1 and name.endswith("weight")
            torch.nn.init.normal_(x, mean=float(scale), std=0.3)
    return dataclasses.replace(loaded("opt"), model=model.double().eval())


def tuned(arch, B=True, model=None, **options):
    """Make a model with shortcuts whose B are random unless ``B`` is false."""
    options = {"r": 3, "alpha": 6.0, "targets": TARGETS, **options}
    this = Shortcuts(**options).tune(model or plain(arch), Draws(0))
    if B:
        for name, x in this.X.items():
            if "lora_B" in name:
                x.data = Draws(1).normal("B", 0, {name: tuple(x.shape)}, dtype=x.dtype)[name]
    return this


def branches(arch, layer, options):
    """Return attention, feed-forward and the two norms of a block."""
    if arch.startswith("opt"):
        ffn = lambda x: layer.fc2(layer.activation_fn(layer.fc1(x)))  # noqa: E731
        norms = layer.self_attn_layer_norm, layer.final_layer_norm
    elif arch == "llama":
        ffn, norms = layer.mlp, (layer.input_layernorm, layer.post_attention_layernorm)
    else:
        inner, mask = layer.attention, options["attention_mask"]
        attention = lambda x: inner.output.dense(inner.self(x, mask)[0])  # noqa: E731
        ffn = lambda x: layer.output.dense(layer.intermediate(x))  # noqa: E731
        return attention, ffn, inner.output.LayerNorm, layer.output.LayerNorm
    return lambda x: layer.self_attn(hidden_states=x, **options)[0], ffn, *norms


def by_hand(arch, this, norm):
    """Return the plain model with the shortcuts of ``this`` in its blocks, by the formulas."""
    model = plain(arch).model
    layers = next(x for x in model.modules() if isinstance(x, torch.nn.ModuleList))
    modules = {(m.layer, m.group): m for m in this.gates.modules if m.is_shortcut}
    seen = []

    def forward_of(number, layer):
        def D(kind, x):
            m = modules[number, kind]
            return F.linear(F.linear(x, m.A), m.B) * m.scaling

        def forward(h, *args, **options):
            if args:  # BERT and RoBERTa give the mask by position
                options["attention_mask"] = args[0]
            SA, FFN, N1, N2 = branches(arch, layer, options)
            cut = D("s_cut", seen[-1]) if number else 0
            if arch in PRE_NORM:
                v = h + SA(N1(h)) + D("s_res1", h) + cut
                out = v + FFN(N2(v)) + D("s_res2", v) + D("s_in", h)
            elif norm == "pre":
                v = N1(h + SA(h) + D("s_res1", h) + cut)
                out = N2(v + FFN(v) + D("s_res2", v) + D("s_in", h))
            else:
                v = N1(h + SA(h) + D("s_res1", h))
                v = N1(v + cut) if number else v
                out = N2(N2(v + FFN(v) + D("s_res2", v)) + D("s_in", h))
            seen.append(v)
            return out

        return forward

    for number, layer in enumerate(layers):
        layer.forward = forward_of(number, layer)
    return model


def only_shortcuts(this):
    this.gates.set(torch.tensor([m.is_shortcut for m in this.gates.modules]))
    return this


@pytest.mark.parametrize("arch", POST_NORM + PRE_NORM)
def test_the_start_is_the_plain_model_and_so_is_every_later_model_with_all_gates_off(arch):
    expected = plain(arch).model(**rows()).logits
    assert torch.equal(logits(tuned(arch, B=False), **rows()), expected)
    later = tuned(arch)
    assert not torch.allclose(logits(later, **rows()), expected)
    later.gates.set(torch.zeros(len(later.gates.modules), dtype=torch.bool))
    assert torch.equal(logits(later, **rows()), expected)


FORMULAS = [(arch, "pre") for arch in (*POST_NORM, "opt", "llama")]
FORMULAS += [(arch, "repeat") for arch in POST_NORM]
RECOMPUTED = [("opt_post", "pre"), ("opt", "pre"), ("bert", "repeat")]


@pytest.mark.parametrize(("arch", "norm"), FORMULAS)
def test_the_logits_are_those_of_the_formulas_also_in_a_pass_under_autocast(arch, norm):
    this = only_shortcuts(tuned(arch, shortcut_norm=norm))
    expected = by_hand(arch, this, norm)
    torch.testing.assert_close(
        logits(this, **rows()), expected(**rows()).logits, rtol=1e-9, atol=1e-9
    )
    this.model.float()
    expected.float()
    with torch.autocast("cpu", torch.bfloat16):
        mine, wanted = logits(this, **rows()), expected(**rows()).logits
    torch.testing.assert_close(mine, wanted, rtol=0, atol=0)


@pytest.mark.parametrize(("arch", "norm"), RECOMPUTED)
def test_recomputing_layers_in_the_backward_pass_changes_nothing(arch, norm):
    model = plain(arch)
    checkpoint_layers(model.model)
    one, other = tuned(arch, shortcut_norm=norm), tuned(arch, model=model, shortcut_norm=norm)
    results = [logits(this, **rows(), use_cache=False) for this in (one, other)]
    assert torch.equal(*results)
    for result in results:
        result.logsumexp(-1).sum().backward()
    for name, x in one.X.items():
        assert x.grad.any(), name
        assert torch.equal(x.grad, other.X[name].grad), name


def test_repeated_norms_change_the_model_at_the_start_and_with_all_gates_off():
    this = tuned("opt_post", B=False, shortcut_norm="repeat")
    expected = plain("opt_post").model(**rows()).logits
    assert not torch.allclose(logits(this, **rows()), expected, atol=1e-2)


def test_a_shortcut_takes_2_r_d_parameters_and_no_square_matrix_is_made():
    this, width = tuned("opt_post", shortcut_r=5, shortcut_alpha=2.0), 16
    shortcuts = [m for m in this.gates.modules if m.is_shortcut]
    assert len(shortcuts) == 4 * 3 - 1
    assert {(m.size, m.rank, m.scaling) for m in shortcuts} == {(2 * 5 * width, 5, 2.0 / 5)}
    before = {name for name, _ in plain("opt_post").model.named_parameters()}
    new = [x for name, x in this.model.named_parameters() if name not in before]
    old = [m for m in this.gates.modules if not m.is_shortcut]
    names = {".base_layer." in n for n, x in this.model.named_parameters() if x.numel() == 0}
    assert names == {True}
    assert sum(x.numel() for x in new) - sum(m.peft.weight.numel() for m in old) - sum(
        m.peft.bias.numel() for m in old
    ) == sum(m.size for m in this.gates.modules)


def test_repeated_norms_of_a_pre_norm_model_are_refused():
    with pytest.raises(UserError, match=r"^tuning\.shortcut_norm: given 'repeat'; allowed: pre"):
        tuned("llama", shortcut_norm="repeat")


def test_blocks_of_another_form_are_refused():
    with pytest.raises(UserError, match=r"^tuning=shortcuts: GPTNeoXForCausalLM has blocks other"):
        tuned("neox", targets="query_key_value$")


@pytest.mark.parametrize(
    ("option", "value"), [("shortcut_r", 0), ("shortcut_alpha", 0.0), ("shortcut_norm", "post")]
)
def test_options_are_checked(option, value):
    with pytest.raises(UserError, match=rf"^{option}: given"):
        tuned("opt", **{option: value})
