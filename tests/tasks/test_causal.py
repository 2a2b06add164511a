from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf
from tokenizers import processors
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
    **more: Any,
) -> CausalPrompt:
    return CausalPrompt(tokenizer, text, options, max_length, **more)


def generates(tokenizer: PreTrainedTokenizerFast, **changed: Any) -> CausalPrompt:
    keys: dict[str, Any] = {"answer": " {answer}\n", "max_length": 64, "max_new_tokens": 8}
    return CausalPrompt(tokenizer, "{question:strip} ? It", **keys | changed)


def question(text: str = " What ", *answers: str) -> Example:
    return Example({"question": text}, 0, "dev.json:data[0]", answers=answers or ("great", "good"))


def review(text: str, label: int = 1) -> Example:
    return Example({"sentence": text}, label, where="dev.tsv:5")


def tokens(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> list[tuple[str, str]]:
    """Each row's tokens and its answer's tokens, separated by spaces."""
    named = []
    for row, answer in zip(encoded.rows, encoded.answer, strict=True):
        names = list(tokenizer.convert_ids_to_tokens(list(row)))
        named.append((" ".join(names), " ".join(names[position] for position in answer)))
    return named


def test_sst2_prompt_gives_one_row_per_option_and_scores_the_option(
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


def test_all_tokens_of_a_long_option_are_scored(opt_like: PreTrainedTokenizerFast) -> None:
    encoded = prompt(opt_like, options=[" great", " terrible bad"]).encode(review("well"))
    assert tokens(opt_like, encoded)[1] == (
        "<s> well ĠIt Ġwas Ġterrible Ġbad",
        "Ġterrible Ġbad",
    )
    assert encoded.answer == ((4,), (4, 5))


def test_white_space_tokens_with_an_empty_span_belong_to_the_option(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    trims = copy.deepcopy(opt_like)
    trims.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    option = "a   film   was\n"
    spans = trims(option, return_offsets_mapping=True)["offset_mapping"]
    assert any(first == last for first, last in spans)  # otherwise this tests nothing
    encoded = prompt(trims, options=[" " + option, " b"]).encode(review("x", 0))
    assert encoded.answer[0] == tuple(range(encoded.answer[0][0], len(encoded.rows[0])))


def test_newline_at_the_end_of_the_prompt_is_kept(opt_like: PreTrainedTokenizerFast) -> None:
    # Only spaces are stripped: a lost newline would change how "Yes" is tokenised.
    made = prompt(opt_like, "  \n {sentence} ? \n", ["Yes", "No"])
    encoded = made.encode(review("well worth"))
    # Ċ is the newline
    assert tokens(opt_like, encoded)[1] == ("<s> well Ġworth Ġ? Ġ Ċ N o", "N o")


def test_spaces_are_stripped_on_both_sides_and_other_white_space_only_in_front(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    made = prompt(opt_like, " \n {sentence} It", [" Yes\n", " No  "])
    encoded = made.encode(review("well"))
    assert tokens(opt_like, encoded) == [
        ("<s> well ĠIt ĠYes Ċ", "ĠYes Ċ"),
        ("<s> well ĠIt ĠNo", "ĠNo"),
    ]


def test_field_is_stripped_only_by_the_strip_filter(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    row, _ = tokens(opt_like, prompt(opt_like, "{sentence} It").encode(review("well ")))[0]
    assert row == "<s> well Ġ ĠIt Ġterrible"


def test_token_that_crosses_the_boundary_belongs_to_the_option(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    # "It was gr" + "eat" is one token " great", which the prompt alone does not have
    encoded = prompt(opt_like, "{sentence} It was gr", ["eat", "ow"]).encode(review("well"))
    assert tokens(opt_like, encoded)[0] == ("<s> well ĠIt Ġwas Ġgreat", "Ġgreat")


def test_long_row_is_cut_on_the_left_after_the_bos_token(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    encoded = prompt(opt_like, max_length=5).encode(review("well worth revisiting as many times"))
    assert tokens(opt_like, encoded) == [
        ("<s> Ġtimes ĠIt Ġwas Ġterrible", "Ġterrible"),
        ("<s> Ġtimes ĠIt Ġwas Ġgreat", "Ġgreat"),
    ]
    assert encoded.answer == ((4,), (4,))


def test_long_row_without_a_bos_token_is_cut_at_its_start(
    roberta_like: PreTrainedTokenizerFast,
) -> None:
    encoded = prompt(roberta_like, max_length=3).encode(review("well worth"))
    assert tokens(roberta_like, encoded)[0] == ("ĠIt Ġwas Ġterrible", "Ġterrible")


def test_option_that_just_fits_is_encoded_and_a_longer_one_is_refused(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    options = [" great", " terrible bad"]
    encoded = prompt(opt_like, options=options, max_length=3).encode(review("well"))
    assert tokens(opt_like, encoded)[1] == ("<s> Ġterrible Ġbad", "Ġterrible Ġbad")
    with pytest.raises(
        UserError, match=r"^dev\.tsv:5: an option .* needs 3 tokens, .* leaves only 2;"
    ):
        prompt(opt_like, options=options, max_length=2).encode(review("well"))


@pytest.mark.parametrize("text", ["One day, Tim ran.", "  a sad story \n", "Ünïcode 🙂 text"])
@pytest.mark.parametrize(
    ("template", "options"),
    [
        (REVIEW, [" terrible", " great"]),
        ("{sentence} It was", [" a big red dog", " sad"]),
        ("Is it good? {sentence}\n", ["Yes", "No"]),
    ],
)
def test_option_tokens_of_a_llama_tokenizer_decode_to_the_option(
    llama_like: PreTrainedTokenizerFast, text: str, template: str, options: list[str]
) -> None:
    encoded = prompt(llama_like, template, options, 256).encode(review(text))
    for row, answer, option in zip(encoded.rows, encoded.answer, options, strict=True):
        assert row[0] == llama_like.bos_token_id
        assert answer == tuple(range(answer[0], len(row)))
        pieces = llama_like.convert_ids_to_tokens([row[position] for position in answer])
        assert "".join(pieces).replace("▁", " ") == option


def test_every_sst2_review_ends_with_its_option(
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
        ("{} It was", r"text with \{field\} or \{field:filter\} in it"),
        ("{sentence.strip()} It was", r"text with \{field\} or \{field:filter\} in it"),
        ("{sentence:>9} It was", r"filters strip, lower, .*'>9' is not one of them"),
        ("{sentence:strip,lowr} It was", r"'lowr' is not one of them \(did you mean 'lower'\?\)"),
        ("{sentence!r} It was", "no conversion such as !r"),
    ],
)
def test_malformed_prompt_is_refused(
    opt_like: PreTrainedTokenizerFast, text: str, problem: str
) -> None:
    with pytest.raises(UserError, match=rf"^task\.prompt: given .*{problem}"):
        prompt(opt_like, text)


def test_doubled_braces_are_literal_braces(opt_like: PreTrainedTokenizerFast) -> None:
    row, _ = tokens(opt_like, prompt(opt_like, "{{ {sentence} }}").encode(review("well")))[0]
    assert row == "<s> { Ġwell Ġ } Ġterrible"


def test_unknown_field_is_refused_with_a_list_of_the_known_fields(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(
        UserError, match=r"^task\.prompt: .*fields sentence; 'sentense' is not one of them"
    ):
        prompt(opt_like, "{sentense} It was").encode(review("well"))


@pytest.mark.parametrize("options", [[" great"], [" great", " great"], [" great", "great"]])
def test_fewer_than_two_different_options_are_refused(
    opt_like: PreTrainedTokenizerFast, options: list[str]
) -> None:
    with pytest.raises(UserError, match=r"^task\.options: given .*two or more different texts"):
        prompt(opt_like, options=options)


def test_blank_option_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    # MeZO trains on the whole prompt if an option has no tokens.
    with pytest.raises(UserError, match=r"^task\.options: given .*not blank"):
        prompt(opt_like, options=[" great", "  "])


def test_class_without_an_option_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^dev\.tsv:5: there is no option for class 2"):
        prompt(opt_like).encode(review("well", label=2))


def test_max_length_below_one_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^task\.max_length: given 0"):
        prompt(opt_like, max_length=0)


def test_option_without_a_token_is_refused(whole_words: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^dev\.tsv:5: the option '\\n' .* no token of its own"):
        prompt(whole_words, "{sentence}", [" great", "\n"]).encode(review("well"))


def test_slow_tokenizer_is_refused() -> None:
    slow: Any = SimpleNamespace(is_fast=False)
    with pytest.raises(UserError, match=r"^model\.path: .* tokenizer\.json"):
        prompt(slow)


def test_options_may_contain_fields(opt_like: PreTrainedTokenizerFast) -> None:
    made = prompt(opt_like, "{a} It was", [" {b:lower}", " {c}"])
    encoded = made.encode(Example({"a": "well", "b": "GREAT", "c": "terrible bad"}))
    assert tokens(opt_like, encoded) == [
        ("<s> well ĠIt Ġwas Ġgreat", "Ġgreat"),
        ("<s> well ĠIt Ġwas Ġterrible Ġbad", "Ġterrible Ġbad"),
    ]


def test_options_of_a_row_replace_those_of_the_task(opt_like: PreTrainedTokenizerFast) -> None:
    own = Example({"sentence": "well"}, 2, options=(" good", " bad", " okay"), golds=(2, 0))
    encoded = prompt(opt_like).encode(own)
    assert [answer for _, answer in tokens(opt_like, encoded)] == ["Ġgood", "Ġbad", "Ġokay"]
    assert (encoded.label, encoded.golds) == (2, (2, 0))


def test_row_without_options_needs_options_of_the_task(opt_like: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        UserError, match=r"^dev\.tsv:5: there is no option for class 1; .* has 0 options"
    ):
        prompt(opt_like, options=[]).encode(review("well"))


def test_filter_that_fails_on_a_row_is_reported_with_file_and_line(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    made = prompt(opt_like, "{sentence:before_blank}", ["x{sentence:after_blank}", "y"])
    with pytest.raises(UserError, match=r"^dev\.tsv:5: field 'sentence': .* has 2 blanks '_'"):
        made.encode(review("a _ b _"))


def test_demonstrations_stand_before_the_example_with_their_correct_option(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    made = prompt(opt_like, " {sentence} It was", [" terrible ", " great\n"])
    encoded = made.encode(review("x"), [review(" well"), review("bad", label=0)])
    start = "<s> well ĠIt Ġwas Ġgreat Ċ Ċ bad ĠIt Ġwas Ġterrible Ċ Ċ x ĠIt Ġwas"
    # "bad" is one token only after a space.
    row, answer = tokens(opt_like, encoded)[0]
    assert row.replace("b a d ", "bad ") == f"{start} Ġterrible"
    assert answer == "Ġterrible"
    decoded = opt_like.decode(list(encoded.rows[1]))
    assert decoded == "<s>well It was great\n\nbad It was terrible\n\nx It was great\n"


def test_demonstrations_are_cut_on_the_left_after_the_bos_token(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    whole = prompt(opt_like).encode(review("well"), [review("well worth")])
    cut = prompt(opt_like, max_length=10).encode(review("well"), [review("well worth")])
    assert len(whole.rows[0]) > 10
    assert cut.rows[0] == (whole.rows[0][0], *whole.rows[0][-9:])
    assert cut.answer == ((9,), (9,))


def test_calibration_keeps_options_and_demonstrations(opt_like: PreTrainedTokenizerFast) -> None:
    made = prompt(opt_like, calibration=" {sentence:upper_first} was")
    alone = made.encode_calibration(review("what"))
    assert tokens(opt_like, alone)[0] == ("<s> What Ġwas Ġterrible", "Ġterrible")
    shown = made.encode_calibration(review("what"), [review("well")])
    # The demonstration uses the prompt, not the calibration text. Spaces after it are stripped.
    assert opt_like.decode(list(shown.rows[1])) == "<s>well It was great\n\nWhat was great"
    assert shown.answer[1] == (len(shown.rows[1]) - 1,)
    assert (shown.label, alone.label) == (1, 1)


def test_calibration_text_may_be_empty(opt_like: PreTrainedTokenizerFast) -> None:
    encoded = prompt(opt_like, calibration="").encode_calibration(review("well"))
    assert opt_like.decode(list(encoded.rows[1])) == "<s>great"
    assert encoded.answer[1] == tuple(range(1, len(encoded.rows[1])))


def test_calibration_without_a_text_is_refused(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(UserError, match=r"^task\.calibration: given None; allowed: a text"):
        prompt(opt_like).encode_calibration(review("well"))


def test_generated_answer_trains_on_the_first_answer_and_has_a_separate_prompt(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    encoded = generates(opt_like).encode(question())
    assert tokens(opt_like, encoded) == [("<s> What Ġ? ĠIt Ġgreat Ċ", "Ġgreat Ċ")]
    assert encoded.answer == ((4, 5),)
    assert opt_like.decode(list(encoded.prompt)) == "<s>What ? It"
    assert (encoded.label, encoded.answers) == (0, ("great", "good"))


def test_demonstrations_show_their_first_answer(opt_like: PreTrainedTokenizerFast) -> None:
    encoded = generates(opt_like).encode(question("x"), [question("well", "Location")])
    assert opt_like.decode(list(encoded.prompt)) == "<s>well ? It Location\n\nx ? It"
    assert opt_like.decode(list(encoded.rows[0])) == "<s>well ? It Location\n\nx ? It great\n"


def test_max_new_tokens_are_kept_free(opt_like: PreTrainedTokenizerFast) -> None:
    made = generates(opt_like, max_length=9, max_new_tokens=4)
    encoded = made.encode(question("well worth revisiting as many times"))
    assert tokens(opt_like, encoded) == [("<s> Ġ? ĠIt Ġgreat Ċ", "Ġgreat Ċ")]
    assert opt_like.decode(list(encoded.prompt)) == "<s> many times ? It"


def test_answer_that_does_not_fit_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    made = generates(opt_like, max_length=9, max_new_tokens=4)
    with pytest.raises(UserError, match=r"^dev\.json:data\[0\]: .* needs 6 tokens"):
        made.encode(question("What", "great good bad okay"))


def test_an_answer_that_is_only_scored_loses_its_end_and_the_prompt_nothing(
    opt_like: PreTrainedTokenizerFast,
) -> None:
    row = question("well", "great good bad okay")
    encoded = generates(opt_like, max_length=6, max_new_tokens=None).encode(row)
    assert tokens(opt_like, encoded) == [("<s> well Ġ? ĠIt Ġgreat Ġgood", "Ġgreat Ġgood")]
    assert encoded.cut
    assert not generates(opt_like, max_length=9, max_new_tokens=None).encode(row).cut
    with pytest.raises(UserError, match=r"^dev\.json:data\[0\]: the prompt alone has 4 tokens"):
        generates(opt_like, max_length=4, max_new_tokens=None).encode(row)


def test_row_without_an_answer_is_refused(opt_like: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^dev\.tsv:5: the row has no answer"):
        generates(opt_like).encode(Example({"question": "What"}, 0, "dev.tsv:5"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": " {question}"}, r"^task\.answer: .* a text with \{answer\} in it"),
        (
            {"options": ["a", "b"]},
            r"^task\.options: .* an empty list, because task\.answer is given",
        ),
        ({"max_new_tokens": 64}, r"^task\.max_new_tokens: given 64; .* 1 to 63"),
        ({"max_new_tokens": 0}, r"^task\.max_new_tokens: given 0"),
    ],
)
def test_invalid_arguments_of_a_generated_answer_are_refused(
    opt_like: PreTrainedTokenizerFast, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generates(opt_like, **changed)


def ends_texts(tokenizer: PreTrainedTokenizerFast, end: str) -> PreTrainedTokenizerFast:
    """Return a copy that puts special tokens behind every text, too."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {end}", special_tokens=[("<s>", 0), ("</s>", 2), ("<pad>", 1)]
    )
    return tokenizer


@pytest.mark.parametrize("end", ["</s>", "</s> <pad>"])
def test_the_prompt_to_write_from_ends_before_the_tokenizers_end_token(
    opt_like: PreTrainedTokenizerFast, end: str
) -> None:
    """The answer is scored at the same tokens, and demonstrations contain no end token."""
    ending, shown = ends_texts(opt_like, end), [question("well", "Location")]
    plain = generates(opt_like).encode(question(), shown)
    ended = generates(ending).encode(question(), shown)
    assert ended.prompt == plain.prompt
    assert ended.answer == plain.answer
    assert ended.rows[0][: len(plain.rows[0])] == plain.rows[0]
    same = [prompt(x).encode(review("well"), [review("worth")]) for x in (opt_like, ending)]
    assert same[0].answer == same[1].answer


def test_rows_that_lost_tokens_say_so(opt_like: PreTrainedTokenizerFast) -> None:
    whole = len(prompt(opt_like).encode(review("well")).rows[0])
    at_most = {n: prompt(opt_like, max_length=n) for n in (whole - 1, whole)}
    assert [made.encode(review("well")).cut for made in at_most.values()] == [True, False]
    assert at_most[whole].encode(review("well"), [review("worth")]).cut
    short = generates(opt_like, max_length=9, max_new_tokens=4)
    assert short.encode(question("well worth revisiting as many times")).cut
    assert not generates(opt_like).encode(question("x")).cut
