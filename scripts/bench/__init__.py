"""The parts of `scripts/bench_step.py`."""
