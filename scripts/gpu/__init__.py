"""The checks that scripts/gpu_check.py runs, and the counters of scripts/count_launches.py."""
