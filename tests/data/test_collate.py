"""Padding, and the positions at which tokens are predicted."""

from __future__ import annotations

from lozo_bench.data.batch import BatchLayout, ScoringOptions
from lozo_bench.data.collate import collate
from lozo_bench.tasks.base import Encoded

TWO_OPTIONS = Encoded(rows=((2, 7, 8), (2, 7, 9, 6)), answer=((2,), (2, 3)), label=1)
SHORT = Encoded(rows=((2, 8), (2, 9)), answer=((1,), (1,)), label=0)
MASKED = Encoded(rows=((2, 8, 4, 3),), answer=((2,),), label=1)
SHARED = BatchLayout(pad_id=1)
ROW_BY_ROW = BatchLayout(pad_id=1, scoring=ScoringOptions(share_prompt=False))


def test_each_option_has_a_row_that_is_padded_on_the_right():
    batch = collate([TWO_OPTIONS, SHORT], ROW_BY_ROW)
    assert batch.input_ids.tolist() == [[2, 7, 8, 1], [2, 7, 9, 6], [2, 8, 1, 1], [2, 9, 1, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1] * 4, [1, 1, 0, 0], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [1, 0]
    assert (batch.size, batch.options, batch.tokens) == (2, 2, 3 + 4 + 2 + 2)
    assert batch.block is None


def test_a_token_is_predicted_at_the_position_before_it():
    batch = collate([TWO_OPTIONS, SHORT], ROW_BY_ROW)
    assert batch.read.tolist() == [[1, 5, 6], [8, 12, 8]]  # rows of 4; the last fills up
    assert batch.at.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert batch.token.tolist() == [[8, 9, 6], [8, 9, 0]]
    assert batch.option.tolist() == [[0, 1, 1], [0, 1, 2]]
    assert not batch.single_position


def test_options_behind_one_prompt_omit_their_last_tokens():
    batch = collate([TWO_OPTIONS, SHORT], SHARED)
    assert batch.input_ids.tolist() == [[2, 7, 9], [2, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.block.tolist() == [[0, 0, 2], [0, -1, -1]]
    assert batch.read.tolist() == [[1, 2], [3, 3]]
    assert batch.at.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch.token.tolist() == [[8, 9, 6], [8, 9, 0]]
    assert batch.tokens == 3 + 1


def test_single_tokens_behind_one_prompt_are_predicted_at_its_end():
    batch = collate([SHORT, SHORT], SHARED)
    assert batch.input_ids.tolist() == [[2], [2]]
    assert batch.read.tolist() == [[0], [1]]
    assert batch.token.tolist() == [[8, 9], [8, 9]]
    assert batch.single_position
    assert batch.block is None


def test_without_a_common_prompt_or_own_masks_each_option_has_a_row():
    different = Encoded(rows=((2, 7, 8), (3, 7, 9)), answer=((2,), (2,)), label=0)
    assert len(collate([SHORT, different], SHARED).input_ids) == 4
    unpacked = BatchLayout(pad_id=1, packed=False)
    assert len(collate([TWO_OPTIONS], unpacked).input_ids) == 2
    assert len(collate([SHORT], unpacked).input_ids) == 1


def test_label_words_are_predicted_at_the_mask_token():
    batch = collate([MASKED], BatchLayout(pad_id=1, label_ids=(5, 6, 9)))
    assert batch.read.tolist() == [[2]]
    assert batch.token.tolist() == [[5, 6, 9]]
    assert batch.option.tolist() == [[0, 1, 2]]
    assert (batch.single_position, batch.options) == (True, 3)
