"""Types of arguments that name output files, checked before anything is measured."""

from __future__ import annotations

import argparse
from pathlib import Path

PICTURES = (".png", ".svg", ".pdf")


def file(text: str) -> Path:
    """Return the path of a file to write; its folder must exist."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"given {text!r}; allowed: a file in a folder that exists")
    return path


def picture(text: str) -> Path:
    """Return the path of a picture to write; its suffix names the format."""
    path = file(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"given {text!r}; allowed: a {', '.join(PICTURES)} file")
    return path
