from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tasks.joined_rows import TASKS, task_of, write
from tasks.word_tokens import masked_words

from lozo_bench.config.build import build
from lozo_bench.errors import UserError
from lozo_bench.tasks.fewshot import draw_per_label
from lozo_bench.tasks.joined import JoinedPrompt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(("seed", "count", "classes", "k"), [(42, 500, 2, 16), (13, 90, 3, 5)])
def test_draw_equals_the_published_algorithm(seed: int, count: int, classes: int, k: int) -> None:
    labels = [int(x) for x in np.random.RandomState(7).randint(0, classes, count)]
    indices = list(range(count))
    np.random.RandomState(seed).shuffle(indices)
    train: list[int] = []
    dev: list[int] = []
    for index in indices:
        same = [i for i in train if labels[i] == labels[index]]
        if len(same) < k:
            train.append(index)
        elif sum(labels[i] == labels[index] for i in dev) < k:
            dev.append(index)
    assert draw_per_label(labels, k, seed) == (train, dev)
    assert len(train) == len(dev) == classes * k
    assert [labels[i] for i in train] != sorted(labels[i] for i in train)  # not grouped


def test_long_rows_are_dropped_before_the_draw(tmp_path: Path) -> None:
    rows = [f"{'a ' * (1 + n % 7)}row {n}\t{n % 2}" for n in range(60)]
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "\n".join(rows[:14]) + "\n")
    node = task_of("sst2_clora", tmp_path)
    splits = build(node["source"] | {"k": 3}, "task.source").splits()
    assert (splits.train, splits.dev, splits.test) == ([], [], [])
    assert splits.fitted is not None
    numbers = " ".join(f"Ġ{n}" for n in range(60))
    tokenizer = masked_words([f"<s> a Ġa Ġrow {numbers} Ġ. ĠIt Ġwas <mask> Ġ. </s> bad great"])

    def drawn(limit: int) -> list[int]:
        made = JoinedPrompt(tokenizer, node["template"], ["bad", "great"], limit, masked=True)
        assert splits.fitted is not None
        fitted = splits.fitted(made.fits)
        assert all(len(made.encode(row).rows[0]) <= limit for row in fitted.train + fitted.dev)
        return [int(row.where.rpartition(":")[2]) - 2 for row in fitted.train + fitted.dev]

    # Besides its n % 7 + 1 times "a", row n has 9 tokens: <s> row N . It was <mask> . </s>
    short = [n for n in range(60) if 1 + n % 7 + 9 <= 13]
    for limit, kept in ((13, short), (512, list(range(60)))):
        train, dev = draw_per_label([n % 2 for n in kept], 3, 42)
        assert drawn(limit) == [kept[i] for i in train + dev]
    made = JoinedPrompt(tokenizer, node["template"], ["bad", "great"], 13, masked=True)
    fitted = splits.fitted(made.fits)
    assert [int(row.where.rpartition(":")[2]) - 2 for row in fitted.test] == [
        n for n in range(14) if n in short
    ]


def test_too_few_short_rows_of_a_label_are_refused(tmp_path: Path) -> None:
    write(tmp_path, TASKS["sst2_clora"])
    splits = build(task_of("sst2_clora", tmp_path)["source"] | {"k": 1}, "task.source").splits()
    assert splits.fitted is not None
    with pytest.raises(
        UserError, match=r"^task\.source\.k: given 1; label '0' has 0 rows .* 2 are"
    ):
        splits.fitted(lambda rows: [False] * len(rows))


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"k": 0}, "k"),
        ({"seed": -1}, "seed"),
        ({"files": {"train": "train"}}, "files"),
        ({"hub": None}, "hub"),
    ],
)
def test_arguments_out_of_range_are_refused(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^task\.source\.{key}: given "):
        build(task_of("sst2_clora", None)["source"] | changed, "task.source")


def test_sst2_draw_equals_the_published_algorithm(real_data: Callable[[str], Path]) -> None:
    node = task_of("sst2_clora", real_data("sst2"))
    splits = build(node["source"], "task.source").splits()
    assert splits.fitted is not None
    made = splits.fitted(lambda rows: [True] * len(rows))  # no row has close to 512 tokens
    (file,) = real_data("sst2").glob("train*.tsv")
    lines = file.read_text().splitlines()[1:]
    order = list(range(len(lines)))
    np.random.RandomState(42).shuffle(order)
    by_label: dict[str, list[int]] = {"0": [], "1": []}
    for place in order:
        by_label[lines[place].split("\t")[1]].append(place)
    first = {label: set(places[:16]) for label, places in by_label.items()}
    expected = [place for place in order if place in first["0"] | first["1"]]
    assert [row.where.rpartition(":")[2] for row in made.train] == [str(p + 2) for p in expected]
    assert (len(made.dev), len(made.test)) == (32, 872)
