"""Synthetic English: reviews, entailment pairs, topic questions and plain sentences.

Made by a small grammar, not collected: no sentence here was written by a person about a real thing.
The tiny embedded models are pre-trained on it and the built-in tasks are drawn from it, without
ever sharing a sentence, because a sentence's split is a function of its text (`split_of`).
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
    """The one split a sentence may appear in: 6 tenths pretrain, 2 train, 1 dev, 1 test."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return _TENTHS[int.from_bytes(digest, "big") % 10]


def examples(task: str, split: str, key: str) -> Iterator[Example]:
    """Distinct examples of ``task`` in ``split``, classes taking turns, without end.

    The same ``key`` gives the same examples on every machine. Raises UserError when the grammar
    has no new sentence left.
    """
    rng = Random(f"{task}/{split}/{key}")
    seen: set[str] = set()
    while True:
        for label in range(CLASSES[task]):
            example = _fresh(task, split, label, rng, seen)
            seen.add(_text(example))
            yield example


def stream(task: str, split: str, key: str) -> Iterator[Example]:
    """Examples of ``task`` in ``split`` without end, classes at random; may repeat."""
    rng = Random(f"{task}/{split}/{key}")
    while True:
        yield _fresh(task, split, rng.randrange(CLASSES[task]), rng, set())


def plain(split: str, key: str) -> Iterator[str]:
    """Plain sentences of ``split`` without end, which carry no label. May repeat."""
    rng = Random(f"plain/{split}/{key}")
    while True:
        text = _fill(rng, rng.choice(w.PLAIN))
        if split_of(text) == split:
            yield text


def _fresh(task: str, split: str, label: int, rng: Random, seen: set[str]) -> Example:
    for _ in range(_MAX_DRAWS):
        example = Example(_MAKERS[task](rng, label), label)
        if (
            all(split_of(t) == split for t in example.fields.values())
            and _text(example) not in seen
        ):
            return example
    raise UserError(
        f"task.source: the {task} grammar holds only about {len(seen)} different {split} examples;"
        f" ask for fewer"
    )


def _text(example: Example) -> str:
    return "\t".join(example.fields.values())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _opinion(rng: Random, thing: tuple[str, str, str, tuple[str, ...]], label: int) -> str:
    """One clause saying that something is good (label 1) or bad (0), perhaps by denying it."""
    noun, verb, _, aspects = thing
    kind = rng.random()
    deny = rng.random() < 0.3
    said = 1 - label if deny else label
    topic = rng.choice([*aspects, noun])
    if kind < 0.45:
        be = rng.choice(w.NEGATIONS if deny else w.COPULAS)
        return f"the {topic} {be} {rng.choice(w.DEGREES)}{rng.choice(w.ADJECTIVES[said])}"
    if kind < 0.65:
        past, base = rng.choice(w.VERBS[said])
        return f"I did not {base} the {topic}" if deny else f"I {past} the {topic}"
    if kind < 0.8:
        be = rng.choice(("was not a", "was never a", "was no")) if deny else "was a"
        return f"the {topic} {be} {rng.choice(w.NOUNS[said])}"
    if kind < 0.92:
        return f"the {topic} {rng.choice(w.EFFECTS[label])} {rng.choice(w.PEOPLE)}"
    return f"I would {rng.choice(w.AGAIN[label])} {verb} this {noun} again"


def _review(rng: Random, label: int) -> dict[str, str]:
    """The last word of a mixed review counts: the main clause, whichever side it stands on."""
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


def _other(rng: Random, table: tuple[tuple[str, str], ...], kind: str) -> tuple[str, str]:
    return rng.choice([row for row in table if row[1] != kind])


def _entailment(rng: Random, label: int) -> dict[str, str]:
    """Classes: 0 contradicts (another action or place), 1 follows, 2 open (an unstated purpose)."""
    action, place = rng.choice(w.ACTIONS), rng.choice(w.PLACES)
    person, purpose = rng.choice(w.PERSONS), rng.choice(w.PURPOSES)
    clothes = f" in a {rng.choice(w.COLORS)} {rng.choice(w.CLOTHES)}" if rng.random() < 0.6 else ""
    stated = label != 2 and rng.random() < 0.4
    tail = f" {purpose}" if stated else ""
    premise = f"A {rng.choice(w.LOOKS)}{person}{clothes} is {action[0]} {place[0]}{tail}."
    if label == 0 and rng.random() < 0.6:
        action = _other(rng, w.ACTIONS, action[1])
    elif label == 0:
        place = _other(rng, w.PLACES, place[1])
    what, where = (pair[rng.random() < 0.3] for pair in (action, place))
    who = rng.choice((f"A {person}", f"The {person}", "Somebody", "A person", "Someone"))
    tail = f" {purpose}" if label == 2 or (stated and rng.random() < 0.6) else ""
    return {"premise": premise, "hypothesis": f"{who} is {what} {where}{tail}."}


def _fill(rng: Random, pattern: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(w.SLOTS[slot[1]]), pattern)


def _topic(rng: Random, label: int) -> dict[str, str]:
    """Classes as in TREC: description, entity, expression, human, location, number."""
    aside = _fill(rng, rng.choice(w.ASIDES))
    question = _fill(rng, rng.choice(w.QUESTIONS[label]))
    return {"question": f"{aside}{question[0].lower()}{question[1:]}?" if aside else f"{question}?"}


_MAKERS = {"reviews": _review, "entailment": _entailment, "topics": _topic}
