"""Fine-tune language models without full backpropagation: LOZO, MeZO and their relatives.

From Python: `run`, `sweep`, `results` and `ZO` (see `lozo_bench.api`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ZO", "Result", "results", "run", "sweep"]

if TYPE_CHECKING:
    from lozo_bench.api import ZO, Result, results, run, sweep


def __getattr__(name: str) -> Any:
    """Return a name of `lozo_bench.api`, which is imported, with torch, when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lozo_bench import api

    return getattr(api, name)
