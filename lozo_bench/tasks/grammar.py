"""Synthetic English: reviews, entailment pairs, topic questions and plain sentences.

A small grammar generates the sentences; none was written by a person about a real thing. The tiny
embedded models are pre-trained on these sentences, and the built-in tasks consist of them. They
never share a sentence, because the split of a sentence is a function of its text (`split_of`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from random import Random

from lozo_bench.errors import UserError
from lozo_bench.tasks import words as w
from lozo_bench.tasks.base import Example

CLASSES = {"reviews": 2, "entailment": 3, "topics": 6}
SPLITS = ("pretrain", "train", "dev", "test")
_TENTHS = ("pretrain",) * 6 + ("train",) * 2 + ("dev", "test")
_MAX_DRAWS = 10_000


def split_of(text: str) -> str:
    """Return the only split in which a sentence may occur.

    The splits have 6 tenths (pretrain), 2 tenths (train), 1 tenth (dev) and 1 tenth (test) of all
    sentences.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return _TENTHS[int.from_bytes(digest, "big") % 10]


def examples(task: str, split: str, key: str) -> Iterator[Example]:
    """Yield different examples of a task in a split without end; the classes alternate.

    The same ``key`` gives the same examples on every machine.

    Raises:
        UserError: The grammar has no new sentence left.
    """
    rng = Random(f"{task}/{split}/{key}")
    seen: set[str] = set()
    while True:
        for label in range(CLASSES[task]):
            example = _new_example(task, split, label, rng, seen)
            seen.add(_text(example))
            yield example


def stream(task: str, split: str, key: str) -> Iterator[Example]:
    """Yield examples of a task in a split without end, with random classes and repetitions."""
    rng = Random(f"{task}/{split}/{key}")
    while True:
        yield _new_example(task, split, rng.randrange(CLASSES[task]), rng, set())


def plain(split: str, key: str) -> Iterator[str]:
    """Yield plain sentences of a split without end. They have no label and may repeat."""
    rng = Random(f"plain/{split}/{key}")
    while True:
        text = _fill(rng, rng.choice(w.PLAIN))
        if split_of(text) == split:
            yield text


def _new_example(task: str, split: str, label: int, rng: Random, seen: set[str]) -> Example:
    for _ in range(_MAX_DRAWS):
        example = Example(_MAKERS[task](rng, label), label)
        if (
            all(split_of(t) == split for t in example.fields.values())
            and _text(example) not in seen
        ):
            return example
    raise UserError(
        f"task.source: the grammar of {task} has only about {len(seen)} different {split} examples;"
        " ask for fewer"
    )


def _text(example: Example) -> str:
    return "\t".join(example.fields.values())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _opinion(rng: Random, thing: tuple[str, str, str, tuple[str, ...]], label: int) -> str:
    """Return a clause that calls something good (label 1) or bad (0), perhaps by a negation."""
    noun, verb, _, aspects = thing
    kind = rng.random()
    negate = rng.random() < 0.3
    polarity = 1 - label if negate else label
    topic = rng.choice([*aspects, noun])
    if kind < 0.45:
        be = rng.choice(w.NEGATIONS if negate else w.COPULAS)
        return f"the {topic} {be} {rng.choice(w.DEGREES)}{rng.choice(w.ADJECTIVES[polarity])}"
    if kind < 0.65:
        past, base = rng.choice(w.VERBS[polarity])
        return f"I did not {base} the {topic}" if negate else f"I {past} the {topic}"
    if kind < 0.8:
        be = rng.choice(("was not a", "was never a", "was no")) if negate else "was a"
        return f"the {topic} {be} {rng.choice(w.NOUNS[polarity])}"
    if kind < 0.92:
        return f"the {topic} {rng.choice(w.EFFECTS[label])} {rng.choice(w.PEOPLE)}"
    return f"I would {rng.choice(w.AGAIN[label])} {verb} this {noun} again"


def _review(rng: Random, label: int) -> dict[str, str]:
    """Return a review. In a mixed review the main clause, first or last, decides the label."""
    thing = rng.choice(w.THINGS)
    main, other = _opinion(rng, thing, label), _opinion(rng, thing, 1 - label)
    kind = rng.random()
    if kind < 0.3:
        text = main
    elif kind < 0.5:
        text = f"{main} and {_opinion(rng, thing, label)}"
    elif kind < 0.65:
        text = f"{other}, but {main}"
    elif kind < 0.8:
        text = f"{rng.choice(('although', 'even if', 'while'))} {other}, {main}"
    elif kind < 0.9:
        text = f"{main}, {rng.choice(('although', 'even if'))} {other}"
    else:
        text = f"I {thing[2]} this {thing[0]} with {rng.choice(w.PEOPLE[2:])} and {main}"
    opener = rng.choice(w.OPENERS) if rng.random() < 0.25 else ""
    return {"sentence": _capital(f"{opener}{text}.")}


def _other_kind(rng: Random, table: tuple[tuple[str, str], ...], kind: str) -> tuple[str, str]:
    return rng.choice([row for row in table if row[1] != kind])


def _entailment(rng: Random, label: int) -> dict[str, str]:
    """Return a premise and a hypothesis.

    Class 0 is a contradiction (another action or place), class 1 an entailment, and class 2 neutral
    (the hypothesis names a purpose that the premise does not state).
    """
    action, place = rng.choice(w.ACTIONS), rng.choice(w.PLACES)
    person, purpose = rng.choice(w.PERSONS), rng.choice(w.PURPOSES)
    clothes = f" in a {rng.choice(w.COLORS)} {rng.choice(w.CLOTHES)}" if rng.random() < 0.6 else ""
    stated = label != 2 and rng.random() < 0.4
    tail = f" {purpose}" if stated else ""
    premise = f"A {rng.choice(w.LOOKS)}{person}{clothes} is {action[0]} {place[0]}{tail}."
    if label == 0 and rng.random() < 0.6:
        action = _other_kind(rng, w.ACTIONS, action[1])
    elif label == 0:
        place = _other_kind(rng, w.PLACES, place[1])
    what, where = (pair[rng.random() < 0.3] for pair in (action, place))
    who = rng.choice((f"A {person}", f"The {person}", "Somebody", "A person", "Someone"))
    tail = f" {purpose}" if label == 2 or (stated and rng.random() < 0.6) else ""
    return {"premise": premise, "hypothesis": f"{who} is {what} {where}{tail}."}


def _fill(rng: Random, pattern: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(w.SLOTS[slot[1]]), pattern)


def _topic(rng: Random, label: int) -> dict[str, str]:
    """Return a question of a class of TREC.

    The classes are description, entity, expression, human, location and number.
    """
    aside = _fill(rng, rng.choice(w.ASIDES))
    question = _fill(rng, rng.choice(w.QUESTIONS[label]))
    return {"question": f"{aside}{question[0].lower()}{question[1:]}?" if aside else f"{question}?"}


_MAKERS = {"reviews": _review, "entailment": _entailment, "topics": _topic}
