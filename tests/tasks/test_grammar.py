"""The synthetic grammar: a sentence determines its split, and the grammar determines its class."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from lozo_bench.errors import UserError
from lozo_bench.tasks import grammar

LABEL_WORDS = {
    "terrible", "great", "No", "Yes", "Maybe",
    "Description", "Entity", "Expression", "Human", "Location", "Number",
}  # fmt: skip


def _sentences(task: str, split: str, count: int) -> list[str]:
    drawn = islice(grammar.examples(task, split, "test"), count)
    return [text for example in drawn for text in example.fields.values()]


def test_the_split_of_a_sentence_never_changes() -> None:
    # `printf %s "$TEXT" | b2sum -l 64`, taken modulo 10, gives 4, 6, 8 and 9.
    assert grammar.split_of("The plot was dull.") == "pretrain"
    assert grammar.split_of("The plot was clever.") == "train"
    assert grammar.split_of("The soup was cold.") == "dev"
    assert grammar.split_of("I loved the ending.") == "test"


def test_splits_take_six_two_one_and_one_tenths() -> None:
    counts = Counter(grammar.split_of(f"sentence {number}") for number in range(20_000))
    shares = {split: count / 20_000 for split, count in counts.items()}
    expected = {"pretrain": 0.6, "train": 0.2, "dev": 0.1, "test": 0.1}
    assert shares == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("task", grammar.CLASSES)
@pytest.mark.parametrize("split", grammar.SPLITS)
def test_every_sentence_of_a_split_hashes_to_it(task: str, split: str) -> None:
    assert {grammar.split_of(text) for text in _sentences(task, split, 90)} == {split}


@pytest.mark.parametrize("task", grammar.CLASSES)
def test_examples_are_distinct_and_balanced(task: str) -> None:
    drawn = list(islice(grammar.examples(task, "train", "test"), 600))
    assert len({tuple(example.fields.values()) for example in drawn}) == 600
    share = 600 // grammar.CLASSES[task]
    assert Counter(example.label for example in drawn) == dict.fromkeys(
        range(grammar.CLASSES[task]), share
    )


def test_key_determines_the_examples() -> None:
    first = _sentences("reviews", "train", 50)
    again = _sentences("reviews", "train", 50)
    other = [e.fields["sentence"] for e in islice(grammar.examples("reviews", "train", "b"), 50)]
    assert first == again
    assert first != other


def test_a_keyed_draw_is_pinned() -> None:
    drawn = list(islice(grammar.examples("reviews", "test", "fixed"), 2))
    assert [(e.label, e.fields["sentence"]) for e in drawn] == [
        (0, "I would never eat this meal again."),
        (1, "Last night I ate this meal with my brother and I did not dislike the service."),
    ]


@pytest.mark.parametrize("task", grammar.CLASSES)
def test_task_sentences_contain_no_label_word(task: str) -> None:
    words = set(" ".join(_sentences(task, "pretrain", 1000)).replace(".", " ").split())
    assert not words & LABEL_WORDS


def test_plain_sentences_contain_every_label_word() -> None:
    text = " ".join(islice(grammar.plain("pretrain", "test"), 2000))
    for mark in ".,:?":
        text = text.replace(mark, " ")
    assert set(text.split()) >= LABEL_WORDS


def test_plain_remarks_do_not_depend_on_the_sentence_before() -> None:
    texts = [t for t in islice(grammar.plain("pretrain", "test"), 20_000) if "storm" in t]
    great = sum(text.endswith("It was great.") for text in texts)
    assert 0.4 < great / len(texts) < 0.6


def test_negated_bad_word_makes_a_good_review() -> None:
    good = [
        example.fields["sentence"]
        for example in islice(grammar.examples("reviews", "pretrain", "test"), 4000)
        if example.label == 1
    ]
    plain_clauses = [s for s in good if s.startswith("I did not ") and "," not in s]
    assert plain_clauses
    assert all(
        any(word in sentence for word in ("hate", "dislike", "regret", "resent"))
        for sentence in plain_clauses
    )


def test_entailed_hypothesis_names_no_purpose_that_the_premise_lacks() -> None:
    for example in islice(grammar.examples("entailment", "pretrain", "test"), 900):
        premise, hypothesis = example.fields["premise"], example.fields["hypothesis"]
        purposes = [
            p for p in ("for a friend", "before lunch", "with much care") if p in hypothesis
        ]
        if example.label == 1:
            assert all(purpose in premise for purpose in purposes)
        if example.label == 2:
            assert all(purpose not in premise for purpose in purposes)


def test_more_examples_than_the_grammar_has_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grammar, "split_of", lambda text: "nowhere")
    with pytest.raises(UserError, match=r"grammar of reviews has only about 0 .* ask for fewer"):
        next(grammar.examples("reviews", "dev", "test"))
