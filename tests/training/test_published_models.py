"""Acceptance tests of the protocol on the models it was published with.

They ask the hub, and the last two want its weights: set LOZO_HUB=1.
"""

from __future__ import annotations

import cells
import pytest
import torch
from transformers import AutoTokenizer

from lozo_bench.models.tokenizer import load_tokenizer
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.causal import CausalPrompt
from lozo_bench.training.run import run

pytestmark = pytest.mark.hub
SST2 = "{sentence:strip} It was"


def encoded(tokenizer, options):
    prompt = CausalPrompt(tokenizer, SST2, options)
    return prompt.encode(Example({"sentence": "a fine film"}, 1))


def test_a7_rows_of_opt_begin_as_published_or_as_opt_has_it():
    published = load_tokenizer("facebook/opt-125m", "<s>")
    native = AutoTokenizer.from_pretrained("facebook/opt-125m")
    options = [" terrible", " great"]
    assert encoded(published, options).rows[0][0] == 0
    assert encoded(native, options).rows[0][0] == 2


def test_a9_the_options_of_yes_no_tasks_and_of_sst2_are_single_tokens_of_opt():
    tokenizer = load_tokenizer("facebook/opt-125m", "<s>")
    for options in ([" terrible", " great"], ["Yes", "No"]):
        prompt = CausalPrompt(tokenizer, "{sentence}\n" if options[0] == "Yes" else SST2, options)
        row = prompt.encode(Example({"sentence": "a fine film"}, 1))
        assert [len(answer) for answer in row.answer] == [1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="OPT-13B wants a GPU of 26 GB")
def test_a12_opt_13b_answers_sst2_as_well_as_published(tmp_path):
    assert zero_shot(tmp_path, "model=opt_13b", "task=sst2") == pytest.approx(0.588, abs=0.03)


def test_a13_roberta_large_answers_sst2_as_well_as_published(tmp_path):
    """That its decoder is loaded, and not random, is what makes it 79.0 and not 50."""
    found = zero_shot(tmp_path, "model=roberta_large", "task=sst2_kshot")
    assert found == pytest.approx(0.79, abs=0.02)


def zero_shot(folder, *overrides):
    """Test accuracy without training."""
    result = run(cells.composed(*overrides, "optimizer=zero_shot", "tracking=files"), folder)
    return result["metrics"]["test"]["accuracy"]
