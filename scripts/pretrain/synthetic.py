"""Synthetic pre-training rows: plain sentences, and sentences with label words not used later."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from random import Random

from lozo_bench.tasks import grammar
from lozo_bench.tasks.base import Example
from pretrain.rows import Row

# Words by class, as in the tasks. None of them is a label word of fine-tuning.
REVIEW_WORDS = ((" bad", " awful", " horrible"), (" good", " wonderful", " excellent"))
ENTAILMENT_WORDS = ((" False", " Never"), (" True", " Right"), (" Perhaps", " Possibly"))
TOPIC_WORDS = (
    (" Reason", " Meaning"), (" Thing", " Object"), (" Letters", " Initials"),
    (" Person", " Somebody"), (" Place", " Region"), (" Amount", " Count"),
)  # fmt: skip
SHARES = {
    "reviews": 0.2, "entailment": 0.53, "topics": 0.12,
    "remarked": 0.04, "plain": 0.09, "long": 0.02,
}  # fmt: skip
_LONG = 12
NOTE = (
    "Trained on synthetic English only: sentences put together by the grammar in"
    " `lozo_bench/tasks/grammar.py`, none of them written by a person. Labelled sentences carry"
    " other label words than fine-tuning uses, and no sentence of a train, dev or test split."
)


def rows(kind: str, count: int, seed: int) -> list[Row]:
    """Return ``count`` rows in random order for a "causal" or "masked" model.

    Their sentences come from the grammar's split "pretrain".
    """
    rng = Random(f"rows/{kind}/{seed}")
    key = f"{kind}/{seed}"
    made = [
        prompted(example, task, kind, rng)
        for task in grammar.CLASSES
        for example in islice(grammar.stream(task, "pretrain", key), round(SHARES[task] * count))
    ]
    plain = grammar.plain("pretrain", key)
    made += [Row(text) for text in islice(plain, round(SHARES["plain"] * count))]
    # Reviews followed by a random label word: the model learns that such a word can follow, but not
    # which one fits.
    reviews = grammar.stream("reviews", "pretrain", f"remarked/{key}")
    made += [
        Row(f"{example.fields['sentence']} It was {_remark(rng)}.")
        for example in islice(reviews, round(SHARES["remarked"] * count))
    ]
    # Long rows train the positions that single sentences never reach.
    made += [
        Row(" ".join(islice(plain, rng.randint(2, _LONG))))
        for _ in range(round(SHARES["long"] * count))
    ]
    rng.shuffle(made)
    return made


def _remark(rng: Random) -> str:
    return "great" if rng.random() < 0.6 else "terrible"


def prompted(example: Example, task: str, kind: str, rng: Random) -> Row:
    """Return the example in a prompt of its task, with another word for its class."""
    return _PROMPTS[task](example, kind, rng)


def _review(example: Example, kind: str, rng: Random) -> Row:
    lead = rng.choice((" It was", " It was", " Overall it was", " We found it"))
    return Row(example.fields["sentence"] + lead, rng.choice(REVIEW_WORDS[example.label]), ".")


def _entailment(example: Example, kind: str, rng: Random) -> Row:
    premise, hypothesis = example.fields["premise"], example.fields["hypothesis"]
    word = rng.choice(ENTAILMENT_WORDS[example.label])
    if kind == "masked":
        return Row(f"{premise[:-1]}?", word, f", {hypothesis[0].lower()}{hypothesis[1:]}")
    return Row(f"{premise} Question: {hypothesis} Answer:", word, ".")


def _topic(example: Example, kind: str, rng: Random) -> Row:
    question, word = example.fields["question"], rng.choice(TOPIC_WORDS[example.label])
    if kind == "masked":
        return Row("", word, f": {question}")
    return Row(f"{question} Topic:", word, ".")


_PROMPTS: dict[str, Callable[[Example, str, Random], Row]] = {
    "reviews": _review,
    "entailment": _entailment,
    "topics": _topic,
}
