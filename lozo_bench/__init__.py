"""Fine-tune language models without full backpropagation: LOZO, MeZO and their relatives.

From Python: `run`, `sweep`, `results` and `ZO` (see `lozo_bench.api`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ZO", "Result", "results", "run", "sweep"]

if TYPE_CHECKING:
    from lozo_bench.api.commands import run, sweep
    from lozo_bench.api.result import Result, results
    from lozo_bench.api.zo import ZO

_ROOMS = {
    "run": "commands",
    "sweep": "commands",
    "Result": "result",
    "results": "result",
    "ZO": "zo",
}


def __getattr__(name: str) -> Any:
    """Return a name of `lozo_bench.api`; what it needs, such as torch, is imported only then."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lozo_bench.api.{_ROOMS[name]}"), name)
