"""The plain data that flows through this room: rows in, token sequences out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled row of a data set.

    ``fields`` holds the texts by name, ``label`` the class id, and ``where`` the place the row
    came from (``path:line``), for error messages.
    """

    fields: Mapping[str, str]
    label: int
    where: str = ""


@dataclass(frozen=True, slots=True)
class Splits:
    """The three sets of one run: trained on, selected on, reported on."""

    train: list[Example] = field(default_factory=list)
    dev: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)


class Source(Protocol):
    """Where rows come from. A config node ``task.source`` names one by its ``_target_``."""

    def splits(self) -> Splits:
        """Read and check every row. Raises UserError naming file and line."""
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token sequences.

    A masked model reads one sequence, whose ``answer`` is the position of the mask token. A causal
    model reads one sequence per option, whose ``answer`` are the positions of the option's tokens.
    """

    rows: tuple[tuple[int, ...], ...]
    answer: tuple[tuple[int, ...], ...]
    label: int


class Prompt(Protocol):
    """How a row becomes tokens for one kind of model."""

    def encode(self, example: Example) -> Encoded:
        """Token sequences of ``example`` and the positions that matter."""
        ...
