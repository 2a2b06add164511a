"""Prompt tuning is compared with real words in front of each row, which it starts as."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ALL, CAUSAL, at_real_tokens, classifier, generated, loaded, logits, rows

from lozo_bench.errors import UserError
from lozo_bench.models.capabilities import supports_packed_rows
from lozo_bench.randomness.draws import Draws
from lozo_bench.tuning.base import draw_words
from lozo_bench.tuning.prompt import Prompt


def prompt(arch, tokens=10):
    return Prompt(tokens=tokens).tune(loaded(arch), Draws(0))


def words(arch, tokens=10):
    return draw_words(loaded(arch), Draws(0), "prompt_words", tokens)


@pytest.mark.parametrize("arch", ALL)
def test_at_the_start_the_logits_equal_those_with_the_words_in_front(arch):
    inputs, hard = rows(), words(arch).expand(2, -1)
    longer = {
        "input_ids": torch.cat([hard, inputs["input_ids"]], dim=1),
        "attention_mask": torch.cat([torch.ones_like(hard), inputs["attention_mask"]], dim=1),
    }
    expected = loaded(arch).model(**longer).logits
    this = prompt(arch)
    assert list(this.X) == ["soft_prompt.words"]
    torch.testing.assert_close(
        at_real_tokens(logits(this, **inputs), inputs), at_real_tokens(expected, inputs)
    )
    torch.testing.assert_close(logits(this, **inputs)[:, :10], expected[:, :10])


@pytest.mark.parametrize("arch", CAUSAL)
def test_generated_text_depends_neither_on_padding_nor_on_other_rows(arch):
    this = prompt(arch)
    tokens, scores = generated(this, rows((7, 4), left=True))
    alone = {key: x[1:, 3:] for key, x in rows((7, 4), left=True).items()}
    expected, expected_scores = generated(this, alone)
    assert torch.equal(tokens[1:], expected)
    torch.testing.assert_close(scores[1:], expected_scores)
    # The scores also equal those of the plain model with the words in front.
    row = torch.cat([words(arch)[None], alone["input_ids"]], dim=1)
    inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    torch.testing.assert_close(generated(loaded(arch), inputs)[1], expected_scores)


@pytest.mark.parametrize("arch", CAUSAL)
@pytest.mark.parametrize("kind", [torch.float64, torch.bool])
def test_options_behind_one_prompt_score_as_if_alone(arch, kind):
    this = prompt(arch)
    assert this.supports_packed_rows
    assert supports_packed_rows(this.model)
    shown, options = [3, 4, 5], [[6, 7], [8, 9, 10]]
    row = torch.tensor([shown + options[0] + options[1]])
    block = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    mask = ((block == 0) | (block == block[:, None])).tril()[None, None]
    if kind is torch.float64:
        mask = torch.zeros(mask.shape, dtype=kind).masked_fill(~mask, torch.finfo(kind).min)
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 5]])
    packed = logits(this, input_ids=row, attention_mask=mask, position_ids=positions)[0, 10:]
    for option, here in zip(options, (slice(3, 5), slice(5, 8)), strict=True):
        alone = torch.tensor([shown + option])
        expected = logits(this, input_ids=alone, attention_mask=torch.ones_like(alone))[0, 13:]
        torch.testing.assert_close(packed[here], expected)


@pytest.mark.parametrize("arch", ["opt", "roberta"])
def test_a_classifier_is_refused(arch):
    with pytest.raises(UserError, match=r"^tuning=prompt: .*ForSequenceClassification finds the"):
        Prompt(tokens=10).tune(classifier(arch), Draws(0))
