"""Deep prompts are compared with plain models whose rows have the placeholders in them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_models import ALL, CAUSAL, classifier, generated, loaded, logits, rows
from torch import nn

from lozo_bench.engine.fold import Folder
from lozo_bench.engine.fused import Fused
from lozo_bench.engine.protocol import MicroBatch
from lozo_bench.engine.subspace import Coordinates, Subspace, along, stacked
from lozo_bench.errors import UserError
from lozo_bench.models.capabilities import supports_packed_rows
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import layer_stack
from lozo_bench.tuning.deep_prompt import DeepPrompt, LayerPrompt, placeholders

TOKENS, EXACT = 5, {"rtol": 0, "atol": 1e-10}
INSERTED = [3, 4, 5, 6, 8, 7, 7]  # placeholders, and a separator of two tokens


@pytest.fixture(autouse=True)
def first_placeholder(monkeypatch):
    monkeypatch.setattr("lozo_bench.tuning.deep_prompt.FIRST_PLACEHOLDER", 3)


def prompted(arch, layers="all", model=None, scale=0.0):
    """Return a model with deep prompts, whose values are normal times ``scale``."""
    model = model or with_special(loaded(arch))
    this = DeepPrompt(tokens=TOKENS, layers=layers, separator=" . .").tune(model, Draws(0))
    with torch.no_grad():
        for name, x in this.X.items():
            z = Draws(1).normal("p", 0, {name: tuple(x.shape)}, dtype=x.dtype)[name]
            x += scale * z
    return this


def with_special(model):
    """Make the token 7 a special one, which is no placeholder."""
    words = type(model.tokenizer)()
    words.all_special_ids = (0, 1, 2, 7)
    return dataclasses.replace(model, tokenizer=words)


def longer(inputs, arch):
    """Insert placeholders into rows without padding on the left."""
    at = int(arch == "roberta")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    new = torch.tensor(INSERTED).expand(len(ids), -1)
    return {
        "input_ids": torch.cat([ids[:, :at], new, ids[:, at:]], dim=1),
        "attention_mask": torch.cat([mask[:, :at], torch.ones_like(new), mask[:, at:]], dim=1),
    }


def by_hand(arch, X, inputs):
    """Return the logits of a plain model to whose layers' inputs the prompts are added."""
    model = loaded(arch).model
    at = int(arch == "roberta")

    def add(p):
        def hook(layer, args):
            hidden = args[0].clone()
            hidden[:, at : at + TOKENS] += p.view(TOKENS, -1)
            return (hidden, *args[1:])

        return hook

    for layer, p in zip(layer_stack(model, ""), X.values(), strict=False):
        layer.register_forward_pre_hook(add(p))
    return model(**longer(inputs, arch)).logits


@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize("layers", ["first", "all"])
def test_zero_prompts_are_the_plain_model_on_rows_with_the_placeholders(arch, layers):
    this = prompted(arch, layers)
    expected = loaded(arch).model(**longer(rows(), arch)).logits
    torch.testing.assert_close(logits(this, **rows()), expected, **EXACT)


@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize("layers", ["first", "all"])
def test_a_prompt_is_added_to_what_its_layer_reads(arch, layers):
    this = prompted(arch, layers, scale=0.5)
    assert [tuple(x.shape) for x in this.X.values()] == [(1, TOKENS * 16)] * (1 + (layers == "all"))
    expected = by_hand(arch, this.X, rows())
    torch.testing.assert_close(logits(this, **rows()), expected, **EXACT)
    assert not torch.allclose(expected, logits(prompted(arch, layers), **rows()))


@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize("left", [False, True])
def test_padding_on_either_side_changes_nothing(arch, left):
    this = prompted(arch, scale=0.5)
    padded = rows((7, 4), left=left)
    here = padded["attention_mask"][1] == 1
    short = {key: x[1:, here] for key, x in padded.items()}
    # Llama's and GPT-2's own positions count padding on the left, unless they are given.
    positions = {}
    if left and arch in ("llama", "gpt2"):
        positions["position_ids"] = (padded["attention_mask"].cumsum(1) - 1).clamp(min=0)
    long, alone = logits(this, **padded, **positions)[1], logits(this, **short)[0]
    new = len(INSERTED)
    torch.testing.assert_close(long[new:][here][1:], alone[new + 1 :], **EXACT)
    if arch == "roberta":  # the first token stays in front
        torch.testing.assert_close(long[: new + 1], alone[: new + 1], **EXACT)


@pytest.mark.parametrize("arch", CAUSAL)
def test_generated_text_depends_neither_on_padding_nor_on_other_rows(arch):
    this = prompted(arch, scale=0.5)
    tokens, scores = generated(this, rows((7, 4), left=True))
    alone = {key: x[1:, 3:] for key, x in rows((7, 4), left=True).items()}
    expected, expected_scores = generated(this, alone)
    assert torch.equal(tokens[1:], expected)
    torch.testing.assert_close(scores[1:], expected_scores)
    # The first token's scores equal those of a whole row without a cache.
    torch.testing.assert_close(expected_scores[:, 0], by_hand(arch, this.X, alone)[:, -1].float())
    again = torch.cat([alone["input_ids"], expected[:, :3]], dim=1)
    inputs = {"input_ids": again, "attention_mask": torch.ones_like(again)}
    torch.testing.assert_close(expected_scores[:, 3], by_hand(arch, this.X, inputs)[:, -1].float())


@pytest.mark.parametrize("arch", CAUSAL)
def test_options_behind_one_row_score_as_if_alone(arch):
    this = prompted(arch, scale=0.5)
    assert this.supports_packed_rows
    assert supports_packed_rows(this.model)
    shown, options = [3, 4, 5], [[6, 7], [8, 9, 10]]
    row = torch.tensor([shown + options[0] + options[1]])
    block = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    mask = ((block == 0) | (block == block[:, None])).tril()[None, None]
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 5]])
    new = len(INSERTED)
    packed = logits(this, input_ids=row, attention_mask=mask, position_ids=positions)[0, new:]
    for option, here in zip(options, (slice(3, 5), slice(5, 8)), strict=True):
        alone = torch.tensor([shown + option])
        expected = logits(this, input_ids=alone, attention_mask=torch.ones_like(alone))
        torch.testing.assert_close(packed[here], expected[0, new + 3 :])


@pytest.mark.parametrize("arch", ALL)
def test_a_stacked_population_equals_its_candidates_one_by_one(arch):
    this, K = prompted(arch, scale=0.5), 20
    inputs, no_cache = rows(), {} if arch == "roberta" else {"use_cache": False}

    def losses(copies):
        copied = {key: x.repeat(copies, 1) for key, x in inputs.items()}
        read = logits(this, **copied, **no_cache)[:, -7:].logsumexp(-1)  # [copies * 2, 7]
        return (read * copied["attention_mask"]).sum(1).view(copies, 2)

    engine = Fused(this.model, this.X, Folder("nearest", Draws(0)), per_forward=K)
    below, name = this.X
    n = this.X[name].numel()
    V = Draws(2).normal("V", 0, {name: (n, K), below: (n, 1)}, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    # Another layer's incumbent stays beside its prompt while this layer is searched.
    incumbent = Coordinates(one, torch.empty(0, dtype=torch.float64))
    engine.set_adapter(Subspace({below: one}, {below: V[below]}, {}), incumbent)
    P = Subspace({name: one.expand(1, K)}, {name: V[name]}, {})
    cores = torch.diag_embed(torch.eye(K, dtype=torch.float64))
    candidates = Coordinates(cores, torch.empty(K, 0, dtype=torch.float64))
    found = engine.losses(P, candidates, [MicroBatch(2, 14, losses)])
    for k in range(K):
        X = {below: this.X[below] + V[below].T, name: this.X[name] + V[name][:, k]}
        read = by_hand(arch, X, inputs)[:, -7:].logsumexp(-1)
        expected = (read * inputs["attention_mask"]).sum(1)
        torch.testing.assert_close(found[k], expected.detach(), **EXACT)
    # The layer below the searched one runs once, for one copy of the rows.
    seen = []
    for layer in layer_stack(this.model, ""):
        count_rows(next(layer.children()), seen)
    assert torch.equal(engine.losses(P, candidates, [MicroBatch(2, 14, losses)]), found)
    assert seen == [2, 2 * K]


def test_stacked_losses_may_differ_as_the_models_dtype_rounds():
    """Prompts are float32 beside weights in half precision, which decide what rounding is."""
    this = prompted("opt", "first", with_special(loaded("opt", torch.bfloat16)))
    engine = Fused(this.model, this.X, Folder("nearest", Draws(0)), per_forward=2)
    (name,) = this.X
    P = Subspace({name: torch.ones(1, 1)}, {name: torch.ones(this.X[name].numel(), 1)}, {})

    def losses(copies):
        return torch.full((copies, 2), 1.0 if copies == 1 else 1.001)

    found = engine.losses(P, stacked([along(P, c) for c in (1, -1)]), [MicroBatch(2, 14, losses)])
    assert found.tolist() == [[pytest.approx(1.001)] * 2] * 2


def count_rows(module, seen):
    def before(module, args, options):
        seen.append(len(args[0] if args else options["hidden_states"]))

    module.register_forward_pre_hook(before, with_kwargs=True)


@pytest.mark.parametrize("arch", ["opt", "roberta"])
def test_a_classifier_reads_the_token_that_it_reads_without_prompts(arch):
    model = with_special(classifier(arch))
    plain = model.model
    inputs = rows()
    expected = plain(**longer(inputs, "roberta")).logits
    torch.testing.assert_close(logits(prompted(arch, model=model), **inputs), expected, **EXACT)


class Tokenizer:
    all_special_ids = (0, 1, 2, 3)

    def __init__(self, words):
        self.words = words

    def __len__(self):
        return self.words


def test_what_a_layer_reads_may_come_from_another_device():
    prompt = LayerPrompt(2, 4, torch.zeros(1, device="meta"))
    assert prompt.added_to(torch.zeros(3, 5, 4), 1).device.type == "meta"


def test_placeholders_are_those_released_or_ordinary_words(monkeypatch):
    monkeypatch.setattr("lozo_bench.tuning.deep_prompt.FIRST_PLACEHOLDER", 1000)
    base = loaded("opt")
    large, small = (dataclasses.replace(base, tokenizer=Tokenizer(n)) for n in (50265, 7))
    assert placeholders(large, 50) == list(range(1000, 1050))
    assert placeholders(small, 5) == [4, 5, 6, 4, 5]


def test_a_model_without_a_list_of_its_layers_is_refused():
    base = with_special(loaded("gpt2"))
    base.model.transformer.h = nn.ModuleList(list(base.model.transformer.h)[:1])
    with pytest.raises(UserError, match=r"^tuning=deep_prompt: GPT2LMHeadModel keeps no list of"):
        prompted("gpt2", model=base)
