"""What a measurement was made with: the card, its driver, the versions and the commit."""

from __future__ import annotations

import importlib
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import torch
import transformers

from gpu.machine import GIB, Line, Machine
from lozo_bench.randomness.kernels import HAS_TRITON
from lozo_bench.runs.provenance import git_state


def about(machine: Machine, commit: str | None = None) -> Line:
    """Return the first line of the output.

    Args:
        machine: the device.
        commit: the project's commit, where the code is a copy without a repository.
    """
    found = git_state()
    if commit is None and found is not None:
        commit = f"{found['commit']}{'+changes' if found['dirty'] else ''}"
    return {
        "check": "about",
        "card": torch.cuda.get_device_name(0) if machine.is_cuda else platform.machine(),
        "driver": _driver() if machine.is_cuda else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _triton(),
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
        "commit": commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "command": shlex.join(["scripts/gpu_check.py", *sys.argv[1:]]),
        **(_card() if machine.is_cuda else {}),
    }


def title(line: Line) -> str:
    """Return the same in words."""
    versions = " ".join(
        f"{name} {line[name]}"
        for name in ("driver", "python", "torch", "triton", "transformers", "cuda")
        if line[name] is not None
    )
    return f"{line['card']}: {versions}; commit {line['commit'] or 'unknown'}"


def _card() -> Line:
    card: Any = torch.cuda.get_device_properties(0)
    return {
        "gib": round(card.total_memory / GIB, 1),
        "capability": f"{card.major}.{card.minor}",
        "cards": torch.cuda.device_count(),
    }


def _triton() -> str | None:
    return str(importlib.import_module("triton").__version__) if HAS_TRITON else None


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):  # absent in some containers
        return None
    return done.stdout.split("\n")[0].strip() or None
