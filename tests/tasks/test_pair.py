from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tasks.word_tokens import causal_words, masked_words, row_of

from lozo_bench.errors import UserError
from lozo_bench.tasks.base import Encoded, Example
from lozo_bench.tasks.pair import PairPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = "a b c d Ġa Ġb Ġc Ġd ."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return masked_words([WORDS])


def test_one_text_gets_the_special_tokens_of_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    encoded = PairPrompt(tokenizer, 2, 512).encode(Example({"sentence": "a b."}, 1))
    assert row_of(tokenizer, encoded) == "<s> a Ġb . </s>"
    assert encoded == Encoded(rows=encoded.rows, answer=((0,),), label=1)


def test_two_texts_become_a_pair_of_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    row = Example({"premise": "a b.", "hypothesis": "c d"}, 2)
    encoded = PairPrompt(tokenizer, 3, 512).encode(row)
    assert row_of(tokenizer, encoded) == "<s> a Ġb . </s> </s> c Ġd </s>"
    causal = causal_words([WORDS])
    assert row_of(causal, PairPrompt(causal, 3, 512).encode(row)) == "a Ġb . c Ġd"


def test_texts_are_made_of_any_of_the_fields(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = PairPrompt(tokenizer, 2, 512, ["{x:no_final_period} {y}", "{x:no_final_period} {z}"])
    encoded = prompt.encode(Example({"x": "a b.", "y": "c", "z": "d"}, 1))
    assert row_of(tokenizer, encoded) == "<s> a Ġb Ġc </s> </s> a Ġb Ġd </s>"


def test_long_pair_is_cut_at_the_end_of_its_longer_text(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = PairPrompt(tokenizer, 2, 9).encode(Example({"one": "a b c d a b", "two": "c d"}))
    assert row_of(tokenizer, encoded) == "<s> a Ġb Ġc </s> </s> c Ġd </s>"
    assert encoded.cut
    assert not PairPrompt(tokenizer, 2, 9).encode(Example({"one": "a b c", "two": "c d"})).cut


def test_label_ids_are_the_class_numbers(tokenizer: PreTrainedTokenizerFast) -> None:
    assert PairPrompt(tokenizer, 4, 512).label_ids == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (Example({"s": "a"}, 2, "dev:3"), "dev:3: there is no class 2; the head has 2 classes"),
        (Example({"s": "a"}, 0, "dev:3", options=("x", "y")), "dev:3: there is no class"),
        (
            Example({"x": "a", "y": "b", "z": "c"}, 0, "dev:3"),
            r"dev:3: the row has 3 fields \(x, y, z\)",
        ),
    ],
)
def test_row_that_a_classifier_head_cannot_read_is_refused(
    tokenizer: PreTrainedTokenizerFast, row: Example, problem: str
) -> None:
    with pytest.raises(UserError, match=f"^{problem}"):
        PairPrompt(tokenizer, 2, 512).encode(row)


def test_demonstrations_and_values_out_of_range_are_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    row = Example({"s": "a"})
    with pytest.raises(UserError, match=r"^model\.kind=classifier: .* cannot show demonstrations"):
        PairPrompt(tokenizer, 2, 512).encode(row, [row])
    with pytest.raises(UserError, match=r"^task\.max_length: given 5; allowed: .* >= 6"):
        PairPrompt(tokenizer, 2, 5)
    with pytest.raises(
        UserError, match=r"^task\.source\.labels: given 1; allowed: two or more classes"
    ):
        PairPrompt(tokenizer, 1, 512)
