"""The plain data that flows through this room: rows in, token sequences out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled row of a data set.

    ``fields`` holds the texts by name and ``where`` the place the row came from (``path:line``),
    for error messages. ``label`` is the class id: which of the options is trained on.

    ``options`` are the row's own options, where every row has others; else they are the task's.
    ``golds`` are all options that count as right, where that is more than ``label``. ``answers``
    are the right texts where an answer is written and not chosen; the first is trained on.
    """

    fields: Mapping[str, str]
    label: int = 0
    where: str = ""
    options: tuple[str, ...] = ()
    golds: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()


# Which of so many rows are short enough for the model's prompt, one answer for each.
Fits = Callable[[Sequence[Example]], Sequence[bool]]


@dataclass(frozen=True, slots=True)
class Splits:
    """The three sets of one run: trained on, selected on, reported on.

    ``pool`` reads all rows that demonstrations may be drawn from; None: those trained on.
    ``fitted``, where a draw depends on which rows fit the model, makes the sets; until then they
    are empty.
    """

    train: list[Example] = field(default_factory=list)
    dev: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    pool: Callable[[], Sequence[Example]] | None = None
    fitted: Callable[[Fits], Splits] | None = None


class Source(Protocol):
    """Where rows come from. A config node ``task.source`` names one by its ``_target_``."""

    def splits(self) -> Splits:
        """Read and check every row. Raises UserError naming file and line."""
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token sequences.

    A masked model reads one sequence, whose ``answer`` is the position of the mask token. A causal
    model reads one sequence per option, whose ``answer`` are the positions of the option's tokens;
    where an answer is written and not chosen, there is one, with the text that is trained on.

    ``golds`` are the options that count as right, if they are more than ``label``. ``prompt`` are
    the tokens from which an answer is written, ``answers`` the texts that would be right.
    ``calibration`` has the same options without the row, for scores that are taken relative to it.
    """

    rows: tuple[tuple[int, ...], ...]
    answer: tuple[tuple[int, ...], ...]
    label: int
    golds: tuple[int, ...] = ()
    prompt: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()
    calibration: Encoded | None = None

    def only_gold(self) -> Encoded:
        """The same with the option that is trained on alone, as language modelling sees it."""
        rows, answer = (self.rows[self.label],), (self.answer[self.label],)
        return replace(self, rows=rows, answer=answer, label=0, golds=())


class Prompt(Protocol):
    """How a row becomes tokens for one kind of model."""

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """Token sequences of ``example`` and the positions that matter.

        ``shown`` are demonstrations, rows with their answers, that stand before it.
        """
        ...
