"""Places to write to, checked before anything is measured."""

from __future__ import annotations

import argparse
from pathlib import Path

PICTURES = (".png", ".svg", ".pdf")


def file(text: str) -> Path:
    """The type of an argument that names a file to write: its folder must be there."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(
            f"given {text!r}; allowed: a file in a folder that is there"
        )
    return path


def picture(text: str) -> Path:
    """The same for a picture, whose suffix says of what kind."""
    path = file(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"given {text!r}; allowed: a {', '.join(PICTURES)} file")
    return path
