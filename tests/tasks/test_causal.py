from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerFast

from lozo_bench.errors import UserError
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.causal import CausalPrompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from lozo_bench.tasks.base import Encoded

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
REVIEW = "{sentence:strip} It was"
OPTIONS = [" terrible", " great"]


def prompt(
    tokenizer: PreTrainedTokenizerFast,
    text: str = REVIEW,
    options: list[str] = OPTIONS,
    max_length: int = 64,
) -> CausalPrompt:
    return CausalPrompt(tokenizer, text, options, max_length)


def review(text: str, label: int = 1) -> Example:
    return Example({"sentence": text}, label, where="dev.tsv:5")


def tokens(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> list[tuple[str, str]]:
    """Each row's tokens and its answer's tokens, parted by spaces."""
    named = []
    for row, answer in zip(encoded.rows, encoded.answer, strict=True):
        names = list(tokenizer.convert_ids_to_tokens(list(row)))
        named.append((" ".join(names), " ".join(names[position] for position in answer)))
    return named


def test_mezos_sst2_gives_a_row_per_option_with_the_option_as_answer(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    node = OmegaConf.load(CONF / "sst2.yaml")
    made = CausalPrompt(opt_like, node.prompt, list(node.options), node.max_length)
    encoded = made.encode(review("well worth revisiting as many times "))
    start = "<s> well Ġworth Ġrevisiting Ġas Ġmany Ġtimes ĠIt Ġwas"
    assert tokens(opt_like, encoded) == [
        (f"{start} Ġterrible", "Ġterrible"),
        (f"{start} Ġgreat", "Ġgreat"),
    ]
    assert encoded.answer == ((9,), (9,))
    assert encoded.label == 1


def test_an_option_of_many_tokens_is_found_whole(opt_like: PreTrainedTokenizerFast) -> None:
    encoded = prompt(opt_like, options=[" great", " terrible bad"]).encode(review("well"))
    assert tokens(opt_like, encoded)[1] == (
        "<s> well ĠIt Ġwas Ġterrible Ġbad",
        "Ġterrible Ġbad",
    )
    assert encoded.answer == ((4,), (4, 5))


def test_a_newline_at_the_prompts_end_survives(opt_like: PreTrainedTokenizerFast) -> None:
    # strip(" "), not strip(): after a newline the option has no space in front
    made = prompt(opt_like, "  \n {sentence} ? \n", ["Yes", "No"])
    encoded = made.encode(review("well worth"))
    # Ċ is the newline
    assert tokens(opt_like, encoded)[1] == ("<s> well Ġworth Ġ? Ġ Ċ N o", "N o")


def test_spaces_are_stripped_and_other_white_space_only_in_front(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    made = prompt(opt_like, " \n {sentence} It", [" Yes\n", " No  "])
    encoded = made.encode(review("well"))
    assert tokens(opt_like, encoded) == [
        ("<s> well ĠIt ĠYes Ċ", "ĠYes Ċ"),
        ("<s> well ĠIt ĠNo", "ĠNo"),
    ]


def test_a_field_is_stripped_only_where_the_prompt_says_so(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    row, _ = tokens(opt_like, prompt(opt_like, "{sentence} It").encode(review("well ")))[0]
    assert row == "<s> well Ġ ĠIt Ġterrible"


def test_a_token_across_the_boundary_belongs_to_the_option(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    # "It was gr" + "eat" is one token " great", which the prompt alone does not have
    encoded = prompt(opt_like, "{sentence} It was gr", ["eat", "ow"]).encode(review("well"))
    assert tokens(opt_like, encoded)[0] == ("<s> well ĠIt Ġwas Ġgreat", "Ġgreat")


def test_a_row_too_long_loses_its_left_but_keeps_the_bos(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    encoded = prompt(opt_like, max_length=5).encode(review("well worth revisiting as many times"))
    assert tokens(opt_like, encoded) == [
        ("<s> Ġtimes ĠIt Ġwas Ġterrible", "Ġterrible"),
        ("<s> Ġtimes ĠIt Ġwas Ġgreat", "Ġgreat"),
    ]
    assert encoded.answer == ((4,), (4,))


def test_without_a_bos_the_left_goes_entirely(roberta_like: PreTrainedTokenizerFast) -> None:
    encoded = prompt(roberta_like, max_length=3).encode(review("well worth"))
    assert tokens(roberta_like, encoded)[0] == ("ĠIt Ġwas Ġterrible", "Ġterrible")


def test_an_option_that_just_fits_is_kept_and_one_more_token_is_refused(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    options = [" great", " terrible bad"]
    encoded = prompt(opt_like, options=options, max_length=3).encode(review("well"))
    assert tokens(opt_like, encoded)[1] == ("<s> Ġterrible Ġbad", "Ġterrible Ġbad")
    with pytest.raises(UserError, match=r"^dev\.tsv:5: an option .* needs 3 tokens, .* leaves 2;"):
        prompt(opt_like, options=options, max_length=2).encode(review("well"))


@pytest.mark.parametrize("text", ["One day, Tim ran.", "  a sad story \n", "Ünïcode 🙂 text"])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        (REVIEW, [" terrible", " great"]),
        ("{sentence} It was", [" a big red dog", " sad"]),
        ("Is it good? {sentence}\n", ["Yes", "No"]),
    ],
)
def test_a_llama_like_option_decodes_back_to_itself(
    llama_like: PreTrainedTokenizerFast, text: str, form: str, options: list[str]
) -> None:
    encoded = prompt(llama_like, form, options, 256).encode(review(text))
    for row, answer, option in zip(encoded.rows, encoded.answer, options, strict=True):
        assert row[0] == llama_like.bos_token_id
        assert answer == tuple(range(answer[0], len(row)))
        pieces = llama_like.convert_ids_to_tokens([row[position] for position in answer])
        assert "".join(pieces).replace("▁", " ") == option


def test_every_real_sst2_review_ends_in_its_option(
    llama_like: PreTrainedTokenizerFast, real_data: Callable[[str], Path]
) -> None:
    made = prompt(llama_like, max_length=32)
    lines = (real_data("sst2") / "dev.tsv").read_text(encoding="utf-8").split("\n")[1:201]
    for line in lines:
        encoded = made.encode(review(line.split("\t")[0]))
        for row, answer, option in zip(encoded.rows, encoded.answer, OPTIONS, strict=True):
            assert len(row) <= 32
            pieces = llama_like.convert_ids_to_tokens([row[position] for position in answer])
            assert "".join(pieces).replace("▁", " ") == option


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("It was", r"at least one \{field\}"),
        ("{sentence It was", "balanced braces"),
        ("{} It was", r"\{field\} or \{field:form\}"),
        ("{sentence.strip()} It was", r"\{field\} or \{field:form\}"),
        ("{sentence:>9} It was", r"forms of strip, lower, .*'>9' is none"),
        ("{sentence:strip,lowr} It was", r"'lowr' is none \(did you mean 'lower'\?\)"),
        ("{sentence!r} It was", "no conversion such as !r"),
    ],
)
def test_a_malformed_prompt_is_refused(
    opt_like: PreTrainedTokenizerFast, text: str, problem: str
) -> None:
    with pytest.raises(UserError, match=rf"^task\.prompt: given .*{problem}"):
        prompt(opt_like, text)


def test_doubled_braces_are_braces(opt_like: PreTrainedTokenizerFast) -> None:
    row, _ = tokens(opt_like, prompt(opt_like, "{{ {sentence} }}").encode(review("well")))[0]
    assert row == "<s> { Ġwell Ġ } Ġterrible"


def test_a_field_that_is_not_there_is_refused_with_those_that_are(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(UserError, match=r"^task\.prompt: .*fields sentence .*'sentense' is none"):
        prompt(opt_like, "{sentense} It was").encode(review("well"))


@pytest.mark.parametrize("options", [[" great"], [" great", " great"], [" great", "great"]])
def test_options_that_are_not_different_are_refused(
    opt_like: PreTrainedTokenizerFast, options: list[str]
) -> None:
    with pytest.raises(UserError, match=r"^task\.options: given .*two or more different texts"):
        prompt(opt_like, options=options)


def test_a_blank_option_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    # an option of no tokens would train on the whole prompt
    with pytest.raises(UserError, match=r"^task\.options: given .*not blank"):
        prompt(opt_like, options=[" great", "  "])


def test_a_class_without_an_option_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^dev\.tsv:5: no option for class 2"):
        prompt(opt_like).encode(review("well", label=2))


def test_a_max_length_below_one_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^task\.max_length: given 0"):
        prompt(opt_like, max_length=0)


def test_an_option_without_a_token_is_refused(whole_words: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^dev\.tsv:5: the option '\\n' .* no token of its own"):
        prompt(whole_words, "{sentence}", [" great", "\n"]).encode(review("well"))


def test_a_tokenizer_that_cannot_place_its_tokens_is_refused() -> None:
    slow: Any = SimpleNamespace(is_fast=False)
    with pytest.raises(UserError, match=r"^model\.path: .* tokenizer\.json"):
        prompt(slow)
