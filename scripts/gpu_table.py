"""Print the table of what a step costs on a GPU, from the newest results of gpu_check.py.

python scripts/gpu_table.py                           print it, in Markdown
python scripts/gpu_table.py --into scripts/README.md  replace the table that the document has

Results are the files gpu_*.jsonl in .assets/bench/; the newest is the one with the latest date in
its first line. A document has the table between two comments, gpu_table and /gpu_table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / ".assets" / "bench"
START, END = "<!-- gpu_table -->\n", "<!-- /gpu_table -->\n"

_HEADER = (
    "| model, bf16 | rows x tokens | two forwards | a step | ratio | published | that / ours |\n"
    "|---|---|---|---|---|---|---|\n"
)
_NAMES = {"opt": "OPT"}

Line = Mapping[str, Any]


def main() -> int:
    """Print the table, or write it into a document, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, metavar="FILE", help="a document with the comments")
    args = parser.parse_args()
    text = table(RESULTS)
    if args.into is None:
        print(text, end="")
        return 0
    document = args.into.read_text(encoding="utf-8")
    if between(document) is None:
        print(
            f"--into: {args.into} has no lines {START.strip()} and {END.strip()}", file=sys.stderr
        )
        return 2
    before, _, rest = document.partition(START)
    _, _, after = rest.partition(END)
    args.into.write_text(before + START + text + END + after, encoding="utf-8")
    return 0


def table(folder: Path) -> str:
    """Return the table of the newest results in a folder; empty without any."""
    results = [_lines(path) for path in sorted(folder.glob("gpu_*.jsonl"))]
    if not results:
        return ""
    about, *checks = max(results, key=lambda lines: str(lines[0]["date"]))
    by_name = {line["check"]: line for line in checks}
    about = {**by_name.get("device", {}), **about}
    steps = [line for name, line in by_name.items() if name.startswith("step_") and "ms" in line]
    rows = map(_row, sorted(steps, key=lambda line: (_size(line["model"]), -line["length"])))
    return f"{_HEADER}{''.join(rows)}\n{_made_with(about)}\n"


def between(document: str) -> str | None:
    """Return what a document has between the comments; None if it does not have them."""
    _, start, rest = document.partition(START)
    text, end, _ = rest.partition(END)
    return text if start and end else None


def _lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _row(line: Line) -> str:
    ms, options = line["ms"], line["options"]
    own = ms["answer_only"]  # as a run computes it, unless it is told not to
    shape = f"{line['batch']} x {line['length']}" + (f", {options} options" if options > 1 else "")
    cells = [_model(line["model"]), shape, _ms(ms["two_forwards"]), f"**{_ms(own)}**"]
    cells.append(f"{own / ms['two_forwards']:.2f}")
    published = ms.get("published")
    cells += ["", ""] if published is None else [_ms(published), f"{published / own:.1f}x"]
    return f"| {' | '.join(cells)} |\n"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def _model(name: str) -> str:
    family, _, size = name.partition("-")
    return f"{_NAMES.get(family, family)}-{size.upper()}"


def _size(name: str) -> float:
    number = name.rpartition("-")[2]
    return float(number[:-1]) * {"b": 1e9, "m": 1e6}[number[-1]]


def _made_with(about: Line) -> str:
    """Return a line with the card, the driver, the versions and the commit."""
    card = about.get("card") or about["name"]
    versions = ", ".join(
        f"{name} {about[name]}"
        for name in ("driver", "cuda", "python", "torch", "triton", "transformers")
        if about.get(name) is not None
    )
    return f"{card}; {versions}; commit {_short(about)}, {_day(about)}."


def _short(about: Line) -> str:
    commit, plus, changes = str(about.get("commit") or "unknown").partition("+")
    return f"{commit[:7]}{plus}{changes}"


def _day(about: Line) -> str:
    return str(about["date"]).split()[0]


def checked(documents: Iterable[Path]) -> list[Path]:
    """Return those of the documents whose table is not that of the newest results."""
    wanted = table(RESULTS)
    found = ((path, between(path.read_text(encoding="utf-8"))) for path in documents)
    return [path for path, text in found if text is not None and text != wanted]


if __name__ == "__main__":
    sys.exit(main())
