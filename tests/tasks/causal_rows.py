"""Two rows of every causal task, in the format of its files and of the hub, with their prompts.

The expected texts follow templates.py in large_models of the MeZO release, and ZO-Bench for
WinoGrande.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

YES_NO = ["No", "Yes"]
TRUTH = ["False", "True"]


@dataclass(frozen=True)
class Asked:
    """The expected texts of one row: the prompt, and the options or the generated answer."""

    prompt: str
    options: list[str]
    label: int
    golds: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()
    calibration: str | None = None


@dataclass(frozen=True)
class Task:
    """A task with two rows.

    ``rows`` are the lines of a .jsonl file or the object of a .json file, and ``hub`` the rows on
    the hub. ``names`` are the hub's names for its labels, which it stores as numbers.
    """

    rows: list[dict[str, Any]] | dict[str, Any]
    hub: list[dict[str, Any]]
    asked: list[Asked]
    names: list[str] = field(default_factory=list)
    train_as: str = "classification"
    metric: str = "accuracy"


def _no_yes(prompt: str, label: int) -> Asked:
    return Asked(prompt, YES_NO, label, calibration="")


WSC = [
    {"text": "Ann gave the cup to Bo. She left.", "span1_text": "Ann", "span2_text": "She"},
    {"text": "Bo saw the cup, and it fell.", "span1_text": "the cup", "span2_text": "it"},
]
MULTIRC = [
    {"paragraph": "Ann is a man.", "question": "Who is Ann?", "answer": "A man", "label": 1},
    {"paragraph": "Ann is a man.", "question": "Who is Ann?", "answer": "A guitar", "label": 0},
]
COPA = [
    {"premise": "The man fell. ", "choice1": "I saw it.", "choice2": "He sleeps.",
     "question": "cause"},
    {"premise": "Ann sleeps", "choice1": "The MEN left", "choice2": "Her cup fell",
     "question": "effect"},
]  # fmt: skip
NEWS = "Ann met Bo in Rome.\n@highlight\nAnn is glad\n@highlight\nBo is Robert"
SQUAD = [
    {"title": "Rome", "context": "Rome is old.", "question": " What is old? ",
     "answers": {"text": ["Rome", "the city Rome"], "answer_start": [0, 0]}},
    {"title": "Rome", "context": "Rome is old.", "question": "How is it?",
     "answers": {"text": ["old"], "answer_start": [8]}},
]  # fmt: skip
GAME = "The Bears won 5 to 3 on May 9."


def _drop(number: str = "", spans: tuple[str, ...] = (), **date: str) -> dict[str, Any]:
    return {
        "number": number,
        "date": {"day": "", "month": "", "year": "", **date},
        "spans": [*spans],
    }


DROP = {
    "nfl_1": {
        "passage": GAME,
        "qa_pairs": [
            {"question": "How many points? ", "query_id": "a", "answer": _drop("5"),
             "validated_answers": [_drop("5"), _drop(spans=("five yards", "5"))]},
            {"question": "When?", "query_id": "b", "answer": _drop(day="9", month="May"),
             "validated_answers": [_drop(day="9", month="May")]},
            {"question": "Unclear?", "query_id": "c", "answer": _drop("5", ("Bears",)),
             "validated_answers": [_drop("5", ("Bears",))]},
        ],
    }
}  # fmt: skip

TASKS = {
    "sst2": Task(
        [{"sentence": " a well worth film ", "label": 1}, {"sentence": "bad . ", "label": 0}],
        [{"sentence": " a well worth film ", "label": 1}, {"sentence": "bad . ", "label": 0}],
        [
            Asked("a well worth film It was", [" terrible", " great"], 1, calibration="It was"),
            Asked("bad . It was", [" terrible", " great"], 0, calibration="It was"),
        ],
        names=["negative", "positive"],
    ),
    "rte": Task(
        [
            {"premise": "Ann sleeps.", "hypothesis": "Ann lives.", "label": "entailment"},
            {"premise": "A man.", "hypothesis": "It is Bo.", "label": "not_entailment"},
        ],
        [
            {"premise": "Ann sleeps.", "hypothesis": "Ann lives.", "label": 0},
            {"premise": "A man.", "hypothesis": "It is Bo.", "label": 1},
        ],
        [
            Asked(
                'Ann sleeps.\nDoes this mean that "Ann lives." is true? Yes or No?\n',
                ["Yes", "No"], 0, calibration="",
            ),
            Asked(
                'A man.\nDoes this mean that "It is Bo." is true? Yes or No?\n',
                ["Yes", "No"], 1, calibration="",
            ),
        ],
        names=["entailment", "not_entailment"],
    ),
    "cb": Task(
        [
            {"premise": "Ann sleeps.", "hypothesis": "she is old", "label": "neutral"},
            {"premise": "A man?", "hypothesis": "no man", "label": "contradiction"},
        ],
        [
            {"premise": "Ann sleeps.", "hypothesis": "she is old", "label": 2},
            {"premise": "A man?", "hypothesis": "no man", "label": 1},
        ],
        [
            Asked(
                'Suppose Ann sleeps. Can we infer that "she is old"? Yes, No, or Maybe?\n',
                ["Yes", "No", "Maybe"], 2, calibration="",
            ),
            Asked(
                'Suppose A man? Can we infer that "no man"? Yes, No, or Maybe?\n',
                ["Yes", "No", "Maybe"], 1, calibration="",
            ),
        ],
        names=["entailment", "contradiction", "neutral"],
    ),
    "boolq": Task(
        [
            {"passage": "Rome is old.", "question": "is rome old", "label": True},
            {"passage": "Rome is old.", "question": "Is it new?", "label": False},
        ],
        [
            {"passage": "Rome is old.", "question": "is rome old", "answer": True},
            {"passage": "Rome is old.", "question": "Is it new?", "answer": False},
        ],
        [
            Asked("Rome is old. Is rome old?\n", ["Yes", "No"], 0, calibration=""),
            Asked("Rome is old. Is it new?\n", ["Yes", "No"], 1, calibration=""),
        ],
    ),
    "wsc": Task(
        [
            {"text": WSC[0]["text"], "label": True,
             "target": {"span1_text": "Ann", "span2_text": "She"}},
            # The official files spell the noun as at the beginning of a sentence.
            {"text": WSC[1]["text"], "label": False,
             "target": {"span1_text": "The cup", "span2_text": "it"}},
        ],
        [{**WSC[0], "label": 1}, {**WSC[1], "label": 0}],
        [
            _no_yes(
                "Ann gave the cup to Bo. She left.\nIn the previous sentence, does the pronoun "
                '"she" refer to Ann? Yes or No?\n', 1,
            ),
            _no_yes(
                "Bo saw the cup, and it fell.\nIn the previous sentence, does the pronoun "
                '"it" refer to the cup? Yes or No?\n', 0,
            ),
        ],
        names=TRUTH,
    ),
    "wic": Task(
        [
            {"word": "cup", "sentence1": "A cup.", "sentence2": "My cups!", "label": True},
            {"word": "set", "sentence1": "A set.", "sentence2": "Set it.", "label": False},
        ],
        [
            {"word": "cup", "sentence1": "A cup.", "sentence2": "My cups!", "label": 1},
            {"word": "set", "sentence1": "A set.", "sentence2": "Set it.", "label": 0},
        ],
        [
            _no_yes(
                'Does the word "cup" have the same meaning in these two sentences? Yes, No?\n'
                "A cup.\nMy cups!\n", 1,
            ),
            _no_yes(
                'Does the word "set" have the same meaning in these two sentences? Yes, No?\n'
                "A set.\nSet it.\n", 0,
            ),
        ],
        names=TRUTH,
    ),
    "multirc": Task(
        [
            {"idx": 0, "passage": {"text": "Ann is a man.", "questions": [{
                "question": "Who is Ann?", "answers": [
                    {"text": "A man", "label": 1}, {"text": "A guitar", "label": 0}]}]}},
        ],
        MULTIRC,
        [
            _no_yes(
                'Ann is a man.\nQuestion: Who is Ann?\nI found this answer "A man". Is that '
                "correct? Yes or No?\n", 1,
            ),
            _no_yes(
                'Ann is a man.\nQuestion: Who is Ann?\nI found this answer "A guitar". Is that '
                "correct? Yes or No?\n", 0,
            ),
        ],
        names=TRUTH,
    ),
    "copa": Task(
        [{**COPA[0], "label": 0}, {**COPA[1], "label": 1}],
        [{**COPA[0], "label": 0}, {**COPA[1], "label": 1}],
        [
            Asked("The man fell because", [" I saw it.", " he sleeps."], 0, calibration="because"),
            Asked("Ann sleeps so", [" the MEN left", " her cup fell"], 1, calibration="so"),
        ],
        names=["choice1", "choice2"],
        train_as="language_model",
    ),
    "record": Task(
        [
            # The ends of spans are inclusive.
            {"passage": {"text": NEWS, "entities": [
                {"start": 0, "end": 2}, {"start": 8, "end": 9}, {"start": 14, "end": 17},
                {"start": 31, "end": 33}]},
             "qas": [
                {"query": "@placeholder likes Rome", "answers": [
                    {"start": 8, "end": 9, "text": "Bo"}, {"start": 0, "end": 2, "text": "Ann"}]},
                {"query": "They saw @placeholder.", "answers": [
                    {"start": 14, "end": 17, "text": "Rome"}]},
             ]},
        ],
        [
            {"passage": NEWS, "query": "@placeholder likes Rome", "entities": ["Ann", "Bo", "Rome"],
             "answers": ["Ann", "Bo"]},
            {"passage": NEWS, "query": "They saw @placeholder.", "entities": ["Ann", "Bo", "Rome"],
             "answers": ["Rome"]},
        ],
        [
            Asked(
                "Ann met Bo in Rome.\n- Ann is glad\n- Bo is Robert\n-",
                [" Ann likes Rome", " Bo likes Rome", " Rome likes Rome"],
                0, golds=(0, 1), calibration="-",
            ),
            Asked(
                "Ann met Bo in Rome.\n- Ann is glad\n- Bo is Robert\n-",
                [" They saw Ann.", " They saw Bo.", " They saw Rome."],
                2, golds=(2,), calibration="-",
            ),
        ],
        train_as="language_model",
    ),
    "squad": Task(
        {"version": "1.1", "data": [{"title": "Rome", "paragraphs": [{
            "context": "Rome is old.", "qas": [
                {"id": "1", "question": " What is old? ", "answers": [
                    {"text": "Rome", "answer_start": 0},
                    {"text": "the city Rome", "answer_start": 0}]},
                {"id": "2", "question": "How is it?", "answers": [
                    {"text": "old", "answer_start": 8}]}]}]}]},
        SQUAD,
        [
            Asked(
                "Title: Rome\nContext: Rome is old.\nQuestion: What is old?\nAnswer:",
                [" Rome\n"], 0, answers=("Rome", "the city Rome"),
            ),
            Asked(
                "Title: Rome\nContext: Rome is old.\nQuestion: How is it?\nAnswer:",
                [" old\n"], 0, answers=("old",),
            ),
        ],
        train_as="language_model",
        metric="squad",
    ),
    "drop": Task(
        DROP,
        [
            {"passage": GAME, "question": "How many points? ",
             "answers_spans": {
                 "spans": ["5", "five yards", "5"], "types": ["number", "span", "span"]}},
            {"passage": GAME, "question": "When?",
             "answers_spans": {"spans": ["9 May"], "types": ["date"]}},
        ],
        [
            Asked(
                "Passage: The Bears won 5 to 3 on May 9.\nQuestion: How many points?\nAnswer:",
                [" 5\n"], 0, answers=("5", "five yards"),
            ),
            Asked(
                "Passage: The Bears won 5 to 3 on May 9.\nQuestion: When?\nAnswer:",
                [" 9 May\n"], 0, answers=("9 May",),
            ),
        ],
        train_as="language_model",
        metric="drop",
    ),
    "winogrande": Task(
        [
            {"sentence": "Ann thanked Bo because _ was late.", "option1": "Ann", "option2": "Bo",
             "answer": "2"},
            {"sentence": "_'s cup fell.", "option1": "Ann", "option2": "Bo", "answer": "1"},
        ],
        [
            {"sentence": "Ann thanked Bo because _ was late.", "option1": "Ann", "option2": "Bo",
             "answer": "2"},
            {"sentence": "_'s cup fell.", "option1": "Ann", "option2": "Bo", "answer": "1"},
        ],
        [
            Asked(
                "Ann thanked Bo because", [" Ann was late.", " Bo was late."], 1, calibration=""
            ),
            Asked("", ["Ann's cup fell.", "Bo's cup fell."], 0, calibration=""),
        ],
        train_as="language_model",
    ),
}  # fmt: skip

# The prompt of the second row if task.prompts=empty; those of SST-2, RTE and COPA are ZO-Bench's.
EMPTY = {
    "sst2": "bad .",
    "rte": 'A man.\n"It is Bo."\n',
    "cb": 'A man?\n"no man"\n',
    "boolq": "Rome is old. Is it new?\n",
    "wsc": "Bo saw the cup, and it fell.\nit\nthe cup\n",
    "wic": "set\nA set.\nSet it.\n",
    "multirc": "Ann is a man.\nWho is Ann?\nA guitar\n",
    "copa": "Ann sleeps",
    "record": "Ann met Bo in Rome.\n- Ann is glad\n- Bo is Robert\n",
    "squad": "Rome\nRome is old.\nHow is it?",
    "drop": "The Bears won 5 to 3 on May 9.\nWhen?",
    "winogrande": "",
}
