"""Imports point one way: a room knows only the rooms below it (design: the way of a batch)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lozo_bench"

# room -> the rooms it may import; files directly in the package are rooms of their own.
ALLOWED = {
    "errors": set(),
    "stop": set(),
    "leaks": set(),
    "config": {"errors"},
    "checks": {"config", "errors"},
    "build": {"errors"},
    "digest": {"models"},
    "explain": {"build", "config", "errors"},
    "provenance": set(),
    "progress": set(),
    "memory": set(),
    "runs": {"errors"},
    "status": {"errors", "runs"},
    "engine": {"errors", "stop"},
    "parallel": {"engine", "errors"},
    "optimizers": {"engine", "errors"},
    "tasks": {"checks", "config", "errors"},
    "models": {"config", "engine", "errors"},
    "batches": {"engine", "tasks"},
    "objectives": {"batches", "engine", "tasks"},
    "evaluation": {"batches", "engine", "objectives", "stop", "tasks"},
    "selection": {"config", "evaluation"},
    "tracking": {"config", "errors", "evaluation", "runs"},
    "console": {"evaluation", "tracking"},
    "engines": {"config", "engine", "optimizers"},
    "contract": {"batches", "config", "evaluation", "tasks"},
    "tuning": {"config", "engine", "errors", "models"},
    "encoding": {
        "batches", "checks", "config", "contract", "errors", "models", "objectives", "optimizers",
        "progress", "tasks", "tuning",
    },
    "aims": {
        "batches", "config", "contract", "evaluation", "models", "objectives", "optimizers",
        "tuning",
    },
    "trainer": {
        "batches", "contract", "engine", "errors", "evaluation", "memory", "objectives",
        "optimizers", "selection", "stop", "tasks",
    },
    "assemble": {
        "aims", "batches", "build", "checks", "config", "contract", "encoding", "engine",
        "engines", "errors", "evaluation", "models", "objectives", "optimizers", "parallel",
        "tasks", "trainer", "tuning",
    },
    "result": {"assemble", "config", "contract", "models", "parallel", "provenance", "runs"},
    "run": {
        "assemble", "checks", "config", "console", "contract", "digest", "errors", "explain",
        "leaks", "memory", "parallel", "provenance", "result", "runs", "status", "stop",
        "tracking", "trainer",
    },
    "replay": {
        "assemble", "config", "console", "engine", "errors", "models", "parallel", "runs",
        "trainer", "tuning",
    },
    "tables": {"config", "digest", "errors", "explain", "runs", "status", "train"},
    "launch": {"config", "digest", "errors", "explain", "run", "runs", "status", "stop"},
    "train": {"config", "digest", "explain", "launch", "run", "runs", "leaks"},
}  # fmt: skip

# What only some rooms may touch.
OUTSIDE = {
    "hydra": {"train", "explain", "launch", "tables"},
    "hydra_plugins": {"launch"},
    "submitit": {"launch"},
    "wandb": {"tracking"},
    "omegaconf": {"digest", "explain", "launch", "replay", "run", "train", "tables"},
    "rich": {"console", "launch", "progress", "status", "tables"},
    "datasets": {"tasks"},
    "triton": {"engine"},
    "transformers": {
        "models",
        "optimizers",
        "objectives",
        "tasks",
        "tuning",
    },  # types of tokenizers, but in models; Adafactor in optimizers
    "peft": {"models", "tuning"},
}


def imports():
    """(room, imported module) for every import in the package."""
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
def test_a_library_stays_in_its_rooms(library):
    users = {room for room, name in FOUND if name.split(".")[0] == library}
    assert users <= OUTSIDE[library]


def test_the_engine_runs_on_a_bare_gpu_box():
    """And in other people's code: it needs torch, and what comes with a model."""
    outside = {name.split(".")[0] for room, name in FOUND if room == "engine"}
    outside -= {"lozo_bench", "__future__", *sys.stdlib_module_names}
    assert outside <= {"torch", "transformers", "numpy", "triton"}


def test_the_map_has_no_circles():
    order: list[str] = []
    left = dict(ALLOWED)
    while left:
        free = [room for room, below in left.items() if below <= set(order)]
        assert free, left
        order += free
        left = {room: below for room, below in left.items() if room not in free}


def test_the_entry_point_imports_nothing_heavy():
    """`--help`, `--cfg job` and tab completion must answer at once."""
    code = (
        "import sys, lozo_bench.train; "
        "print([m for m in ('torch', 'transformers', 'wandb', 'datasets') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"
