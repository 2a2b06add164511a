"""Evaluation: predictions over a whole set, and the numbers reported of them."""
