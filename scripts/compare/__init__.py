"""The parts of scripts/compare_versions.py."""
