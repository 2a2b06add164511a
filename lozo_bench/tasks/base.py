"""The data types of a task: labelled rows go in, token sequences come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled row of a data set.

    Attributes:
        fields: The texts of the row by field name.
        label: The class id, which is the index of the option that is trained on.
        where: Where the row was read (``path:line``), for error messages.
        options: The row's own options, if every row has different ones. Empty if the options are
            those of the task.
        golds: The indices of all options that count as correct, if ``label`` is not the only one.
        answers: The correct texts, if the model generates an answer instead of choosing an option.
            The first one is trained on.
    """

    fields: Mapping[str, str]
    label: int = 0
    where: str = ""
    options: tuple[str, ...] = ()
    golds: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()


# Return for each row whether its prompt is short enough for the model.
Fits = Callable[[Sequence[Example]], Sequence[bool]]


@dataclass(frozen=True, slots=True)
class Splits:
    """The three sets of rows of one run.

    Attributes:
        train: The rows to train on.
        dev: The rows on which the best step is selected.
        test: The rows on which the result is reported.
        pool: Return all rows from which demonstrations may be drawn. None means the train rows.
        fitted: Draw the three sets. It is given if the draw depends on which rows fit the model's
            maximum length; the three sets above are empty in this case. Otherwise None.
    """

    train: list[Example] = field(default_factory=list)
    dev: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    pool: Callable[[], Sequence[Example]] | None = None
    fitted: Callable[[Fits], Splits] | None = None


class Source(Protocol):
    """Interface to the rows of a task. The config key ``task.source._target_`` names the class."""

    def splits(self) -> Splits:
        """Read and check every row.

        Raises:
            UserError: A row is malformed; the message names file and line.
        """
        ...


@runtime_checkable
class ReadsTest(Source, Protocol):
    """A source that can read its test rows alone, as a task that is held out needs it."""

    def test(self) -> list[Example]:
        """Read and check the test rows.

        Raises:
            UserError: A row is malformed; the message names file and line.
        """
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token sequences.

    A masked model reads one sequence. A causal model reads one sequence per option, or a single
    sequence with the first correct answer if it generates the answer.

    Attributes:
        rows: The token ids of each sequence.
        answer: For each sequence, the positions whose tokens are scored: the mask token of a
            masked model, or the tokens of the option or answer of a causal model.
        label: The index of the option that is trained on.
        golds: The indices of all options that count as correct, if ``label`` is not the only one.
        prompt: The token ids after which the model generates an answer.
        answers: The texts that count as correct generated answers.
        calibration: The same options after a prompt without the row. Scores are taken relative to
            the scores of these sequences (surface form calibration, SFC).
        cut: Whether tokens of the row, or of what is shown before it, were dropped because it is
            longer than the task allows.
        task: The name of the row's task, if the run has several.
    """

    rows: tuple[tuple[int, ...], ...]
    answer: tuple[tuple[int, ...], ...]
    label: int
    golds: tuple[int, ...] = ()
    prompt: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()
    calibration: Encoded | None = None
    cut: bool = False
    task: str = ""

    def only_gold(self) -> Encoded:
        """Return a copy that has only the option to train on, as language modelling needs it."""
        rows, answer = (self.rows[self.label],), (self.answer[self.label],)
        return replace(self, rows=rows, answer=answer, label=0, golds=())


class TaskPrompt(Protocol):
    """Interface to the conversion of a row into tokens for one kind of model."""

    def encode(self, example: Example, shown: Sequence[Example] = ()) -> Encoded:
        """Return the token sequences of an example and the positions that are scored.

        Args:
            example: The row to encode.
            shown: Demonstrations: other rows, which appear with their correct answers before it.
        """
        ...
