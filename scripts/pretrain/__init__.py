"""The parts of `scripts/pretrain_tiny.py`."""
