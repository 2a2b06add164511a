"""Generated answers: where they end, and that other rows in the batch do not change them."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    GenerationConfig,
    RobertaConfig,
    RobertaForCausalLM,
)

from lozo_bench.config.schema import Kind, ModelConfig
from lozo_bench.engine import Draws, Folder, Fused
from lozo_bench.engine.subspace import along, stacked
from lozo_bench.errors import UserError
from lozo_bench.models.load import load
from lozo_bench.objectives.generation import GenerationObjective, Generator
from lozo_bench.optimizers.low_rank import LowRankDirections
from lozo_bench.tasks.base import Encoded

PROMPTS = ("The film was", "In the end the whole family loved the", "A very old song that")


@pytest.fixture(scope="module")
def loaded():
    model = ModelConfig(name="tiny_opt", path="embedded:tiny_opt", kind=Kind.causal, device="cpu")
    return load(model)


def generator(loaded, max_new_tokens=12):
    return Generator(loaded.model, loaded.tokenizer, max_new_tokens, loaded.device)


def prompts(loaded):
    return [tuple(loaded.tokenizer(text)["input_ids"]) for text in PROMPTS]


def by_hand(loaded, prompt, most):
    """Generate greedily, token by token, without padding or a cache."""
    new_line = loaded.tokenizer.encode("\n", add_special_tokens=False)[-1]
    row = list(prompt)
    while len(row) < len(prompt) + most:
        with torch.no_grad():
            row.append(int(loaded.model(torch.tensor([row])).logits[0, -1].argmax()))
        if row[-1] in (new_line, loaded.tokenizer.eos_token_id):
            break
    return loaded.tokenizer.decode(row[len(prompt) :], skip_special_tokens=True).strip()


def test_answers_generated_together_equal_those_generated_one_by_one(loaded):
    wanted = [by_hand(loaded, prompt, 12) for prompt in prompts(loaded)]
    assert generator(loaded)(prompts(loaded)) == wanted
    assert generator(loaded)(prompts(loaded)[::-1]) == wanted[::-1]
    assert all(wanted)


def test_an_answer_ends_at_a_new_line_or_the_end_token(loaded):
    made = generator(loaded)
    new_line = loaded.tokenizer.encode("\n", add_special_tokens=False)[-1]
    assert made.how.eos_token_id == [new_line, loaded.tokenizer.eos_token_id]
    long = made(prompts(loaded)[:1])[0]
    # If the third token is made a stop token, the answer ends there.
    ids = loaded.tokenizer.encode(" " + long, add_special_tokens=False)
    made.how.eos_token_id = [ids[2]]
    first = made(prompts(loaded)[:1])[0]
    assert first == loaded.tokenizer.decode(ids[: ids.index(ids[2]) + 1]).strip()


def test_an_end_token_whose_id_is_0_ends_an_answer_too(loaded):
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(0)
    made = Generator(loaded.model, tokenizer, 12, loaded.device)
    assert made.how.eos_token_id[1:] == [0]


def test_an_ordinary_word_that_pads_is_no_part_of_an_answer(loaded):
    """Padding follows an answer that ends before the longest one of its batch."""
    both = prompts(loaded)[:2]
    words = loaded.tokenizer.encode(" " + generator(loaded)(both)[0], add_special_tokens=False)
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(300)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(words[2])
    made = Generator(loaded.model, tokenizer, 12, loaded.device)
    first, second = made(both)
    assert first == loaded.tokenizer.decode(words[: words.index(words[2])]).strip()
    assert len(second) > len(first)


def test_a_checkpoints_generation_config_changes_no_answer(loaded, monkeypatch):
    wanted = generator(loaded)(prompts(loaded))
    own = GenerationConfig(repetition_penalty=5.0, min_new_tokens=12, do_sample=True)
    monkeypatch.setattr(loaded.model, "generation_config", own)
    assert generator(loaded)(prompts(loaded)) == wanted
    assert loaded.model.generation_config is own


def test_the_metric_of_candidates_does_not_depend_on_how_many_share_a_pass(loaded):
    """A metric is the loss of two candidates, evaluated in one pass and one by one."""
    X = dict(loaded.model.named_parameters())
    UV = LowRankDirections(X, Draws(3), rank=2, nu=5).draw(0)
    candidates = stacked([along(UV, +0.05), along(UV, -0.05)])
    rows = [Encoded(((5,),), ((0,),), 0, prompt=p, answers=("x",)) for p in prompts(loaded)]
    texts = []

    def metric(text, golds):
        texts.append(text)
        return len(text) / 100

    part = GenerationObjective(generator(loaded, 6), metric).prepare(rows, None).micro_batch
    found = []
    for per_forward in (1, 2):
        engine = Fused(loaded.model, X, Folder("nearest", Draws(0)), per_forward=per_forward)
        found.append(engine.losses(UV, candidates, [part]))
    assert torch.equal(found[0], found[1])
    assert len(set(texts)) > 3  # the two candidates generate different texts


SIZE = {"vocab_size": 1280, "max_position_embeddings": 40, "pad_token_id": 1}


def made(cls, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(config).eval()
        for x in model.parameters():
            torch.nn.init.normal_(x, std=0.5)
    return model


def test_a_model_without_explicit_positions_writes_the_same_alone_and_with_longer_prompts(loaded):
    """Padding in front would shift the positions, so prompts of one length go together."""
    config = BartConfig(
        **SIZE, d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16,
        is_decoder=True, is_encoder_decoder=False,
    )  # fmt: skip
    own = dataclasses.replace(loaded, model=made(BartForCausalLM, config))
    four = [*prompts(own), prompts(own)[0]]
    wanted = [by_hand(own, prompt, 6) for prompt in four]
    made_by = generator(own, 6)
    assert not made_by.may_pad
    assert made_by(four) == wanted
    assert generator(loaded).may_pad


def test_a_model_that_transformers_gives_other_positions_is_refused(loaded):
    config = RobertaConfig(
        **SIZE, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        is_decoder=True,
    )  # fmt: skip
    own = dataclasses.replace(loaded, model=made(RobertaForCausalLM, config))
    with pytest.raises(UserError, match=r"^task\.answer: .* RobertaForCausalLM \(it gives"):
        generator(own)
