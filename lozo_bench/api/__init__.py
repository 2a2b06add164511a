"""lozo_bench from Python: `run`, `sweep`, `results`, and `ZO` for a training loop of your own."""

from lozo_bench.api.commands import run, sweep
from lozo_bench.api.result import Result, results
from lozo_bench.api.zo import ZO

__all__ = ["ZO", "Result", "results", "run", "sweep"]
