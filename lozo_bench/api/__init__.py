"""lozo_bench from Python: `run`, `sweep`, `results`, and `ZO` for a training loop of your own.

They are also names of the package itself: ``lozo_bench.run``.
"""
