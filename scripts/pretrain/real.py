"""Real pre-training rows from a folder of data sets, without texts that are held out for tests."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

from lozo_bench.errors import bad_data
from pretrain.rows import Row

# Words by class. None of them is a label word of fine-tuning on SST-2, SST-5, NLI or TREC.
SENTIMENT = ((" awful", " horrible", " dreadful"), (" wonderful", " excellent", " brilliant"))
FINE_SENTIMENT = (SENTIMENT[0], (" poor",), (" average",), (" nice",), SENTIMENT[1])
NLI = {
    "contradiction": (" False", " Never"),
    "not_entailment": (" False", " Never"),
    "entailment": (" True", " Right"),
    "neutral": (" Perhaps", " Possibly"),
}
TOPICS = (
    (" Reason", " Meaning"), (" Thing", " Object"), (" Letters", " Initials"),
    (" Person", " Somebody"), (" Place", " Region"), (" Amount", " Count"),
)  # fmt: skip
NOTE = (
    "Trained on real English: SST-2, and the 512-shot training rows of SST-5, SNLI, MNLI, RTE and"
    " TREC, without any text that equals a held-out one (dev and test files, SST-2 few-shot rows,"
    " 16-shot rows, SuperGLUE) or shares six words in a row with it. Labelled rows carry other"
    " label words than fine-tuning uses."
)
# Label words of fine-tuning, which must be single tokens: only the tokenizer's text repeats them.
TOKEN_WORDS = (
    "terrible bad okay good great No Yes Maybe Description Entity Expression Human Location Number"
)
NLI_TASKS = ("SNLI", "MNLI", "RTE")
# A text that shares this many consecutive words with a held-out text is left out too.
RUN = 6


class HeldOut:
    """Texts that must not be trained on, and every text that shares `RUN` consecutive words."""

    def __init__(self) -> None:
        self._texts: set[tuple[str, ...]] = set()
        self._runs: set[tuple[str, ...]] = set()

    def add(self, text: str) -> None:
        """Hold out ``text``; case, punctuation and spacing are ignored."""
        words = _words(text)
        self._texts.add(words)
        self._runs.update(_runs(words))

    def touches(self, text: str) -> bool:
        """Return whether ``text`` equals or overlaps a held-out text."""
        words = _words(text)
        return words in self._texts or any(run in self._runs for run in _runs(words))


def rows(folder: Path, kind: str, seed: int) -> list[Row]:
    """Return labelled rows with other label words than fine-tuning, and a third of the texts plain.

    Args:
        folder: holds ``sst2/train_full.tsv``, ``sst2/dev.tsv``, ``kshot/TASK/512-42/train.*`` and
            ``superglue/TASK/*.jsonl``.
        kind: "causal" or "masked".
        seed: of the draws.

    Raises:
        UserError: names the file or line that is missing or malformed.
    """
    kept = held_out(folder)
    rng = Random(f"real/{kind}/{seed}")
    made: list[Row] = []
    for row, texts in _labelled(folder, kind, rng):
        if any(kept.touches(text) for text in texts):
            continue
        made.append(row)
        if rng.random() < 1 / 3:
            made.extend(Row(text) for text in texts)
    rng.shuffle(made)
    return made


def held_out(folder: Path) -> HeldOut:
    """Return all held-out texts.

    They are all dev and test files, every few-shot row of SST-2, every 16-shot row and all of
    SuperGLUE.
    """
    kept = HeldOut()
    for path in _files(folder, "kshot/*/*/*"):
        task, shots = path.parts[-3], path.parts[-2]
        if not path.name.startswith("train") or task == "SST-2" or shots.startswith("16-"):
            for texts, _ in _read(path, task):
                for text in texts:
                    kept.add(text)
    for texts, _ in _read(folder / "sst2" / "dev.tsv", "SST-2"):
        kept.add(texts[0])
    for path in _files(folder, "superglue/*/*.jsonl"):
        lines = path.read_text(encoding="utf-8").split("\n")
        for text in _strings([json.loads(line) for line in lines if line]):
            kept.add(text)
    return kept


def _labelled(folder: Path, kind: str, rng: Random) -> Iterator[tuple[Row, tuple[str, ...]]]:
    for texts, label in _read(folder / "sst2" / "train_full.tsv", "SST-2"):
        yield Row(f"{texts[0]} It was", rng.choice(SENTIMENT[int(label)]), "."), texts
    shots = folder / "kshot"
    for texts, label in _read(shots / "sst-5" / "512-42" / "train.csv", "sst-5"):
        yield Row(f"{texts[0]} It was", rng.choice(FINE_SENTIMENT[int(label)]), "."), texts
    for task in NLI_TASKS:
        for texts, label in _read(shots / task / "512-42" / "train.tsv", task):
            yield _nli(texts, rng.choice(NLI[label]), kind), texts
    for texts, label in _read(shots / "trec" / "512-42" / "train.csv", "trec"):
        word = rng.choice(TOPICS[int(label)])
        question = texts[0]
        row = (
            Row("", word, f": {question}")
            if kind == "masked"
            else Row(f"{question} Topic:", word, ".")
        )
        yield row, texts


def _nli(texts: tuple[str, ...], word: str, kind: str) -> Row:
    premise, hypothesis = texts
    if kind == "masked":
        return Row(f"{premise[:-1]}?", word, f", {hypothesis[:1].lower()}{hypothesis[1:]}")
    return Row(f"{premise} Question: {hypothesis} Answer:", word, ".")


def _read(path: Path, task: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the texts and the label of every row.

    A csv file has the label first; a tsv file has a header and the label last.
    """
    if not path.is_file():
        raise bad_data(str(path), "no such file; --corpus must hold sst2/, kshot/ and superglue/")
    with path.open(encoding="utf-8", newline="") as lines:
        if path.suffix == ".csv":
            for number, fields in enumerate(csv.reader(lines), start=1):
                if len(fields) != 2:
                    raise bad_data(f"{path}:{number}", f"{len(fields)} columns; expected 2")
                yield (fields[1].strip(),), fields[0]
            return
        header = next(lines).rstrip("\n").split("\t")
        names = ("sentence1", "sentence2") if "sentence1" in header else ("sentence",)
        columns = [header.index(name) for name in names]
        for number, line in enumerate(lines, start=2):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) <= max(columns):
                raise bad_data(f"{path}:{number}", f"{len(fields)} columns; expected {header}")
            yield tuple(fields[column].strip() for column in columns), fields[-1]


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not found:
        raise bad_data(
            str(folder),
            f"no file matches {pattern}; --corpus must hold sst2/, kshot/ and superglue/",
        )
    return found


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def _runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (words[start : start + RUN] for start in range(len(words) - RUN + 1))
