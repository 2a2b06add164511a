"""Rows of C-LoRA's tasks in the format of their files, with the expected tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf" / "task"

Line = Callable[..., str]


@dataclass(frozen=True)
class Task:
    """The expected properties of a task.

    ``train`` and ``test`` name the files, which begin with ``header``. ``line`` formats a line from
    a label, one of ``labels``, and texts. ``rows`` are the labels and texts of two rows, ``masked``
    and ``causal`` their tokens for the two kinds of models, and ``gold`` their class ids. ``words``
    are the first tokens of the class words for the two kinds of models.
    """

    train: str
    test: str
    line: Line
    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    masked: tuple[str, ...]
    causal: tuple[str, ...]
    gold: tuple[int, ...]
    words: tuple[str, str]
    header: str = ""
    metric: str = "accuracy"


def tabbed(*columns: str) -> Line:
    """Format a line of a .tsv file; ``label``, ``0``, ``1`` stand for the label and the texts."""

    def line(label: str, *texts: str) -> str:
        named = {"label": label} | {str(n): text for n, text in enumerate(texts)}
        return "\t".join(named.get(column, column) for column in columns)

    return line


def quoted(*columns: str) -> Line:
    """Format a line of a .csv file with every value in quotes, as in these two data sets."""

    def line(label: str, *texts: str) -> str:
        named = {"label": label} | {str(n): text for n, text in enumerate(texts)}
        return ",".join(f'"{named.get(column, column)}"' for column in columns)

    return line


def record(label_name: str, *names: str) -> Line:
    """Format a line of a .jsonl file."""

    def line(label: str, *texts: str) -> str:
        return json.dumps({label_name: label, **dict(zip(names, texts, strict=True))})

    return line


TASKS = {
    "sst2_clora": Task(
        train="train.tsv",
        test="dev.tsv",
        header="sentence\tlabel\n",
        line=tabbed("0", "label"),
        labels=("0", "1"),
        rows=(("0", ("stale and dull ",)), ("1", ("a funny film",))),
        masked=(
            "<s> stale Ġand Ġdull Ġ Ġ. ĠIt Ġwas <mask> Ġ. </s>",
            "<s> a Ġfunny Ġfilm Ġ. ĠIt Ġwas <mask> Ġ. </s>",
        ),
        causal=("stale Ġand Ġdull Ġ Ġ. ĠIt Ġwas", "a Ġfunny Ġfilm Ġ. ĠIt Ġwas"),
        gold=(0, 1),
        words=("bad great", "negative positive"),
    ),
    "yelpp_clora": Task(
        train="train.csv",
        test="test.csv",
        line=quoted("label", "0"),
        labels=("1", "2"),
        # The files spell a new line as a backslash and an n.
        rows=(("2", (r"Good food.\nCheap.",)), ("1", ('He said ""no"".',))),
        masked=(
            "<s> Good Ġfood . ĠCheap . Ġ. ĠIt Ġwas <mask> Ġ. </s>",
            '<s> He Ġsaid Ġ" no ". Ġ. ĠIt Ġwas <mask> Ġ. </s>',
        ),
        causal=(
            "Good Ġfood . ĠCheap . Ġ. ĠIt Ġis",
            'He Ġsaid Ġ" no ". Ġ. ĠIt Ġis',
        ),
        gold=(1, 0),
        words=("bad great", "negative positive"),
    ),
    "agnews_clora": Task(
        train="train.jsonl",
        test="test.jsonl",
        line=record("label", "text"),
        labels=("0", "1", "2", "3"),
        rows=(("2", ("Oil up (AP) Oil rose.",)), ("3", ("Chip out A chip is out.",))),
        masked=(
            "<s> <mask> ĠNews : ĠOil Ġup Ġ( AP ) ĠOil Ġrose . </s>",
            "<s> <mask> ĠNews : ĠChip Ġout ĠA Ġchip Ġis Ġout . </s>",
        ),
        causal=(
            "Oil Ġup Ġ( AP ) ĠOil Ġrose . ĠNews :",
            "Chip Ġout ĠA Ġchip Ġis Ġout . ĠNews :",
        ),
        gold=(2, 3),
        words=("World Sports Business Tech", "world sports business tech"),
    ),
    "dbpedia_clora": Task(
        train="train.csv",
        test="test.csv",
        line=quoted("label", "A title", "0"),
        labels=tuple(str(n) for n in range(1, 15)),
        # The files have a space before the content. The title is not read.
        rows=(("1", (" Acme makes cars. ",)), ("14", (" It is a novel.",))),
        masked=(
            "<s> [ ĠCategory : <mask> Ġ] ĠAcme Ġmakes Ġcars . </s>",
            "<s> [ ĠCategory : <mask> Ġ] ĠIt Ġis Ġa Ġnovel . </s>",
        ),
        causal=(
            "Acme Ġmakes Ġcars . ĠThe Ġtext Ġabove Ġis Ġabout",
            "It Ġis Ġa Ġnovel . ĠThe Ġtext Ġabove Ġis Ġabout",
        ),
        gold=(0, 13),
        words=(
            "Company Education Artist A Office Trans Building Natural Vill Animal Pl Al Film "
            "Written",
            "company education artist ath office trans building natural vill animal plant album "
            "film written",
        ),
    ),
    "snli_clora": Task(
        train="train.jsonl",
        test="test.jsonl",
        line=record("gold_label", "sentence1", "sentence2"),
        labels=("entailment", "neutral", "contradiction"),
        rows=(
            ("contradiction", ("A man sits.", "A man runs.")),
            ("entailment", ("Two dogs run.", "Dogs run.")),
        ),
        masked=(
            "<s> A Ġman Ġsits . Ġ? <mask> Ġ, ĠA Ġman Ġruns . </s>",
            "<s> Two Ġdogs Ġrun . Ġ? <mask> Ġ, ĠDogs Ġrun . </s>",
        ),
        causal=(
            "A Ġman Ġsits . Ġthe ĠA Ġman Ġruns . Ġ? ĠAnswer :",
            "Two Ġdogs Ġrun . Ġthe ĠDogs Ġrun . Ġ? ĠAnswer :",
        ),
        gold=(2, 0),
        words=("Yes Maybe No", "Yes Maybe No"),
    ),
    "rte_clora": Task(
        train="train.tsv",
        test="dev.tsv",
        header="index\tsentence1\tsentence2\tlabel\n",
        line=tabbed("7", "0", "1", "label"),
        labels=("entailment", "not_entailment"),
        rows=(
            ("not_entailment", ("Dana Reeve died.", "She had an accident.")),
            ("entailment", ("It rained.", "It was wet.")),
        ),
        masked=(
            "<s> Dana ĠReeve Ġdied . Ġ? <mask> Ġ, ĠShe Ġhad Ġan Ġaccident . </s>",
            "<s> It Ġrained . Ġ? <mask> Ġ, ĠIt Ġwas Ġwet . </s>",
        ),
        causal=(
            "Dana ĠReeve Ġdied . ĠShe Ġhad Ġan Ġaccident . ĠAnswer :",
            "It Ġrained . ĠIt Ġwas Ġwet . ĠAnswer :",
        ),
        gold=(1, 0),
        words=("Yes No", "Yes No"),
    ),
    "mrpc_clora": Task(
        train="train.tsv",
        test="dev.tsv",
        header="Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n",
        line=tabbed("label", "id", "id", "0", "1"),
        labels=("0", "1"),
        rows=(
            ("1", ("Shares rose .", "The stock went up .")),
            ("0", ("He left .", "She stayed .")),
        ),
        masked=(
            "<s> Shares Ġrose Ġ. Ġ? <mask> Ġ, ĠThe Ġstock Ġwent Ġup Ġ. </s>",
            "<s> He Ġleft Ġ. Ġ? <mask> Ġ, ĠShe Ġstayed Ġ. </s>",
        ),
        causal=(
            "Shares Ġrose Ġ. Ġthe ĠThe Ġstock Ġwent Ġup Ġ. Ġ? ĠAnswer :",
            "He Ġleft Ġ. Ġthe ĠShe Ġstayed Ġ. Ġ? ĠAnswer :",
        ),
        gold=(1, 0),
        words=("No Yes", "No Yes"),
        metric="f1",
    ),
}


def task_of(name: str, data_dir: Path | None, seed: int = 42) -> dict[str, Any]:
    """Return the resolved config node of a task."""
    node = OmegaConf.load(CONF / f"{name}.yaml")
    config = OmegaConf.create({"task": node, "seed": {"value": seed}})
    config.task.data_dir = None if data_dir is None else str(data_dir)
    plain = OmegaConf.to_container(config.task, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def write(folder: Path, task: Task) -> Path:
    """Write two train rows of every label, and a test file with the rows of the task."""
    texts = ["x"] * len(task.rows[0][1])
    train = [task.line(label, *texts) for label in task.labels for _ in range(2)]
    test = [task.line(label, *row) for label, row in task.rows]
    for name, lines in ((task.train, train), (task.test, test)):
        (folder / name).write_text(task.header + "\n".join(lines) + "\n")
    return folder
