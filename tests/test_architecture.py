"""Imports point one way: a room imports only the rooms below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lozo_bench"

# Each room with the rooms that it may import; a file directly in the package is a room of its own.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "hub": set(),
    "config": {"errors"},
    "randomness": {"errors"},
    "tasks": {"config", "errors", "hub"},
    "engine": {"errors", "randomness"},
    "models": {"config", "engine", "errors", "hub", "randomness"},
    "tuning": {"config", "engine", "errors", "models", "randomness"},
    "optimizers": {"engine", "errors", "randomness"},
    "allocation": {"config", "engine", "errors", "optimizers", "randomness", "tuning"},
    "data": {
        "config", "engine", "errors", "models", "optimizers", "progress", "randomness", "tasks",
        "tuning",
    },
    "objectives": {"data", "engine", "errors", "models", "tasks"},
    "evaluation": {"data", "engine", "errors", "objectives", "tasks"},
    "parallel": {"engine", "errors"},
    "runs": {"errors"},
    "display": {"config", "errors", "evaluation", "optimizers", "runs"},
    "training": {
        "allocation", "config", "data", "display", "engine", "errors", "evaluation", "models",
        "objectives", "optimizers", "parallel", "randomness", "runs", "tasks", "tuning",
    },
    "tables": {"config", "errors", "runs"},
    "estimate": {
        "config", "data", "engine", "errors", "evaluation", "models", "optimizers", "randomness",
        "runs", "tasks", "training", "tuning",
    },
    "launch": {"config", "display", "errors", "estimate", "progress", "runs", "tables", "training"},
    "train": {"config", "errors", "launch", "runs", "training"},
    "after": {
        "config", "data", "engine", "errors", "estimate", "evaluation", "objectives", "parallel",
        "runs", "tables", "tasks", "training", "tuning",
    },
    "plots": {"api", "errors", "runs"},
    "report": {"api", "config", "display", "errors", "plots", "runs", "tables"},
    "figures": {"config", "display", "errors", "plots", "runs", "tables"},
    "api": {"config", "engine", "errors", "launch", "optimizers", "randomness", "runs", "tables"},
}  # fmt: skip

# Which rooms may import a library that most of the package does not need.
OUTSIDE = {
    "hydra": {"after", "api", "config", "launch", "tables", "train"},
    "hydra_plugins": {"launch"},
    "submitit": {"launch"},
    "wandb": {"display"},
    "omegaconf": {"api", "config", "launch", "report", "tables", "train", "training"},
    "matplotlib": {"display", "figures", "plots"},
    "rich": {"after", "display", "estimate", "launch", "progress", "runs", "tables"},
    "datasets": {"tasks"},
    "triton": {"engine", "randomness"},
    # Types of tokenizers and models, except in models; Adafactor in optimizers.
    "transformers": {"models", "objectives", "optimizers", "tasks", "tuning"},
    "peft": {"models", "tuning"},
    "cma": {"optimizers"},
}


def imports():
    """Yield (room, imported module) for every import in the package."""
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            yield from ((room, name) for name in names)


FOUND = sorted({(room, name) for room, name in imports() if room != "__init__"})


def test_every_room_is_on_the_map():
    assert {room for room, _ in FOUND} <= set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_the_rooms_below_it(room):
    ours = {name.split(".")[1] for at, name in FOUND if at == room and name[:11] == "lozo_bench."}
    assert ours - {room} <= ALLOWED[room]


@pytest.mark.parametrize("library", OUTSIDE)
def test_a_library_is_imported_only_by_the_rooms_that_may_use_it(library):
    users = {room for room, name in FOUND if name.split(".")[0] == library}
    assert users <= OUTSIDE[library]


def test_the_engine_needs_only_torch_transformers_numpy_and_triton():
    """So it runs on a machine without the other dependencies, and in other projects."""
    outside = {name.split(".")[0] for room, name in FOUND if room == "engine"}
    outside -= {"lozo_bench", "__future__", *sys.stdlib_module_names}
    assert outside <= {"torch", "transformers", "numpy", "triton"}


def test_the_allowed_imports_have_no_cycles():
    order: list[str] = []
    left = dict(ALLOWED)
    while left:
        free = [room for room, below in left.items() if below <= set(order)]
        assert free, left
        order += free
        left = {room: below for room, below in left.items() if room not in free}


def test_the_entry_point_imports_no_slow_library():
    """`--help`, `--cfg job` and tab completion must respond at once."""
    code = (
        "import sys, lozo_bench.train; slow = 'torch', 'transformers', 'wandb', 'datasets', 'cma'; "
        "print([m for m in slow if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"
