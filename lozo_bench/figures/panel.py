"""What a panel of a figure is: where its numbers come from, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lozo_bench.config.schema import Shown
from lozo_bench.runs.outcome import RESULT
from lozo_bench.tables.cells import Run, Sweep
from lozo_bench.tables.table import Table, build_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Source:
    """The runs that a panel shows: those of an experiment, which overrides narrow."""

    experiment: str
    overrides: tuple[str, ...] = ()

    def words(self, given: Sequence[str]) -> list[str]:
        """Return the overrides of the sweep; what the user gave replaces this source's own."""
        typed = {_key(word) for word in given}
        own = [word for word in self.overrides if _key(word) not in typed]
        return [f"experiment={self.experiment}", *own, *given]


class Panel(Protocol):
    """One pair of axes.

    Attributes:
        title: what it shows.
        source: the runs; None if it shows none, but what others measured.
    """

    @property
    def title(self) -> str:
        """What the panel shows."""
        ...

    @property
    def source(self) -> Source | None:
        """The runs; None if it shows none of ours."""
        ...

    def draw(self, axes: Axes, sweep: Sweep | None) -> bool:
        """Draw what is finished, and return whether there was anything.

        Args:
            axes: where.
            sweep: the runs of the source.
        """
        ...


def finished(sweep: Sweep | None) -> list[Run]:
    """Return the runs of a sweep that have a result."""
    return [] if sweep is None else [run for run in sweep.runs if (run.folder / RESULT).exists()]


def table_of(sweep: Sweep | None, show: Shown) -> Table:
    """Return the table of a sweep that shows this."""
    assert sweep is not None
    return build_table([replace(sweep, table=replace(sweep.table, show=show))])


def _key(word: str) -> str:
    return word.split("=", 1)[0]
