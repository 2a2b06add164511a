"""Curves of runs against what they cost."""
