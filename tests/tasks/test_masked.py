from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerFast

from lozo_bench.errors import UserError
from lozo_bench.tasks.base import Example
from lozo_bench.tasks.masked import MaskedPrompt

if TYPE_CHECKING:
    from lozo_bench.tasks.base import Encoded

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"
REVIEW = "*cls**sent_0*_It_was*mask*.*sep+*"
PAIR = "*cls**sent-_0*?*mask*,*+sentl_1**sep+*"


def prompt(
    tokenizer: PreTrainedTokenizerFast,
    template: str = REVIEW,
    words: tuple[str, ...] = ("terrible", "great"),
    max_length: int = 128,
    **limits: int | None,
) -> MaskedPrompt:
    return MaskedPrompt(tokenizer, template, list(words), max_length, **limits)


def tokens(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> str:
    """Return the tokens of the row, separated by spaces. Ġ is a space inside a token."""
    (row,) = encoded.rows
    names = list(tokenizer.convert_ids_to_tokens(list(row)))
    return " ".join(names)


PREMISE, HYPOTHESIS = "A man is playing a guitar.", "A man sleeps"
PAIR_TOKENS = (
    "<s> A Ġman Ġis Ġplaying Ġa Ġguitar ? <mask> , Ġa Ġman Ġsleeps </s>"  # the final "." is gone
)
REVIEW_TOKENS = "<s> well Ġworth Ġrevisiting Ġas Ġmany Ġtimes Ġ ĠIt Ġwas <mask> . </s>"


@pytest.mark.parametrize(
    ("task", "texts", "expected", "words"),
    [
        (
            "sst2_kshot",
            # GLUE's rows end with a space, which the published prompts keep.
            ["well worth revisiting as many times "],
            REVIEW_TOKENS,
            "Ġterrible Ġgreat",
        ),
        (
            "sst5_kshot",
            ["well worth revisiting"],
            "<s> well Ġworth Ġrevisiting ĠIt Ġwas <mask> . </s>",
            "Ġterrible Ġbad Ġokay Ġgood Ġgreat",
        ),
        ("snli_kshot", [PREMISE, HYPOTHESIS], PAIR_TOKENS, "ĠNo ĠYes ĠMaybe"),
        ("mnli_kshot", [PREMISE, HYPOTHESIS], PAIR_TOKENS, "ĠNo ĠYes ĠMaybe"),
        ("rte_kshot", [PREMISE, HYPOTHESIS], PAIR_TOKENS, "ĠYes ĠNo"),
        (
            "trec_kshot",
            ["What is the capital of France ?"],
            "<s> <mask> : ĠWhat Ġis Ġthe Ġcapital Ġof ĠFrance Ġ? </s>",
            "ĠDescription ĠEntity ĠExpression ĠHuman ĠLocation ĠNumber",
        ),
    ],
)
def test_published_template_gives_the_expected_tokens(
    roberta_like: PreTrainedTokenizerFast,
    task: str,
    texts: list[str],
    expected: str,
    words: str,
) -> None:
    node = OmegaConf.load(CONF / f"{task}.yaml")
    made = MaskedPrompt(
        roberta_like,
        node.template,
        list(node.label_words),
        node.max_length,
        node.first_sentence_limit,
        node.other_sentence_limit,
    )
    fields = dict(zip(node.source.fields, texts, strict=True))
    encoded = made.encode(Example(fields, label=1))
    assert tokens(roberta_like, encoded) == expected
    assert encoded.answer == ((expected.split(" ").index("<mask>"),),)
    assert encoded.label == 1
    assert roberta_like.convert_ids_to_tokens(list(made.label_ids)) == words.split(" ")


def test_parts_are_tokenised_separately(roberta_like: PreTrainedTokenizerFast) -> None:
    made = prompt(roberta_like, "*cls**sent_0*eat*mask*")
    assert tokens(roberta_like, made.encode(Example({"s": " gr"}, 0))) == "<s> Ġg r e at <mask>"
    assert roberta_like.tokenize(" great") == ["Ġgreat"]  # the same letters as a single part


def test_the_sentence_macros_change_the_text(roberta_like: PreTrainedTokenizerFast) -> None:
    made = prompt(roberta_like, "*sent_0**mask**+sent_0**sentl_0**+sent-_0**+sentl-_0*")
    row = tokens(roberta_like, made.encode(Example({"s": "Whatx"}, 0)))
    assert row == "What x <mask> ĠWhat x w h at x ĠWhat Ġw h at"


def test_a_sentence_keeps_its_first_tokens_up_to_its_limit(
    roberta_like: PreTrainedTokenizerFast,
) -> None:
    made = prompt(roberta_like, PAIR, ("No", "Yes"), first_sentence_limit=3, other_sentence_limit=2)
    encoded = made.encode(Example({"a": PREMISE, "b": HYPOTHESIS}, 0))
    assert tokens(roberta_like, encoded) == "<s> A Ġman Ġis ? <mask> , Ġa Ġman </s>"
    assert encoded.cut


def test_a_long_row_is_cut_at_its_end(roberta_like: PreTrainedTokenizerFast) -> None:
    made = prompt(roberta_like, PAIR, ("No", "Yes"), max_length=11)
    encoded = made.encode(Example({"a": PREMISE, "b": HYPOTHESIS}, 0))
    assert tokens(roberta_like, encoded) == "<s> A Ġman Ġis Ġplaying Ġa Ġguitar ? <mask> , Ġa"
    assert encoded.cut
    whole = prompt(roberta_like, PAIR, ("No", "Yes")).encode(Example({"a": "A", "b": "man"}, 0))
    assert not whole.cut


def test_mask_may_be_the_last_token_of_a_cut_row_but_may_not_be_cut_off(
    roberta_like: PreTrainedTokenizerFast,
) -> None:
    example = Example({"s": "well worth revisiting"}, 0, where="train.tsv:7")
    encoded = prompt(roberta_like, max_length=7).encode(example)
    assert tokens(roberta_like, encoded).endswith("ĠIt Ġwas <mask>")
    with pytest.raises(UserError, match=r"^train\.tsv:7: the mask would be token 7, but .* is 6"):
        prompt(roberta_like, max_length=6).encode(example)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("*cls**sent_0*.*sep+*", "with \\*mask\\* in it exactly once"),
        ("*sent_0**mask**mask*", "with \\*mask\\* in it exactly once"),
        ("*cls**mask**sep+*", "with \\*sent_0\\* in it"),
        ("*sent_x**mask*", "'sent_x' is not one of them"),
        ("*sentence**mask*", "'sentence' is not one of them"),
        ("*sent_0*€*mask*", "'€' is not a token"),
        ("*sent_0*_*mask*", "' ' is not a token"),
    ],
)
def test_a_malformed_template_is_refused(
    roberta_like: PreTrainedTokenizerFast, template: str, problem: str
) -> None:
    with pytest.raises(UserError, match=f"^task\\.template: given .*{problem}"):
        prompt(roberta_like, template)


def test_sentence_number_above_the_number_of_fields_is_refused(
    roberta_like: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(
        UserError, match=r"^task\.template: .* sentences 0 to 0, because the task has 1"
    ):
        prompt(roberta_like, PAIR).encode(Example({"s": "x"}, 0))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ("terrible", "wonderful"),
            r"'wonderful'; allowed: .* one token .* has 7 tokens: .* 'f', 'u', 'l'",
        ),
        (("terrible", ""), "words that are not blank"),
        (("great", "great"), "different words"),
        (("great",), "two or more words"),
    ],
)
def test_label_words_must_be_different_single_tokens(
    roberta_like: PreTrainedTokenizerFast, words: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(UserError, match=rf"^task\.label_words: given .*{problem}"):
        prompt(roberta_like, words=words)


def test_a_tokenizer_without_a_mask_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^task\.template: .* no mask token"):
        prompt(opt_like)


def test_a_class_without_a_word_is_refused(roberta_like: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^train\.tsv:3: there is no label word for class 2"):
        prompt(roberta_like).encode(Example({"s": "x"}, 2, where="train.tsv:3"))


@pytest.mark.parametrize("key", ["max_length", "first_sentence_limit", "other_sentence_limit"])
def test_a_limit_below_one_is_refused(roberta_like: PreTrainedTokenizerFast, key: str) -> None:
    limits: dict[str, Any] = {"max_length": 8} | {key: 0}
    with pytest.raises(UserError, match=rf"^task\.{key}: given 0; allowed: a whole number >= 1"):
        MaskedPrompt(roberta_like, REVIEW, ["terrible", "great"], **limits)


def test_a_label_word_that_the_tokenizer_does_not_know_is_refused(
    whole_words: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(UserError, match=r"^task\.label_words: given 'awful'; .* tokenizer knows"):
        prompt(whole_words, "*sent_0**mask*", ("great", "awful"))
