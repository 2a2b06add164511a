"""The project's documents and the code blocks in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            path
            for folder in ("conf", "lozo_bench", "scripts", "tests")
            for path in (ROOT / folder).rglob("*.md")
        ),
    ]
)


def blocks(path):
    """The code blocks of a document, in order: (what stands after the backticks, the text)."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```(\w[\w ]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def without_blocks(path):
    """The text of a document outside its code blocks."""
    return re.sub(
        r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
