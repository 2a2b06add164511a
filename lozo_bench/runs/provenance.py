"""The provenance of a result: versions, commit, machine and memory."""

from __future__ import annotations

import gc
import itertools
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch
from torch import nn

# Packages by the module that each is imported as.
_PACKAGES = {
    "lozo-bench": "lozo_bench",
    "torch": "torch",
    "transformers": "transformers",
    "datasets": "datasets",
    "hydra-core": "hydra",
    "wandb": "wandb",
    "numpy": "numpy",
}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on.

    A package that is not there is left out.
    """
    found = {package: _version(package, module) for package, module in _PACKAGES.items()}
    present = {package: number for package, number in found.items() if number is not None}
    return {"python": platform.python_version(), **present}


def _version(package: str, module: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # absent, or only on PYTHONPATH
        return getattr(sys.modules.get(module), "__version__", None)


def git_state() -> dict[str, str | bool] | None:
    """Return the commit of the checkout that contains this package; None without a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain"))}
    except (subprocess.CalledProcessError, FileNotFoundError):
        # The git program is missing, or the repository has no commits.
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def device_name(device: torch.device) -> str:
    """Return a device's name: ``cuda:0 (NVIDIA H200)`` or ``cpu (x86_64, 2 threads)``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def flops(model: nn.Module, tokens: int, backward_tokens: int) -> int:
    """Estimate the floating-point operations for tokens that go forward and backward.

    2 per token and weight forward, 4 backward (Kaplan et al., arXiv 2001.08361, section 2.1). The
    weights counted are the matrices that every token passes: not the embedding tables, in which
    tokens are only looked up, and not the output layer, which only the tokens that are read pass.
    The products within attention are left out: for rows of T tokens and a model of width d, they
    would add T / (6 d) of the rest.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        tables.add(id(head.weight))
    weights = sum(p.numel() for p in model.parameters() if p.ndim >= 2 and id(p) not in tables)
    return weights * (2 * tokens + 4 * backward_tokens)


_earlier_runs = itertools.count()  # of this process
_RESET_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak_memory(device: torch.device) -> Literal["run", "process"]:
    """Start a new measurement, so that a cell of a sweep does not report an earlier cell's peak.

    What earlier cells of this process have left is freed first.

    Returns:
        Whose peak is measured. Where the peak cannot be reset (on a CPU, anywhere but on Linux and
        in some containers), it is that of the whole process.
    """
    if next(_earlier_runs):  # a collection takes 0.3 s, and the first run has nothing to free
        gc.collect()
    if device.type == "cuda":
        for card in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(card)
        return "run"
    try:
        _RESET_PEAK.write_text("5")  # resets VmHWM, see proc(5)
    except OSError:
        return "process"
    return "run"


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory: allocated on the GPUs, or resident in the process on a CPU.

    Of several GPUs, over which ``model.device_map`` divides a model, the peaks are added.
    """
    if device.type == "cuda":
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    if _STATUS.exists():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes
