"""How all figures look: colours, lines and letters, and how a figure becomes a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lozo_bench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; then other line styles.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
BAND = 0.18  # opacity of the band of one standard deviation
_RC: Any = {
    "font.size": 9,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "lozo-bench",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@contextmanager
def style(command: str) -> Iterator[None]:
    """Within this context, figures have this package's style.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(f"{command} needs matplotlib: pip install 'lozo-bench[plots]'") from error
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # or it tells where its fonts are
    with matplotlib.rc_context(_RC):
        yield


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the colour and the line style of each name."""
    many = len(COLOURS)
    return {
        name: (COLOURS[number % many], STYLES[number // many % len(STYLES)])
        for number, name in enumerate(names)
    }


def save(figure: Figure, out: Path) -> None:
    """Write a figure as a .png, .svg or .pdf file; the same figure gives the same file.

    Raises:
        UserError: matplotlib cannot write such a file.
    """
    try:
        figure.savefig(out, dpi=160, metadata=_WITHOUT_DATE.get(out.suffix))
    except (ValueError, OSError) as error:
        raise UserError(f"--out: {out} cannot be written: {error}") from error


_WITHOUT_DATE: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
