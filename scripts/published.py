"""Write the published hyperparameters as config files: ``conf/tuned`` and ``conf/grid``.

python scripts/published.py          updates the files that differ and prints their names
python scripts/published.py --check  writes nothing; the exit code is 1 if a file differs

`scripts/published_facts.py`, `published_hetero.py` and `published_bilevel.py` hold what the papers
say. Each file in ``conf/tuned`` has the values for one method, model and task.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import published_bilevel
import published_facts
import published_hetero
from published_facts import GRIDS, Facts, Grid

FACTS = (*published_facts.FACTS, *published_hetero.FACTS, *published_bilevel.FACTS)
CONF = Path(__file__).resolve().parents[1] / "conf"
MARK = "Written by scripts/published.py"


def main() -> int:
    """Write or check the files and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only compare; write nothing")
    check = parser.parse_args().check
    wanted = files()
    stale = {path for path in written() if path not in wanted}
    differs = {path for path, text in wanted.items() if not _has_text(path, text)} | stale
    for path in sorted(differs):
        print(path)
        if check:
            continue
        if path in stale:
            (CONF / path).unlink()
        else:
            (CONF / path).parent.mkdir(parents=True, exist_ok=True)
            (CONF / path).write_text(wanted[path], encoding="utf-8")
    return int(check and bool(differs))


def files() -> dict[str, str]:
    """Return the text of every file, by its path below ``conf``."""
    found = {f"grid/{name}.yaml": _grid_text(name, grid) for name, grid in GRIDS.items()}
    for facts in FACTS:
        for model in facts.models:
            for task in facts.tasks:
                path = f"tuned/{facts.tuning}/{facts.optimizer}-{model}-{task}.yaml"
                assert path not in found, f"two facts write {path}"
                found[path] = _tuned_text(facts, model, task)
    return found


def written() -> Iterator[str]:
    """Yield the paths of the existing files that this script wrote."""
    for path in CONF.rglob("*.yaml"):
        if MARK in path.read_text(encoding="utf-8"):
            yield path.relative_to(CONF).as_posix()


def _has_text(path: str, text: str) -> bool:
    file = CONF / path
    return file.is_file() and file.read_text(encoding="utf-8") == text


def _grid_text(name: str, grid: Grid) -> str:
    lines = ["# @package _global_", f"# lozo-train -m {grid.use} grid={name}"]
    lines += _comment(f"{MARK} from: {grid.source}.")
    lines += ["hydra:", "  sweeper:", "    params:"]
    lines += [f"      {key}: {choices}" for key, choices in grid.choices.items()]
    return "\n".join(lines) + "\n"


def _tuned_text(facts: Facts, model: str, task: str) -> str:
    tuning = "" if facts.tuning == "full" else f" tuning={facts.tuning}"
    command = f"lozo-train model={model} task={task} optimizer={facts.optimizer}{tuning}"
    lines = ["# @package _global_", f"# Used by: {command}"]
    lines += _comment(f"{MARK} from: {facts.source}." if facts.source else f"{MARK}.")
    for name in facts.grids:
        choices = "; ".join(f"{key} {value}" for key, value in GRIDS[name].choices.items())
        lines += _comment(f"grid={name}: {choices}")
    lines += _comment(facts.here)
    of_task = facts.of_task(task) if facts.of_task else {}
    values = {**facts.values, **of_task}
    return "\n".join([*lines, *_yaml(_nested(values))]) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 99, initial_indent="# ", subsequent_indent="# ")


def _nested(flat: Mapping[str, str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *nodes, name = key.split(".")
        parent = nested
        for node in nodes:
            parent = parent.setdefault(node, {})
        parent[name] = value
    return nested


def _yaml(node: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _yaml(value, indent + "  ")
        else:
            yield f"{indent}{name}: {value}"


if __name__ == "__main__":
    sys.exit(main())
