"""The features of a linear probe are the output layer's inputs that predict the answer."""

from __future__ import annotations

import torch
from test_options import AT_THE_MASK, LABEL_IDS, SEVERAL_TOKENS, make

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.collate import collate
from lozo_bench.objectives.features import answer_features


@torch.no_grad()
def test_a_causal_model_gives_features_for_each_token_of_the_right_option():
    model = make("opt")
    examples = [example.only_gold() for example in SEVERAL_TOKENS]
    layout = BatchLayout(1, scoring=ScoringOptions(share_prompt=False))
    features, tokens = answer_features(model, collate(examples, layout))
    at = 0
    for example in examples:
        row = torch.tensor([example.rows[0]])
        hidden = model.model(row).last_hidden_state[0]
        for position in example.answer[0]:
            assert int(tokens[at]) == example.rows[0][position]
            torch.testing.assert_close(features[at], hidden[position - 1], rtol=1e-10, atol=1e-12)
            at += 1
    assert at == len(tokens) == len(features)


@torch.no_grad()
def test_a_masked_model_gives_features_at_the_mask_for_the_label_word():
    model = make("roberta")
    features, tokens = answer_features(model, collate(AT_THE_MASK, BatchLayout(1, LABEL_IDS)))
    assert tokens.tolist() == [LABEL_IDS[example.label] for example in AT_THE_MASK]
    decoder = model.lm_head.decoder
    for i, example in enumerate(AT_THE_MASK):
        logits = model(torch.tensor([example.rows[0]])).logits[0, example.answer[0][0]]
        got = features[i] @ decoder.weight.T + decoder.bias
        torch.testing.assert_close(got, logits, rtol=1e-10, atol=1e-12)
